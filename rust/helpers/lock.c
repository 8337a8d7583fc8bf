// SPDX-License-Identifier: GPL-2.0

#include "lock.h"

bool lock_mutex_unless_killed(struct mutex *mutex)
{
	return !mutex_lock_killable(mutex);
}
