// SPDX-License-Identifier: GPL-2.0

#include <linux/module.h>
#include <linux/utsname.h>

#include "built_for.h"

/* scripts/module writes what it knows into built_for.h, which comes before this file. */
#ifdef BUILT_FOR
MODULE_INFO(built_for, BUILT_FOR);
#else
#define BUILT_FOR NULL
#endif

/* Kbuild knows it. A macro of module! for it does not exist. */
MODULE_VERSION(KVM_FWB_RESET_VERSION);

const char *kernel_built_for(void)
{
	return BUILT_FOR;
}

const char *kernel_running(void)
{
	return init_utsname()->version;
}
