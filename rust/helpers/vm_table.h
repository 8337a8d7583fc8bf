/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_VM_TABLE_H
#define HELPERS_VM_TABLE_H

#include <linux/kvm_host.h>
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

/* The one there is. */
extern struct vm_table vm_table;

void vm_table_lock(struct vm_table *table);
void vm_table_unlock(struct vm_table *table);
void *vm_table_find(struct vm_table *table, const struct kvm *kvm);
void *vm_table_insert(struct vm_table *table, const struct kvm *kvm, void *entry);
void *vm_table_remove(struct vm_table *table, const struct kvm *kvm);
void *vm_table_next(struct vm_table *table, unsigned long *key);

#endif
