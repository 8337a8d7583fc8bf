// SPDX-License-Identifier: GPL-2.0

#include <linux/err.h>
#include <linux/io.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "vm_table.h"

/* What its nodes take is charged to whoever makes a VM known. */
struct vm_table vm_table = {
	.entries = XARRAY_INIT(vm_table.entries, XA_FLAGS_ACCOUNT),
	.changes = __MUTEX_INITIALIZER(vm_table.changes),
};

void vm_table_lock(struct vm_table *table)
{
	mutex_lock(&table->changes);
}

void vm_table_unlock(struct vm_table *table)
{
	mutex_unlock(&table->changes);
}

/*
 * Numbers as small as can be, for the tree is as deep as the largest needs: where struct kvm is in
 * physical memory, or in the vmalloc area (kvm_arch_alloc_vm()), without so many of the last bits that
 * two of them differ in the others. Odd in the one, even in the other; never 0, where vm_table_next()
 * starts.
 */
static unsigned long vm_table_key(const struct kvm *kvm)
{
	enum { SHIFT = const_ilog2(sizeof(*kvm)) };

	if (unlikely(is_vmalloc_addr(kvm)))
		return 2 * (((unsigned long)kvm - VMALLOC_START) >> SHIFT) + 2;
	return 2 * (virt_to_phys(kvm) >> SHIFT) + 1;
}

void *vm_table_find(struct vm_table *table, const struct kvm *kvm)
{
	return xa_load(&table->entries, vm_table_key(kvm));
}

/* Puts @entry there. Returns the one that was there before, and stays, or an error pointer. */
void *vm_table_insert(struct vm_table *table, const struct kvm *kvm, void *entry)
{
	void *there = xa_cmpxchg(&table->entries, vm_table_key(kvm), NULL, entry, GFP_KERNEL);

	return xa_is_err(there) ? ERR_PTR(xa_err(there)) : there;
}

/* Takes out what is there, and returns it. */
void *vm_table_remove(struct vm_table *table, const struct kvm *kvm)
{
	return xa_erase(&table->entries, vm_table_key(kvm));
}

/* The first entry behind *@key, which moves there; *@key 0 starts. */
void *vm_table_next(struct vm_table *table, unsigned long *key)
{
	return xa_find_after(&table->entries, key, ULONG_MAX, XA_PRESENT);
}
