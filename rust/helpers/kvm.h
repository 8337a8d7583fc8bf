/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_KVM_H
#define HELPERS_KVM_H

#include <linux/kvm_host.h>

bool kvm_initialised(unsigned long is_kvm_arm_initialised);
bool current_in_vcpu_init(void);
struct kvm *vcpu_vm(struct kvm_vcpu *vcpu);
int vcpu_id(struct kvm_vcpu *vcpu);
bool vcpu_is_first(struct kvm_vcpu *vcpu);
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

enum { PROCESS_NAME_LEN = TASK_COMM_LEN };
void current_process_name(char *name);

#endif
