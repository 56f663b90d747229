//! Containers that come and go: their first login is seen, and nothing of them stays.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::RwLock,
};

use serde_json::{Value, json};
use tellwire_tests::{
    Agent, Overlay, at, image, oci,
    runtime::{self, Cgroups, libpam},
};

use crate::{
    helper::{Form, lines, path, stacks},
    overlay::{Inhabitant, root},
};

/// Containers of an image that is known already, which authenticate at once.
const KNOWN: usize = 50;

/// Containers with a library that nobody has seen.
const NEW: usize = 10;

/// Containers of new images that are mounted as engines mount them.
/// `TELLWIRE_MOUNTED_CONTAINERS` asks for more.
fn mounted() -> usize {
    let asked = env::var("TELLWIRE_MOUNTED_CONTAINERS").ok();
    asked.map_or(20, |number| number.parse().expect("TELLWIRE_MOUNTED_CONTAINERS is a number"))
}

/// When these authenticate for the first time. An attachment takes an RCU grace period or two, tens of milliseconds, unless
/// other agents attach and detach meanwhile, as they do where tests run side by side: the kernel has one lock for all.
const LATER: &str = "PAM_PAUSE_MS=2000";

/// Containers that come and go, of so many images, and so many of each at one time.
const CONTAINERS: usize = 1000;
const IMAGES: usize = 4;
const TOGETHER: usize = 5;

/// Root directories that come and go.
const ROOTS: usize = 20;

/// A root directory in which the helper can run: with a library of its own.
struct Image(PathBuf);

impl Image {
    fn new(folder: &Path) -> Self {
        image::root_directory(folder);
        // The library looks for its modules in a folder of /lib.
        for directory in ["lib", "lib64"] {
            let real = Path::new("usr").join(directory);
            fs::create_dir_all(folder.join(&real)).expect("a folder");
            symlink(real, folder.join(directory)).expect("a link");
        }
        let helper = folder.join("bin/helper");
        fs::copy(path(Form::Linked), &helper).expect("the helper");
        copy_libraries(&path(Form::Linked), folder);
        let modules = libpam().parent().expect("a folder").join("security");
        for module in ["pam_permit.so", "pam_deny.so"] {
            copy_libraries(&modules.join(module), folder);
            copy(&modules.join(module), folder);
        }
        fs::create_dir_all(folder.join("etc/stacks")).expect("a folder");
        stacks(&folder.join("etc/stacks"));
        fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\ninmate:x:1000:1000::/:/bin/sh\n")
            .expect("a passwd file");
        Self(folder.to_owned())
    }

    /// Another file with the same library: another container's, that shares nothing with the first.
    fn renew(&self) {
        let library = self.0.join(libpam().strip_prefix("/").expect("an absolute path"));
        let new = library.with_extension("new");
        fs::copy(&library, &new).expect("copying the library");
        fs::rename(&new, &library).expect("replacing the library");
    }
}

/// Copies what a program loads, to the same places.
fn copy_libraries(program: &Path, root: &Path) {
    let listed = runtime::run(Command::new(runtime::program("ldd", "libc-bin")).arg(program));
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    paths.for_each(|path| copy(Path::new(path), root));
}

