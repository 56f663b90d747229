//! The root of another release of Debian, made once and kept in tellwire's part of the user's cache.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use rustix::fs::{FlockOperation, flock};

use crate::runtime::program;

/// A root with these packages. Nobody may write to it. It is downloaded where it is not there yet: some minutes.
pub fn root(suite: &str, packages: &[&str]) -> PathBuf {
    let roots = cache().join("roots");
    fs::create_dir_all(&roots).expect("the cache");
    // Others wait for the one who makes it.
    let lock = File::create(roots.join(format!("{suite}.lock"))).expect("a lock");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let root = roots.join(suite);
    if !root.exists() {
        let new = roots.join(format!("{suite}.{}", process::id()));
        make(suite, packages, &new);
        fs::rename(&new, &root).expect("the new root");
    }
    root
}

fn make(suite: &str, packages: &[&str], to: &Path) {
    let mut command = Command::new(program("mmdebstrap", "mmdebstrap"));
    command.arg("--variant=minbase").arg(format!("--include={}", packages.join(","))).arg(suite).arg(to);
    let output = command.stdin(Stdio::null()).output().expect("mmdebstrap");
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// As in xtask/src/setup.rs.
fn cache() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|cache| cache.is_absolute());
    cache.unwrap_or_else(|| env::home_dir().expect("a home folder").join(".cache")).join("tellwire")
}
