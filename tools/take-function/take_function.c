// SPDX-License-Identifier: GPL-2.0
/*
 * Takes @function from all others that would redirect it, as a livepatch does, and lets it run as it is.
 * For the test of what the module does without.
 */

#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/string.h>

static char *function;
module_param(function, charp, 0);
MODULE_PARM_DESC(function, "a function that ftrace can patch");

static void notrace take_function_callback(unsigned long ip, unsigned long parent_ip,
					   struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops ops = {
	.func = take_function_callback,
	.flags = FTRACE_OPS_FL_IPMODIFY,
};

static int __init take_function_init(void)
{
	int err;

	if (!function)
		return -EINVAL;
	err = ftrace_set_filter(&ops, function, strlen(function), 0);
	if (!err)
		err = register_ftrace_function(&ops);
	if (err)
		ftrace_free_filter(&ops);
	return err;
}

static void __exit take_function_exit(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
}

module_init(take_function_init);
module_exit(take_function_exit);
MODULE_DESCRIPTION("Takes a function from all others that would redirect it, for a test");
MODULE_LICENSE("GPL");