fn copy(file: &Path, root: &Path) {
    let to = root.join(file.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    // The links that the linker knows a library by, and the file: under one name it is enough.
    let real = fs::canonicalize(file).expect("the library");
    let real_to = root.join(real.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(real_to.parent().expect("a folder")).expect("a folder");
    fs::copy(&real, &real_to).expect("copying a library");
    if to.symlink_metadata().is_err() {
        symlink(&real, &to).expect("a link");
    }
}

/// A container of runc, made and started as engines do it, and run to its end.
fn run(agent: &Agent, image: &Path, cgroups: &Cgroups, id: &str, environment: &[&str], args: &[&str]) {
    let bundle = agent.subfolder(id);
    let mut config = oci::config(image, &cgroups.path(id), args);
    config["process"]["env"] = json!(environment);
    fs::write(bundle.join("config.json"), config.to_string()).expect("the bundle's configuration");
    let runc = || oci::runc(&agent.folder().join("runc"));
    let pid_file = bundle.join("pid");
    runtime::run(runc().args(["create", "--bundle"]).arg(&bundle).arg("--pid-file").arg(&pid_file).arg(id));
    let pid = fs::read_to_string(pid_file).expect("the container's process id");
    runtime::run(runc().args(["start", id]));
    // Its parent is gone, so nobody is told of its end.
    let state = Path::new("/proc").join(pid.trim()).join("stat");
    tellwire_tests::until("the container's end", || {
        let stat = fs::read_to_string(&state).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    runtime::run(runc().args(["delete", "--force", id]));
}

/// The kernel changes the probes of all agents one after the other, some in the time that a container takes to start. Tests that
/// make libraries come and go hold it for reading, and the one that races with a start for writing.
static CHURN: RwLock<()> = RwLock::new(());

const LOGIN: [&str; 5] = ["/bin/helper", "/etc/stacks", "sshd", "inmate", "auth"];

/// Runs containers and gives their logins.
fn logins(agent: &Agent, containers: usize, mut next: impl FnMut(usize)) -> Vec<Value> {
    (0..containers).for_each(&mut next);
    let mut child = agent.exec(runtime::program("true", "coreutils"), &["true"]);
    agent.settle(&mut child);
    let logins = lines(agent);
    for login in &logins {
        let id = at(login, "container.id").and_then(Value::as_str).expect("a container");
        assert!(id.starts_with("login-"), "{login}");
        // Who succeeds is a user, even where the container's passwd file has not been read yet; the host does not say
        // what id that is.
        assert_eq!(at(login, "event.outcome"), Some(&json!("success")), "{login}");
        assert_eq!(at(login, "user"), Some(&json!({"name": "inmate"})), "{login}");
    }
    logins
}

#[test]
fn a_login_at_once_in_a_container_of_a_known_image_is_seen() {
    let _others = CHURN.read();
    let agent = Agent::start();
    let cgroups = Cgroups::of(agent.cgroup());
    let image = Image::new(&agent.subfolder("image"));
    // Another container of the image.
    let _inhabitant = Inhabitant::new(&agent, &image.0);
    agent.expect_metric("tellwire_libraries_attached", &[], 2);
    let seen = logins(&agent, KNOWN, |number| {
        run(&agent, &image.0, &cgroups, &format!("login-{number}"), &[], &LOGIN);
    });
    assert_eq!(seen.len(), KNOWN);
}

/// Other tests still start agents of theirs: what is asked is that all are seen when the machine lets it be.
#[test]
fn a_login_at_once_in_a_container_of_an_image_that_was_mounted_before_is_seen() {
    let _alone = CHURN.write();
    assert!((0..3).any(|_| logins_of_mounted_images() == mounted()));
}

fn logins_of_mounted_images() -> usize {
    let agent = Agent::with_config("[auth]\nwatch-mounts = true\n");
    let cgroups = Cgroups::of(agent.cgroup());
    let image = Image::new(&agent.subfolder("image"));
    // As engines do it: an overlay over the image's layers, then the container.
    let containers = mounted();
    let seen = logins(&agent, containers, |number| {
        image.renew();
        let id = format!("login-{number}");
        let overlay = Overlay::new(agent.folder(), &id, &image.0);
        run(&agent, &overlay.0, &cgroups, &id, &[], &LOGIN);
    });
    println!("{} of {containers} logins were seen", seen.len());
    agent.expect_metric("tellwire_library_roots", &[], 1);
    seen.len()
}

#[test]
fn a_login_a_moment_after_the_start_of_a_new_container_is_seen() {
    let _others = CHURN.read();
    let agent = Agent::start();
    let cgroups = Cgroups::of(agent.cgroup());
    let image = Image::new(&agent.subfolder("image"));
    let seen = logins(&agent, NEW, |number| {
        image.renew();
        run(&agent, &image.0, &cgroups, &format!("login-{number}"), &[LATER], &LOGIN);
    });
    assert_eq!(seen.len(), NEW);
}

#[test]
fn users_of_a_container_are_told_and_others_are_not() {
    let agent = Agent::start();
    let cgroups = Cgroups::of(agent.cgroup());
    let image = Image::new(&agent.subfolder("image"));
    let script = "for user in inmate nobody; do /bin/helper /etc/stacks refuses $user auth; done";
    run(&agent, &image.0, &cgroups, "names", &[LATER], &["/bin/sh", "-c", script]);
    let failed = json!({"user": {"name": "inmate"}, "event.outcome": "failure", "container.id": "names"});
    agent.expect(None, "pam_authenticate", &failed);
    // The host has such a user; the container has none.
    let withheld = json!({"user": null, "tellwire.auth.user_withheld": true, "container.id": "names"});
    agent.expect(None, "pam_authenticate", &withheld);
}

#[test]
fn nothing_of_a_container_that_is_gone_stays() {
    let _others = CHURN.read();
    let agent = Agent::start();
    let before = (agent.metric("tellwire_libraries_attached", &[]), descriptors_at_work(&agent));
    let folder = agent.subfolder("roots");
    for number in 0..ROOTS {
        let root_folder = folder.join(number.to_string());
        root(&root_folder);
        let inhabitant = Inhabitant::new(&agent, &root_folder);
        if number % 4 == 0 {
            let there = number as u64;
            tellwire_tests::until("the library is attached to", || {
                let count = agent.metric("tellwire_library_attachments_total", &[("outcome", "attached")]);
                (count > there / 4).then_some(())
            });
        }
        drop(inhabitant);
    }
    agent.expect_metric("tellwire_libraries_attached", &[], before.0);
    agent.expect_metric("tellwire_library_roots", &[], 1);
    let seen = agent.metric("tellwire_library_attachments_total", &[("outcome", "attached")]);
    println!("{seen} files of {ROOTS} roots were attached to");
    agent.expect_metric("tellwire_library_attachments_total", &[("outcome", "released")], seen - before.0);
    expect_descriptors(&agent, before.1);
}

/// How many files the agent has open.
fn descriptors(agent: &Agent) -> usize {
    open_files(agent).len()
}

/// How many it has once it tells of what happens: it says that it watches a moment before it has opened everything.
fn descriptors_at_work(agent: &Agent) -> usize {
    let mut child = agent.exec(runtime::program("true", "coreutils"), &["true"]);
    agent.settle(&mut child);
    descriptors(agent)
}

/// Waits until no more files are open than before. The kernel takes its time for each probe. Those that the test's own
/// questions open come and go.
fn expect_descriptors(agent: &Agent, before: usize) {
    let mut left = descriptors(agent);
    while left > before + 2 {
        let was = left;
        let fewer = || {
            left = descriptors(agent);
            (left < was).then_some(())
        };
        let closed = tellwire_tests::within_limit(fewer).is_some();
        assert!(closed, "{was} descriptors stay open, {before} were before: {:?}", open_files(agent));
    }
}

/// What the agent has open.
fn open_files(agent: &Agent) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("descriptors");
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

#[test]
fn a_thousand_containers_of_a_few_images_leave_nothing() {
    let _others = CHURN.read();
    let agent = Agent::start();
    let attached = || agent.metric("tellwire_libraries_attached", &[]);
    let before = (attached(), descriptors_at_work(&agent));
    let images: Vec<_> = (0..IMAGES).map(|number| agent.subfolder(&format!("image-{number}"))).collect();
    for image in &images {
        root(image);
    }
    for _ in 0..CONTAINERS / (IMAGES * TOGETHER) {
        let round = images.iter().flat_map(|image| (0..TOGETHER).map(|_| Inhabitant::new(&agent, image)));
        drop(round.collect::<Vec<_>>());
    }
    let outcome = |outcome| agent.metric("tellwire_library_attachments_total", &[("outcome", outcome)]);
    assert!(outcome("attached") > before.0);
    agent.expect_metric("tellwire_library_roots", &[], 1);
    agent.expect_metric("tellwire_libraries_attached", &[], before.0);
    assert_eq!(outcome("released"), outcome("attached") - before.0);
    expect_descriptors(&agent, before.1);
}
