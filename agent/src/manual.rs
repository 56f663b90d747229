//! Manual pages and completions of the command line, for packages. Not in the binary that is shipped.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// The shells whose users expect completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Writes `tellwire.1` and one page for each command into `man/`, and completions into `completions/`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    let mut command = Cli::command();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "tellwire", &completions)?;
    }
    clap_mangen::generate_to(command, &pages)
}
