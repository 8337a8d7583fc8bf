/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HELPERS_DEBUGFS_H
#define HELPERS_DEBUGFS_H

#include <linux/seq_file.h>

/*
 * A file in debugfs whose text @show prints, and that hands what is written to @write, its first 32
 * bytes at most. An open file holds a reference to this module.
 */
struct view {
	int (*show)(struct seq_file *m, const void *data);
	int (*write)(const void *data, const char *text, size_t len);
	const void *data;
};

struct dentry *view_create(const char *name, umode_t mode, struct dentry *dir,
			   const struct view *view);
bool dentry_is_error(const struct dentry *dentry);
bool dir_has(const char *name, struct dentry *dir);

#endif
