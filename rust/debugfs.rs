// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs whose open descriptors pin the module, which those of `kernel::debugfs` do not.
//! debugfs itself lets no reader into a file that is being removed, and waits for those inside.

use super::bindings;
use core::ffi::{c_void, CStr};
use kernel::{alloc::flags::GFP_KERNEL_ACCOUNT, prelude::*, seq_file::SeqFile};

/// A kind of file: what one shows, and what a write to it does.
pub(crate) trait File {
    /// What a file of this kind is about.
    type Subject: Sync;

    /// Prints the whole file.
    fn show(subject: &Self::Subject, m: &SeqFile);

    /// Takes what was written, its first 32 bytes at most.
    fn write(_subject: &Self::Subject, _text: &[u8]) -> Result {
        Err(EINVAL)
    }
}

/// A [`File`] as debugfs gets to see it.
#[repr(transparent)]
pub(crate) struct View(bindings::view);

// SAFETY: Constant after it is made; what it points to is `Sync`, as a `File`'s subject.
unsafe impl Sync for View {}
// SAFETY: As above.
unsafe impl Send for View {}

impl View {
    /// # Safety
    ///
    /// `subject` must stay valid until every [`Dir`] with this view in it is removed.
    pub(crate) const unsafe fn new<F: File>(subject: *const F::Subject) -> Self {
        Self(bindings::view {
            show: Some(show::<F>),
            write: Some(write::<F>),
            data: subject.cast(),
        })
    }

    /// A view of something that is there for good.
    pub(crate) const fn of<F: File>(subject: &'static F::Subject) -> Self {
        // SAFETY: Static.
        unsafe { Self::new::<F>(subject) }
    }
}

/// # Safety
///
/// Called by the file operations of a view that was made of an `F`.
unsafe extern "C" fn show<F: File>(m: *mut bindings::seq_file, subject: *const c_void) -> i32 {
    // SAFETY: The view's `data`, valid by `View::new`; `m` is the open file's own.
    unsafe { F::show(&*subject.cast(), SeqFile::from_raw(m.cast())) };
    0
}

/// # Safety
///
/// As [`show`]; `text` holds `len` bytes.
unsafe extern "C" fn write<F: File>(subject: *const c_void, text: *const u8, len: usize) -> i32 {
    // SAFETY: As in `show`, and by this function's requirements.
    let result = unsafe { F::write(&*subject.cast(), core::slice::from_raw_parts(text, len)) };
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// A directory, removed with all that is in it on drop.
///
/// # Invariants
///
/// A dentry made by `debugfs_create_dir`, or an error pointer, which debugfs takes and ignores.
pub(crate) struct Dir(*mut bindings::dentry);

// SAFETY: debugfs does its own locking.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes a directory; in the root of debugfs without a `parent`. As the kernel does throughout,
    /// what cannot be made (debugfs is off) is left out: see [`Dir::exists`].
    pub(crate) fn new(name: &CStr, parent: Option<Parent>) -> Self {
        let parent = parent.map_or(core::ptr::null_mut(), |dir| dir.0);
        // SAFETY: `name` is copied; `parent` is a directory or an error pointer.
        Self(unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), parent) })
    }

    /// The directory, for others to be made in.
    ///
    /// # Safety
    ///
    /// Neither the returned value nor a copy of it is used once this directory is dropped.
    pub(crate) unsafe fn as_parent(&self) -> Parent {
        Parent(self.0)
    }

    /// Whether it could be made.
    pub(crate) fn exists(&self) -> bool {
        // SAFETY: Looks at the pointer only.
        unsafe { !bindings::dentry_is_error(self.0) }
    }

    /// Puts a file into it. Returns whether it could be made.
    ///
    /// # Safety
    ///
    /// `view` must stay valid until this directory is dropped.
    pub(crate) unsafe fn add(&self, name: &CStr, mode: u16, view: *const View) -> bool {
        // SAFETY: `name` is copied; `view` by the caller. Of the result the pointer alone is looked at.
        unsafe {
            let file = bindings::view_create(name.as_char_ptr(), mode, self.0, view.cast());
            !bindings::dentry_is_error(file)
        }
    }

    /// Puts a file into it that is there for good. Returns whether it could be made.
    pub(crate) fn add_static(&self, name: &CStr, mode: u16, view: &'static View) -> bool {
        // SAFETY: Static.
        unsafe { self.add(name, mode, view) }
    }
}

/// A directory with files in it, charged to the current task's memory cgroup.
pub(crate) struct Directory<const FILES: usize> {
    _dir: Dir,
    /// Behind the directory, for they must outlive the files in it.
    _views: KBox<[View; FILES]>,
}

impl<const FILES: usize> Directory<FILES> {
    /// Makes it, and a file of each name. `None`, and nothing of it, where something is missing for it.
    ///
    /// # Safety
    ///
    /// `views` must stay valid until the returned value is dropped; `parent` is there.
    pub(crate) unsafe fn new(
        name: &CStr,
        parent: Parent,
        names: [&CStr; FILES],
        views: [View; FILES],
    ) -> Option<Self> {
        let views = KBox::new(views, GFP_KERNEL_ACCOUNT).ok()?;
        let dir = Dir::new(name, Some(parent));
        if !dir.exists() {
            return None;
        }
        for (name, view) in names.into_iter().zip(&*views) {
            // SAFETY: Dropped after the directory, and valid by the caller.
            if !unsafe { dir.add(name, 0o444, view) } {
                return None;
            }
        }
        Some(Self {
            _dir: dir,
            _views: views,
        })
    }
}

/// A directory that somebody else owns.
#[derive(Clone, Copy)]
pub(crate) struct Parent(*mut bindings::dentry);

// SAFETY: As for `Dir`.
unsafe impl Send for Parent {}
// SAFETY: As for `Dir`.
unsafe impl Sync for Parent {}

impl Parent {
    /// Whether it has an entry of that name.
    pub(crate) fn has(&self, name: &CStr) -> bool {
        // SAFETY: A directory that is there, by `Dir::as_parent`, or an error pointer, in which
        // debugfs finds nothing.
        unsafe { bindings::dir_has(name.as_char_ptr(), self.0) }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Waits for readers and writers inside the files.
        // SAFETY: By the type invariant.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}
