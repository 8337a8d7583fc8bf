// SPDX-License-Identifier: GPL-2.0
/*
 * Stops ftrace for good when it is loaded, as ftrace does by itself when it meets a bug of its own. For
 * the test of what the module does about that.
 */

#include <linux/kprobes.h>
#include <linux/module.h>

static int __init stop_ftrace_init(void)
{
	/* Tells the address of what is not exported. Never armed. */
	struct kprobe probe = {
		.symbol_name = "ftrace_kill",
		.flags = KPROBE_FLAG_DISABLED,
	};
	int err = register_kprobe(&probe);

	if (err)
		return err;
	unregister_kprobe(&probe);
	((void (*)(void))probe.addr)();
	return 0;
}

static void __exit stop_ftrace_exit(void)
{
}

module_init(stop_ftrace_init);
module_exit(stop_ftrace_exit);
MODULE_DESCRIPTION("Stops ftrace, for a test");
MODULE_LICENSE("GPL");
