// SPDX-License-Identifier: GPL-2.0

#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/virt.h>

#include "cpu.h"

bool cpu_has_fwb(void)
{
	return cpus_have_cap(ARM64_HAS_STAGE2_FWB);
}

bool cpu_has_dic(void)
{
	return cpus_have_cap(ARM64_HAS_CACHE_DIC);
}

bool cpu_has_idc(void)
{
	return cpus_have_cap(ARM64_HAS_CACHE_IDC);
}

bool cpu_has_vhe(void)
{
	return is_kernel_in_hyp_mode();
}

/*
 * Arm ARM (DDI 0487) B2.7.4 and the pseudocode of IC IALLUIS: it acts on every PE of the inner
 * shareable domain, and is complete after a DSB by the PE that issued it. The first DSB puts it
 * after the writes that this PE has observed.
 */
void icache_invalidate_all(void)
{
	dsb(ish);
	asm volatile("ic ialluis" : : : "memory");
	dsb(ish);
	isb();
}

void maintenance_complete(void)
{
	dsb(ish);
}

void full_barrier(void)
{
	smp_mb();
}
