/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_KPROBE_H
#define HELPERS_KPROBE_H

#include <linux/kallsyms.h>
#include <linux/kprobes.h>

/* Bytes that sprint_symbol() may write. */
enum { SYMBOL_TEXT_LEN = KSYM_SYMBOL_LEN };

/* Has the interrupted code go on so many bytes farther. */
void probe_skip(struct pt_regs *regs, unsigned long bytes);

#endif
