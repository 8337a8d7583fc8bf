/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_BUILT_FOR_H
#define HELPERS_BUILT_FOR_H

#include <linux/types.h>

/* The version (uname -v) of the kernel that this was built for, or NULL; and of this one. */
const char *kernel_built_for(void);
const char *kernel_running(void);

#endif
