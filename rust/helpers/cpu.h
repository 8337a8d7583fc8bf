/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_CPU_H
#define HELPERS_CPU_H

#include <linux/types.h>

/* What the CPU capabilities that all CPUs of this host have in common say. */
bool cpu_has_fwb(void);
bool cpu_has_dic(void);
bool cpu_has_idc(void);
bool cpu_has_vhe(void);

void icache_invalidate_all(void);
void maintenance_complete(void);
void full_barrier(void);

#endif
