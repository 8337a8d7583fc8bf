/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the target kernel's own headers, and those of helpers/, one for each of the
 * kernel's subsystems. There is what Rust cannot reach by itself, macros, inline functions, static
 * initialisers and fields of KVM's structures; and what runs where Rust should not: ftrace's callback
 * with the gates that it looks at, and the walk over a stage-2 table.
 */

#include <linux/debugfs.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "helpers/built_for.h"
#include "helpers/cpu.h"
#include "helpers/debugfs.h"
#include "helpers/ftrace.h"
#include "helpers/kprobe.h"
#include "helpers/kvm.h"
#include "helpers/lock.h"
#include "helpers/stage2.h"
#include "helpers/vm_table.h"
