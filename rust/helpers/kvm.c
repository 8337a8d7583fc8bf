// SPDX-License-Identifier: GPL-2.0

#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/sched/task_stack.h>
#include <asm/syscall.h>

#include "kvm.h"

bool kvm_initialised(unsigned long is_kvm_arm_initialised)
{
	return ((bool (*)(void))is_kvm_arm_initialised)();
}

/*
 * Whether the current task entered the kernel by ioctl(KVM_ARM_VCPU_INIT). The registers that user
 * space entered with stay as they were until it returns; a tracer may change them only before the
 * call starts or after it ends. There is no other way in: KVM has no compat ioctls on arm64, and
 * ioctls on vCPUs need the VM's mm.
 */
bool current_in_vcpu_init(void)
{
	struct pt_regs *regs = task_pt_regs(current);

	return current->mm && syscall_get_nr(current, regs) == __NR_ioctl &&
	       (unsigned int)regs->regs[1] == KVM_ARM_VCPU_INIT;
}

struct kvm *vcpu_vm(struct kvm_vcpu *vcpu)
{
	return vcpu->kvm;
}

int vcpu_id(struct kvm_vcpu *vcpu)
{
	return vcpu->vcpu_id;
}

bool vcpu_is_first(struct kvm_vcpu *vcpu)
{
	return vcpu->vcpu_idx == 0;
}

bool vcpu_has_run(struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->pid);
}

bool vcpu_wants_to_run(struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->wants_to_run);
}

bool vcpu_another_wants_to_run(struct kvm_vcpu *vcpu)
{
	unsigned long last = atomic_read(&vcpu->kvm->online_vcpus) - 1;
	XA_STATE(xas, &vcpu->kvm->vcpu_array, 0);
	struct kvm_vcpu *other;
	bool found = false;

	/* Of a VM with many vCPUs, each: kvm_for_each_vcpu() would start from the root for each. */
	rcu_read_lock();
	xas_for_each(&xas, other, last) {
		if (xas_retry(&xas, other) || xa_is_zero(other) || other == vcpu)
			continue;
		found = READ_ONCE(other->wants_to_run);
		if (found)
			break;
	}
	rcu_read_unlock();
	return found;
}

bool vm_copy_debugfs_name(struct kvm *kvm, char *name, size_t size)
{
	/* An error pointer where KVM could make none, as beside a dying VM of the same name. */
	return !IS_ERR_OR_NULL(kvm->debugfs_dentry) &&
	       strscpy(name, kvm->debugfs_dentry->d_name.name, size) > 0;
}

pid_t vm_pid(struct kvm *kvm)
{
	return kvm->userspace_pid;
}

/* Whether there is a VMA at every address of the slot. */
static bool slot_is_mapped(const struct kvm_memory_slot *slot)
{
	unsigned long at = slot->userspace_addr, end = at + (slot->npages << PAGE_SHIFT);

	while (at < end) {
		const struct vm_area_struct *vma = find_vma_intersection(current->mm, at, end);

		if (!vma || vma->vm_start > at)
			return false;
		at = vma->vm_end;
	}
	return true;
}

bool vm_unmap_reaches_all(struct kvm *kvm)
{
	const struct kvm_memory_slot *slot;
	bool all = !kvm_vm_is_protected(kvm);
	int idx, bucket;

	if (!current->mm || current->mm != kvm->mm)
		return false;

	idx = srcu_read_lock(&kvm->srcu);
	mmap_read_lock(current->mm);
	kvm_for_each_memslot(slot, bucket, kvm_memslots(kvm))
		all = all && !(slot->flags & KVM_MEM_GUEST_MEMFD) && slot_is_mapped(slot);
	mmap_read_unlock(current->mm);
	srcu_read_unlock(&kvm->srcu, idx);
	return all;
}

int vm_vcpus(struct kvm *kvm)
{
	return atomic_read(&kvm->online_vcpus);
}

u64 vm_memory(struct kvm *kvm)
{
	return (u64)READ_ONCE(kvm->nr_memslot_pages) << PAGE_SHIFT;
}

void current_process_name(char *name)
{
	strscpy_pad(name, current->group_leader->comm, TASK_COMM_LEN);
}
