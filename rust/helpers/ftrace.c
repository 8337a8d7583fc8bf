// SPDX-License-Identifier: GPL-2.0

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/rcupdate_wait.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/srcu.h>
#include <asm/barrier.h>
#include <asm/insn.h>
#include <asm/kvm_mmu.h>

#include "ftrace.h"
#include "prototype.h"

ASSERT_PROTOTYPE(kvm_reset_vcpu, void (*)(struct kvm_vcpu *));
ASSERT_PROTOTYPE(stage2_unmap_vm, void (*)(struct kvm *));
ASSERT_PROTOTYPE(kvm_arch_destroy_vm, void (*)(struct kvm *));
ASSERT_PROTOTYPE(kvm_arch_vcpu_ioctl_run, int (*)(struct kvm_vcpu *));

DEFINE_STATIC_SRCU(in_flight);

unsigned long vm_run_gate(const struct kvm *kvm)
{
	return run_gate_index(kvm);
}

int in_flight_enter(void)
{
	return srcu_read_lock(&in_flight);
}

void in_flight_exit(int cookie)
{
	srcu_read_unlock(&in_flight, cookie);
}

static void call_in_flight(struct rcu_head *head, rcu_callback_t func)
{
	call_srcu(&in_flight, head, func);
}

/*
 * As synchronize_srcu(), but idle, as the waits for tasks are: beside an unmap of minutes rmmod does not hang.
 * And never expedited. A deadlock is nothing that would be reported as hung either: lockdep looks, as it does there.
 */
void in_flight_wait(void)
{
	srcu_lock_sync(&in_flight.dep_map);
	wait_rcu_gp_state(TASK_IDLE, call_in_flight);
	/* What follows comes after the grace period on this CPU, too, which may have had no part in it. */
	smp_mb();
}

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
	const struct redirects *redirects = container_of(ops, struct redirects, ops);
	const struct redirect *redirect = redirects->redirects;
	const struct redirect *end = redirect + MAX_REDIRECTS;

	/* What vCPUs that run pay each time: as little as can be. */
	if (likely(ip == redirects->run.site)) {
		const struct kvm_vcpu *vcpu;

		smp_mb();
		vcpu = (const struct kvm_vcpu *)ftrace_regs_get_argument(fregs, 0);
		if (unlikely(READ_ONCE(redirects->run.gates[run_gate_index(vcpu->kvm)].open)))
			ftrace_regs_set_instruction_pointer(fregs, redirects->run.to);
		return;
	}

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

	if (redirects->run.site)
		err = ftrace_set_filter_ip(&redirects->ops, redirects->run.site, 0, 0);
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
	while (err == -ENODEV) {
		schedule_timeout_idle(10 * HZ);
		err = unregister_ftrace_function(&redirects->ops);
	}
}

/*
 * While a BPF program comes to one of these functions, or goes, BPF holds a lock: ftrace sleeps a millisecond
 * and says -EAGAIN (bpf_tramp_ftrace_ops_func()); nothing is listed or patched yet. So this is some seconds.
 */
#define REGISTER_TRIES 1000

int redirects_register(struct redirects *redirects)
{
	int tries = REGISTER_TRIES;
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
		do {
			err = register_ftrace_function(&redirects->ops);
		} while (err == -EAGAIN && --tries);
		/* It worked a moment ago, and stopped over these very sites, perhaps half way. */
		if (err == -ENODEV)
			redirects_hold(redirects, err);
	}
	if (err) {
		/*
		 * ftrace lists the ops before it looks whether they may redirect, and others that trace
		 * the same functions go through that list: some may have been led here, and some be on
		 * their way. As when redirects are dropped.
		 */
		synchronize_rcu();
		synchronize_rcu_tasks();
		in_flight_wait();
		synchronize_rcu_tasks();
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

	/*
	 * A bug that it met on the way ended it half way, and it says nothing of that: it is asked for
	 * something that it refuses in any case, with -ENODEV once it has stopped.
	 */
	if (!err)
		err = ftrace_set_filter_ip(&redirects->ops, 0, 0, 0);
	if (err == -ENODEV)
		redirects_hold(redirects, err);
	ftrace_free_filter(&redirects->ops);
}
