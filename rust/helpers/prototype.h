/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_PROTOTYPE_H
#define HELPERS_PROTOTYPE_H

/* The kernel's own compiler holds how a function is called, or redirected, against its prototype. */
#define ASSERT_PROTOTYPE(function, type) \
	static_assert(__builtin_types_compatible_p(typeof(&(function)), type), \
		      #function "() has another prototype than is relied on here")

#endif
