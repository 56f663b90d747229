//! `cargo xtask lint`: formatting, clippy on the host and for BPF, and the house rules of `tidy`.

use anyhow::{Result, ensure};
use xshell::cmd;

use crate::{
    complain,
    packages::{self, Need},
    say, setup, tidy,
};

pub(crate) fn run() -> Result<()> {
    let sh = setup::ready()?;
    packages::ensure(&sh, Need::Lint)?;
    let mut failed = Vec::new();
    // Every check runs, so that one run names everything.
    let mut check = |name: &'static str, outcome: Result<()>| {
        if let Err(error) = outcome {
            complain(format_args!("{error:#}"));
            failed.push(name);
        }
    };

    say("== formatting");
    check("formatting", cmd!(sh, "cargo fmt --all --check").quiet().run().map_err(Into::into));
    say("== house rules");
    check("house rules", tidy::check(&setup::root()?));
    say("== clippy, host");
    let host = cmd!(sh, "cargo clippy --workspace --all-targets -- -D warnings");
    check("clippy on the host", host.quiet().run().map_err(Into::into));
    say("== clippy, BPF");
    // A target folder of its own: RUSTC_BOOTSTRAP would make cargo rebuild everything each time.
    let bpf = cmd!(sh, "cargo clippy --package tellwire-ebpf --bin probes --target bpfel-unknown-none")
        .args(["-Zbuild-std=core", "--target-dir", "target/ebpf-clippy", "--", "-Dwarnings"])
        .env("RUSTC_BOOTSTRAP", "1");
    check("clippy for BPF", bpf.quiet().run().map_err(Into::into));

    ensure!(failed.is_empty(), "lint: {}", failed.join(", "));
    say("lint: fine");
    Ok(())
}
