// SPDX-License-Identifier: GPL-2.0

#include <linux/err.h>

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

/* Puts @entry there. Returns the one that was there before, and stays, or an error pointer. */
void *vm_table_insert(struct vm_table *table, unsigned long key, void *entry)
{
	void *there = xa_cmpxchg(&table->entries, key, NULL, entry, GFP_KERNEL);

	return xa_is_err(there) ? ERR_PTR(xa_err(there)) : there;
}

/* The first entry behind *@key, which moves there; *@key 0 starts. */
void *vm_table_next(struct vm_table *table, unsigned long *key)
{
	return xa_find_after(&table->entries, key, ULONG_MAX, XA_PRESENT);
}
