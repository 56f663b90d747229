//! Overlay mounts of a test's own, as engines mount images.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Where it is mounted; it goes with this value.
#[derive(Debug)]
pub struct Overlay(pub PathBuf);

impl Overlay {
    /// Over the folder `lower`, with folders of its own that begin with `name`.
    pub fn new(folder: &Path, name: &str, lower: &Path) -> Self {
        let part = |part: &str| {
            let path = folder.join(format!("{name}-{part}"));
            fs::create_dir(&path).expect("a folder");
            path
        };
        let (upper, work, merged) = (part("upper"), part("work"), part("merged"));
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = CString::new(options).expect("no NUL");
        mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .expect("an overlay");
        Self(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _gone = unmount(&self.0, UnmountFlags::DETACH);
    }
}
