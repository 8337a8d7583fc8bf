/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the target kernel's own headers, and the helpers below them. */

#include <linux/debugfs.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "helpers.h"
