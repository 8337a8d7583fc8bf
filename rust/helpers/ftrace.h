/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_FTRACE_H
#define HELPERS_FTRACE_H

#include <linux/ftrace.h>
#include <linux/kvm_host.h>
#include <linux/log2.h>

/*
 * A function of the kernel whose calls go to @to instead, or, where @gate is set, only while *@gate
 * is not zero. @original is where the function goes on behind its patched entry.
 */
struct redirect {
	unsigned long original;
	unsigned long to;
	const int *gate;
};

enum { MAX_REDIRECTS = 3 };

/*
 * A gate for VMs, each on a cache line of its own: what one VM's resets write, hardly another's KVM_RUN
 * reads.
 */
struct run_gate {
	int open;
} __aligned(64);

/* A power of two. */
enum { RUN_GATES = 64 };

/* Which of the gates is that VM's: by the bits that tell neighbours in the heap from each other. */
static inline unsigned long run_gate_index(const struct kvm *kvm)
{
	return ((unsigned long)kvm >> order_base_2(sizeof(struct kvm))) % RUN_GATES;
}

/*
 * kvm_arch_vcpu_ioctl_run(), whose entry is at @site: its calls go to @to while the VM's one of
 * @gates is open. All zero: not redirected.
 */
struct run_entry {
	unsigned long site;
	unsigned long to;
	const struct run_gate *gates;
};

/* Redirects that come and go as one. Constant while registered; the first is found the fastest. */
struct redirects {
	struct ftrace_ops ops;
	struct run_entry run;
	struct redirect redirects[MAX_REDIRECTS];
};

int redirects_register(struct redirects *redirects);
/* Returns once no call site leads here any more. */
void redirects_unregister(struct redirects *redirects);

unsigned long vm_run_gate(const struct kvm *kvm);

/* Calls of redirected functions that are in this module, however long they sleep there. */
int in_flight_enter(void);
void in_flight_exit(int cookie);
void in_flight_wait(void);

/* trampoline.S */
void redirect_call_original(void *argument, unsigned long original);
extern char run_entry_trampoline[];
extern unsigned long run_entry_original;
/* Rust: called by the trampoline */
void run_entry_handler(struct kvm_vcpu *vcpu);

/* Where the trampoline finds kvm_pgtable_stage2_unmap() behind its patched entry. */
extern unsigned long stage2_unmap_original;
int stage2_unmap_native(struct kvm_pgtable *table, u64 addr, u64 size);

#endif
