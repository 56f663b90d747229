//! Secrets that go into a program by a pipe or a here-document: `echo X | sudo -S`, `chpasswd <<< user:X`.

use super::{
    Found, Rule, base,
    command::is_cluster_with,
    shell::{Command, Word},
    text::is_variable,
};

/// Of whatever reads a password from its standard input, in lower case; what has `pass` in it is known anyway.
pub(super) const READERS: &[&[u8]] =
    &[b"sudo", b"stdin", b"kinit", b"crypt", b"ssh-add", b"newusers", b"su ", b"tpm2", b"fd"];

/// `echo X | sudo -S`, `chpasswd <<< user:X`.
pub(super) fn scan(commands: &[Command<'_>], found: &mut Found) {
    for (index, command) in commands.iter().enumerate() {
        if reads_password(command) {
            for input in &command.input {
                piped(command, input, found);
            }
        }
        let next = commands.get(index + 1).filter(|_| command.is_piped);
        let Some(next) = next.filter(|next| reads_password(next)) else { continue };
        for input in &command.input {
            piped(next, input, found);
        }
        let name = command.words.first().map(|word| base(&word.bytes));
        if !matches!(name, Some(b"echo" | b"printf" | b"yes")) {
            continue;
        }
        for word in command.words.iter().skip(1) {
            let is_option = matches!(word.bytes.as_ref(), b"-n" | b"-e" | b"-ne" | b"-en" | b"-E");
            let is_format = name == Some(b"printf") && word.bytes.starts_with(b"%");
            if !is_option && !is_format {
                piped(next, word, found);
            }
        }
    }
}

fn piped(reader: &Command<'_>, input: &Word<'_>, found: &mut Found) {
    let is_pairs = reader.words.iter().any(|word| matches!(base(&word.bytes), b"chpasswd" | b"newusers"));
    let mut at = 0;
    for line in input.bytes.split(|byte| *byte == b'\n') {
        let from = if is_pairs {
            line.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1)
        } else {
            0
        };
        let secret = line.get(from..).unwrap_or_default();
        if !is_variable(secret) || input.is_literal {
            found.push(input, at + from..at + line.len(), Rule::PipedValue);
        }
        at += line.len() + 1;
    }
}

/// Whether a command takes a password from its standard input.
fn reads_password(command: &Command<'_>) -> bool {
    const PROGRAMS: &[&[u8]] = &[
        b"chpasswd",
        b"passwd",
        b"smbpasswd",
        b"kinit",
        b"cryptsetup",
        b"ssh-add",
        b"mkpasswd",
        b"saslpasswd2",
        b"newusers",
        b"chgpasswd",
        b"kpasswd",
        b"ecryptfs-unwrap-passphrase",
        b"tpm2_unseal",
        b"su",
    ];
    const FLAGS: &[&[u8]] = &[
        b"--password-stdin",
        b"--stdin",
        b"--with-token",
        b"--passwd-on-stdin",
        b"--passphrase-fd",
        b"--token-stdin",
        b"-stdin",
        b"--password-from-stdin",
        b"--passphrase-stdin",
        b"--password-fd",
        b"--key-file=-",
        b"fd:0",
        b"stdin",
    ];
    let is_sudo = command.words.first().is_some_and(|word| base(&word.bytes) == b"sudo");
    let has_s = |word: &Word<'_>| word.bytes.as_ref() == b"--stdin" || is_cluster_with(&word.bytes, b'S');
    command.words.iter().any(|word| {
        PROGRAMS.contains(&base(&word.bytes))
            || FLAGS.contains(&word.bytes.as_ref())
            || (is_sudo && has_s(word))
    })
}
