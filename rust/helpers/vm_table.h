/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_VM_TABLE_H
#define HELPERS_VM_TABLE_H

#include <linux/kvm_host.h>
#include <linux/log2.h>
#include <linux/mutex.h>
#include <linux/xarray.h>

/*
 * Entries by VM. Look-ups take no lock, and neither do insertions, which may wait for memory;
 * @changes is held by whoever takes entries out, or walks them.
 */
struct vm_table {
	struct xarray entries;
	struct mutex changes;
};

/*
 * Keys are addresses of struct kvm without so many of their last bits: two that are alive differ in
 * the others. A tree by whole addresses would have two levels more, for each VM alone.
 */
enum { VM_KEY_SHIFT = const_ilog2(sizeof(struct kvm)) };

/* The one there is. */
extern struct vm_table vm_table;

void vm_table_lock(struct vm_table *table);
void vm_table_unlock(struct vm_table *table);
void *vm_table_insert(struct vm_table *table, unsigned long key, void *entry);
void *vm_table_next(struct vm_table *table, unsigned long *key);

#endif
