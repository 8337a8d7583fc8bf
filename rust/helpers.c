// SPDX-License-Identifier: GPL-2.0

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/smp.h>
#include <linux/srcu.h>
#include <linux/uaccess.h>
#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/insn.h>
#include <asm/kvm_mmu.h>
#include <asm/syscall.h>
#include <asm/virt.h>

#include "helpers.h"

/* The kernel's own compiler holds what is redirected against how it is redirected. */
#define ASSERT_PROTOTYPE(function, type) \
	static_assert(__builtin_types_compatible_p(typeof(&(function)), type), \
		      #function "() has another prototype than its redirect")

ASSERT_PROTOTYPE(kvm_reset_vcpu, void (*)(struct kvm_vcpu *));
ASSERT_PROTOTYPE(stage2_unmap_vm, void (*)(struct kvm *));
ASSERT_PROTOTYPE(kvm_arch_destroy_vm, void (*)(struct kvm *));
ASSERT_PROTOTYPE(kvm_arch_vcpu_ioctl_run, int (*)(struct kvm_vcpu *));

/*
 * ftrace calls this at the patched entry of a redirected function, in the caller's context.
 * Changing the instruction pointer makes ftrace return to the replacement, with all arguments as
 * they were.
 *
 * The barrier orders what the caller stored before the call against the load of the gate; whoever
 * opens the gate has a full barrier between opening it and looking for callers.
 */
static void notrace redirects_callback(unsigned long ip, unsigned long parent_ip,
				       struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	const struct redirect *redirect = container_of(ops, struct redirects, ops)->redirects;
	const struct redirect *end = redirect + MAX_REDIRECTS;

	while (redirect->original != ip + AARCH64_INSN_SIZE)
		/* A call site that nobody named: the function itself runs, as if it were not patched. */
		if (unlikely(++redirect == end))
			return;

	if (redirect->gate) {
		smp_mb();
		if (likely(!READ_ONCE(*redirect->gate)))
			return;
	}
	ftrace_regs_set_instruction_pointer(fregs, redirect->to);
}

/*
 * ftrace takes the address of a call site of its own, and refuses any other. Once it has stopped for
 * a bug of its own, it refuses all.
 */
static int redirects_name_sites(struct redirects *redirects)
{
	int i, err = 0;

	for (i = 0; !err && i < MAX_REDIRECTS && redirects->redirects[i].original; i++)
		err = ftrace_set_filter_ip(&redirects->ops,
					   redirects->redirects[i].original - AARCH64_INSN_SIZE,
					   0, 0);
	return err;
}

/*
 * ftrace has stopped, and left call sites patched: they go on calling this module's text with this
 * module's ops. So whoever would free them stays here until ftrace takes them back, for ever if need
 * be. Not counted as hung: it is known, and waits for nobody.
 */
static void redirects_hold(struct redirects *redirects, int err)
{
	pr_emerg("ftrace has stopped for a bug of its own (%d), and leaves calls of KVM's functions led here: this module stays, and this task does not return. Guests run on; reboot this host when you can\n",
		 err);
	while (err) {
		schedule_timeout_idle(10 * HZ);
		err = unregister_ftrace_function(&redirects->ops);
	}
}

int redirects_register(struct redirects *redirects)
{
	int err;

	redirects->ops.func = redirects_callback;
	/*
	 * IPMODIFY: no other user may redirect these functions. PERMANENT: kernel.ftrace_enabled
	 * cannot be cleared while we rely on it. The callback calls nothing, so it needs no
	 * recursion guard.
	 */
	redirects->ops.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT;

	err = redirects_name_sites(redirects);
	if (!err) {
		err = register_ftrace_function(&redirects->ops);
		/* It worked a moment ago, and stopped over these very sites, perhaps half way. */
		if (err == -ENODEV)
			redirects_hold(redirects, err);
	}
	if (err) {
		ftrace_free_filter(&redirects->ops);
		return err;
	}
	/*
	 * A caller that passed an entry just before it was patched has had no barrier from the
	 * callback. From here on all CPUs see what such a caller stored, and all run the new text.
	 */
	kick_all_cpus_sync();
	return 0;
}

void redirects_unregister(struct redirects *redirects)
{
	int err = unregister_ftrace_function(&redirects->ops);

	/* A bug that it met on the way ended it half way, and it says nothing of that. */
	if (!err)
		err = redirects_name_sites(redirects);
	if (err)
		redirects_hold(redirects, err);
	ftrace_free_filter(&redirects->ops);
}

DEFINE_STATIC_SRCU(in_flight);

int in_flight_enter(void)
{
	return srcu_read_lock(&in_flight);
}

void in_flight_exit(int cookie)
{
	srcu_read_unlock(&in_flight, cookie);
}

void in_flight_wait(void)
{
	synchronize_srcu(&in_flight);
}

void probe_skip(struct pt_regs *regs, unsigned long bytes)
{
	instruction_pointer_set(regs, instruction_pointer(regs) + bytes);
}

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

	/* Every re-init looks at every vCPU: kvm_for_each_vcpu() would start from the root for each. */
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

static int view_show(struct seq_file *m, void *unused)
{
	const struct view *view = m->private;

	return view->show(m, view->data);
}

static int view_open(struct inode *inode, struct file *file)
{
	return single_open(file, view_show, inode->i_private);
}

static ssize_t view_write(struct file *file, const char __user *ubuf, size_t len, loff_t *pos)
{
	const struct view *view = ((struct seq_file *)file->private_data)->private;
	char text[32];
	int err;

	if (copy_from_user(text, ubuf, min(len, sizeof(text))))
		return -EFAULT;

	err = view->write(view->data, text, min(len, sizeof(text)));
	return err ? err : len;
}

static const struct file_operations view_operations = {
	.owner = THIS_MODULE,
	.open = view_open,
	.read = seq_read,
	.write = view_write,
	.llseek = seq_lseek,
	.release = single_release,
};

struct dentry *view_create(const char *name, umode_t mode, struct dentry *dir,
			   const struct view *view)
{
	return debugfs_create_file(name, mode, dir, (void *)view, &view_operations);
}

bool dentry_is_error(const struct dentry *dentry)
{
	return IS_ERR(dentry);
}

/* Whether @dir has an entry of that name, without a word in the log. */
bool dir_has(const char *name, struct dentry *dir)
{
	struct dentry *dentry = debugfs_lookup(name, dir);

	dput(dentry);
	return dentry;
}
