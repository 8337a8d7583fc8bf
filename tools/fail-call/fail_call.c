// SPDX-License-Identifier: GPL-2.0
/*
 * Has one call of @function by the task @pid fail, without being made: the @nth from when that is written; it
 * counts down, and is 0 once that call was made. For the tests of what the module does then. The kernel's own
 * fail_function takes only functions that are marked for it, and none of those that register something is.
 */

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/ptrace.h>
#include <linux/sched.h>

static char *function;
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "a function that returns 0, a pointer, or an error");

static int pid;
module_param(pid, int, 0);
MODULE_PARM_DESC(pid, "the task whose call fails, with ENOMEM");

static int nth;
module_param(nth, int, 0600);
MODULE_PARM_DESC(nth, "which of its calls fails; 0 for none");

static int fail_call_handler(struct kprobe *kprobe, struct pt_regs *regs)
{
	/* One task only: nobody else counts. */
	if (current->pid != pid || !nth || --nth)
		return 0;
	/* At the entry, where the link register still holds the caller. */
	regs_set_return_value(regs, -ENOMEM);
	regs->pc = procedure_link_pointer(regs);
	return 1;
}
NOKPROBE_SYMBOL(fail_call_handler);

static struct kprobe kprobe = { .pre_handler = fail_call_handler };

static int __init fail_call_init(void)
{
	kprobe.symbol_name = function;
	return register_kprobe(&kprobe);
}

static void __exit fail_call_exit(void)
{
	unregister_kprobe(&kprobe);
}

module_init(fail_call_init);
module_exit(fail_call_exit);
MODULE_DESCRIPTION("Has one call of a function fail, for a test");
MODULE_LICENSE("GPL");
