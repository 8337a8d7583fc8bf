/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_STAGE2_H
#define HELPERS_STAGE2_H

#include <linux/kvm_host.h>

/* Functions of KVM's, by address. */
struct stage2_functions {
	/* kvm_pgtable_walk() */
	unsigned long walk;
	/* kvm_pgtable_stage2_map() */
	unsigned long map;
	/* kvm_tlb_flush_vmid_range() */
	unsigned long flush;
};

/* What an unmap would have done beyond clearing entries. */
struct stage2_left_out {
	u64 bytes;
	u64 invalidations;
};

bool stage2_is_protected(void);
bool stage2_is_of(struct kvm_pgtable *table, struct kvm *kvm);
/* As kvm_pgtable_stage2_unmap(), with one TLB invalidation for all, and no cleaning. */
int stage2_drop_leaves(const struct stage2_functions *functions, struct kvm_pgtable *table, u64 addr,
		       u64 size, struct stage2_left_out *left_out);
/*
 * 0 if a page is cleaned to the PoC, and the instruction caches are invalidated for it, before it is
 * mapped: tried on a table of no VM's. -EOPNOTSUPP if not, or what went wrong.
 */
int stage2_map_cleans(const struct stage2_functions *functions);

#endif
