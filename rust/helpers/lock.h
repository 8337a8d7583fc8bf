/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_LOCK_H
#define HELPERS_LOCK_H

#include <linux/mutex.h>

/* Whether it was taken. mutex_lock_killable() is a macro where lockdep is. */
bool lock_mutex_unless_killed(struct mutex *mutex);

#endif
