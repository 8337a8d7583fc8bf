/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot reach by itself: macros, inline functions and static initialisers of the
 * kernel's headers. Nothing here decides anything.
 */
#ifndef HELPERS_H
#define HELPERS_H

#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/seq_file.h>
#include <linux/xarray.h>

/*
 * A function of the kernel whose calls go to @to instead, or, where @gate is set, only while *@gate
 * is not zero. @original is where the function goes on behind its patched entry.
 */
struct redirect {
	unsigned long original;
	unsigned long to;
	const int *gate;
};

enum { MAX_REDIRECTS = 6 };

/* Redirects that come and go as one. Constant while registered; the first is found the fastest. */
struct redirects {
	struct ftrace_ops ops;
	struct redirect redirects[MAX_REDIRECTS];
};

int redirects_register(struct redirects *redirects);
/* Returns once no call site leads here any more. */
void redirects_unregister(struct redirects *redirects);

/* Calls of redirected functions that are in this module, however long they sleep there. */
int in_flight_enter(void);
void in_flight_exit(int cookie);
void in_flight_wait(void);

/* Bytes that sprint_symbol() may write. */
enum { SYMBOL_TEXT_LEN = KSYM_SYMBOL_LEN };

/* trampoline.S */
void redirect_call_original(void *argument, unsigned long original);
extern char run_entry_trampoline[];
extern unsigned long run_entry_original;
/* Rust: called by the trampoline */
void run_entry_handler(struct kvm_vcpu *vcpu);

/* Where the trampoline finds kvm_pgtable_stage2_unmap() behind its patched entry. */
extern unsigned long stage2_unmap_original;
int stage2_unmap_native(struct kvm_pgtable *table, u64 addr, u64 size);

void probe_skip(struct pt_regs *regs, unsigned long bytes);

/*
 * built_for.c: the versions (uname -v) of the kernel that this was built for, or NULL,
 * and of this one.
 */
const char *kernel_built_for(void);
const char *kernel_running(void);

/* What the CPU capabilities that all CPUs of this host have in common say. */
bool cpu_has_fwb(void);
bool cpu_has_dic(void);
bool cpu_has_idc(void);
bool cpu_has_vhe(void);

void icache_invalidate_all(void);
void maintenance_complete(void);
void full_barrier(void);

bool kvm_initialised(unsigned long is_kvm_arm_initialised);
bool current_in_vcpu_init(void);
struct kvm *vcpu_vm(struct kvm_vcpu *vcpu);
bool vcpu_has_run(struct kvm_vcpu *vcpu);
bool vcpu_wants_to_run(struct kvm_vcpu *vcpu);
bool vcpu_another_wants_to_run(struct kvm_vcpu *vcpu);

/* Only while the VM has a user: KVM frees the dentry before anything else of it. */
bool vm_copy_debugfs_name(struct kvm *kvm, char *name, size_t size);
pid_t vm_pid(struct kvm *kvm);
/*
 * Whether stage2_unmap_vm() gets at all RAM that may be mapped: it goes by the VMAs of the current
 * task, which must be in an ioctl of the VM's, and leaves protected VMs alone.
 */
bool vm_unmap_reaches_all(struct kvm *kvm);
int vm_vcpus(struct kvm *kvm);
u64 vm_memory(struct kvm *kvm);

/* Functions of KVM's, by address. */
struct stage2_functions {
	/* kvm_pgtable_walk() */
	unsigned long walk;
	/* stage2_unmap_walker(), a kvm_pgtable_visitor_fn_t */
	unsigned long unmap_visitor;
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
 * Whether a page is cleaned to the PoC, and the instruction caches are invalidated for it, before it
 * is mapped: tried on a table of no VM's.
 */
bool stage2_map_cleans(const struct stage2_functions *functions);

enum { PROCESS_NAME_LEN = TASK_COMM_LEN };
void current_process_name(char *name);

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
void *vm_table_insert(struct vm_table *table, unsigned long key, void *entry);
void *vm_table_next(struct vm_table *table, unsigned long *key);

/*
 * A file in debugfs whose text @show prints, and that hands what is written to @write, its first 32
 * bytes at most. An open file holds a reference to this module.
 */
struct view {
	int (*show)(struct seq_file *m, const void *data);
	int (*write)(const void *data, const char *text, size_t len);
	const void *data;
};

struct dentry *view_create(const char *name, umode_t mode, struct dentry *dir,
			   const struct view *view);
bool dentry_is_error(const struct dentry *dentry);
bool dir_has(const char *name, struct dentry *dir);

#endif
