//! `cargo xtask btf`: the types of the matrix's kernels, cut to what the agent looks up and committed.
//!
//! A unit test of the agent resolves every offset in each, so that a field that a kernel has under another name is found
//! without booting it. The kernels are booted here, once for each release that is new.

mod cut;

use std::{
    fs,
    io::{Read as _, Write as _},
};

use anyhow::{Context as _, Result};
use clap::Args;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use xshell::Shell;

use crate::{say, setup, vm};

/// Where they stand, from the root of the workspace.
const FOLDER: &str = "agent/src/kernel/testdata/btf";

#[derive(Args)]
pub(crate) struct Options {
    /// Releases of Debian's cloud kernels, with commas between; `all` for the matrix.
    #[arg(long, default_value = "all")]
    kernel: String,
    /// The machine type: `x86_64`, `aarch64`, or `all`.
    #[arg(long, default_value = "all")]
    arch: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sh = setup::ready()?;
    write(&sh, options)
}

fn write(sh: &Shell, options: &Options) -> Result<()> {
    let folder = setup::root()?.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (release, arch, text) in vm::types(sh, &options.kernel, &options.arch)? {
        let packed = base64(&text).with_context(|| format!("the types of {release}"))?;
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).context("unpacking the types")?;
        let part = cut::cut(&bytes).with_context(|| format!("cutting the types of {release}"))?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&part)?;
        let packed = packed.finish()?;
        let path = folder.join(format!("{release}-{}.btf.gz", arch.machine()));
        fs::write(&path, &packed).with_context(|| format!("writing {}", path.display()))?;
        say(format_args!("{}: {} bytes of {}", path.display(), packed.len(), bytes.len()));
    }
    Ok(())
}

/// RFC 4648, 4; lines are joined already.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for character in text.bytes().take_while(|character| *character != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn texts_of_the_rfc_are_decoded() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(base64("Zm9v!"), None);
    }
}
