// SPDX-License-Identifier: GPL-2.0

#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "debugfs.h"

static int view_show(struct seq_file *m, void *unused)
{
	const struct view *view = m->private;

	return view->show(m, view->data);
}

static int view_open(struct inode *inode, struct file *file)
{
	return single_open(file, view_show, inode->i_private);
}

static ssize_t view_write(struct file *file, const char __user *ubuf, size_t len, loff_t *pos)
{
	const struct view *view = ((struct seq_file *)file->private_data)->private;
	char text[32];
	int err;

	if (copy_from_user(text, ubuf, min(len, sizeof(text))))
		return -EFAULT;

	err = view->write(view->data, text, min(len, sizeof(text)));
	return err ? err : len;
}

static const struct file_operations view_operations = {
	.owner = THIS_MODULE,
	.open = view_open,
	.read = seq_read,
	.write = view_write,
	.llseek = seq_lseek,
	.release = single_release,
};

struct dentry *view_create(const char *name, umode_t mode, struct dentry *dir,
			   const struct view *view)
{
	return debugfs_create_file(name, mode, dir, (void *)view, &view_operations);
}

bool dentry_is_error(const struct dentry *dentry)
{
	return IS_ERR(dentry);
}

/* Whether @dir has an entry of that name, without a word in the log. */
bool dir_has(const char *name, struct dentry *dir)
{
	struct dentry *dentry = debugfs_lookup(name, dir);

	dput(dentry);
	return dentry;
}
