// SPDX-License-Identifier: GPL-2.0

#include <linux/ptrace.h>

#include "kprobe.h"

void probe_skip(struct pt_regs *regs, unsigned long bytes)
{
	instruction_pointer_set(regs, instruction_pointer(regs) + bytes);
}
