// SPDX-License-Identifier: GPL-2.0

#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/sched/task_stack.h>
#include <linux/smp.h>
#include <linux/srcu.h>
#include <linux/uaccess.h>
#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/insn.h>
#include <asm/syscall.h>
#include <asm/virt.h>

#include "helpers.h"

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

	/* There is one: registering named these very call sites. */
	while (redirect->original != ip + AARCH64_INSN_SIZE)
		redirect++;

	if (redirect->gate) {
		smp_mb();
		if (likely(!READ_ONCE(*redirect->gate)))
			return;
	}
	ftrace_regs_set_instruction_pointer(fregs, redirect->to);
}

int redirects_register(struct redirects *redirects)
{
	int i, err = 0;

	redirects->ops.func = redirects_callback;
	/*
	 * IPMODIFY: no other user may redirect these functions. PERMANENT: kernel.ftrace_enabled
	 * cannot be cleared while we rely on it. The callback calls nothing, so it needs no
	 * recursion guard.
	 */
	redirects->ops.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT;

	/* ftrace takes the address of a call site of its own, and refuses any other. */
	for (i = 0; !err && i < MAX_REDIRECTS && redirects->redirects[i].original; i++)
		err = ftrace_set_filter_ip(&redirects->ops,
					   redirects->redirects[i].original - AARCH64_INSN_SIZE,
					   0, 0);
	if (!err)
		err = register_ftrace_function(&redirects->ops);
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

int redirects_unregister(struct redirects *redirects)
{
	int err = unregister_ftrace_function(&redirects->ops);

	ftrace_free_filter(&redirects->ops);
	return err;
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

const char *vm_debugfs_name(struct kvm *kvm)
{
	/* Set once when the VM is made, never renamed; an error pointer where debugfs refused. */
	return IS_ERR_OR_NULL(kvm->debugfs_dentry) ? NULL : kvm->debugfs_dentry->d_name.name;
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

void vm_table_init(struct vm_table *table)
{
	xa_init(&table->entries);
	mutex_init(&table->changes);
}

void vm_table_lock(struct vm_table *table)
{
	mutex_lock(&table->changes);
}

void vm_table_unlock(struct vm_table *table)
{
	mutex_unlock(&table->changes);
}

int vm_table_store(struct vm_table *table, unsigned long key, void *entry)
{
	return xa_err(xa_store(&table->entries, key, entry, GFP_KERNEL));
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
