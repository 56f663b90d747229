//! Whether a name says that its value is a secret: `--password`, `DB_PASSWORD`, `apiKey`, but not `--password-file`.

use rustc_hash::FxHashSet;

/// How sure a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    Sure,
    /// Where the value is a path, the secret is in the file.
    UnlessPath,
}

/// A word that ends so makes a name a secret's.
const SURE: &str = "password passwd passphrase passcode passwort secret token apikey authkey accesskey secretkey \
    accountkey masterauth psk bearer passw pswd appkey";

/// Names whose words do not say it.
const WHOLE: &str = "x-jfrog-art-api pgpass sshpass sse-c-key";

const UNLESS_PATH: &str = "pwd credential credentials privatekey";

/// A key is a secret if the word before it says of what.
const KEYS: &str =
    "api access secret account storage auth master shared license sas subscription app rest write admin";

/// These keys are files as a rule.
const KEYS_OR_FILES: &str = "private signing encryption deploy client session";

/// `pass` is a password's name at the end, but not in these words and not behind these.
const OTHER_PASSES: &str = "bypass compass encompass surpass lowpass highpass keepass askpass";
const BEFORE_OTHER_PASSES: &str = "first second two single one multi by full double must low high";

/// A name that begins so asks, forbids or counts.
const HARMLESS_FIRST: &str = "no without disable skip ask prompt require requires allow enable show hide generate gen random is \
    has list max min next starting page continuation num expire rotate delete remove check validate \
    verify with print ignore automount hash cert stop pad eos bos permit";

/// What a name is of, if it ends so: not the secret, but something about it.
const HARMLESS_LAST: &str = "file files path paths dir directory folder ttl stdin fd prompt policy policies length len size env \
    var name names type types url uri endpoint host port id ids expiry expires expiration exp timeout \
    duration lifetime age algorithm algo alg version versions format source src command cmd helper \
    manager provider providers location count limit limits min max rotation audience audiences issuer \
    list mode method methods auth authentication required enabled disabled allowed only support less \
    hint reviewer review budget bucket rate header field strength complexity history encryption encoder \
    cache plugin engine mount arn ref refs template scope scopes permission permissions usage user \
    username login sock socket agent ring server service controller class change changed update reset \
    strategy fingerprint sha256 digest cert certs ca webhook config cfg regex pattern second seconds \
    minutes hours days interval window index offset projection operator driver namespace schema table \
    column filter selector parser validator generator store backend slot label labels annotations kind \
    domain group role tests test api lookup entry expected status state rules hash encoding char chars \
    separator delimiter through thru action enc out in per requests sync";

/// In the query of a URL these are secrets too.
const IN_QUERY: &str = "sig signature key auth pass pwd x-amz-signature code";

/// Words separated by blanks.
#[derive(Debug)]
struct Words(FxHashSet<&'static [u8]>);

impl Words {
    fn new(words: &'static str) -> Self {
        Self(words.split_ascii_whitespace().map(str::as_bytes).collect())
    }

    fn has(&self, word: &[u8]) -> bool {
        self.0.contains(word)
    }
}

/// Whether a word ends as one of the list does.
fn ends(word: &[u8], list: &str) -> bool {
    list.split_ascii_whitespace().any(|end| word.ends_with(end.as_bytes()))
}

/// The rules for names, and what the configuration adds to them and takes away.
#[derive(Debug)]
pub(super) struct Names {
    harmless_first: Words,
    harmless_last: Words,
    keys: Words,
    keys_or_files: Words,
    in_query: Words,
    flags: Vec<Vec<u8>>,
    short: Vec<Vec<u8>>,
    allow: Vec<Vec<u8>>,
}

impl Names {
    pub(super) fn new(flags: &[String], allow: &[String]) -> Self {
        let is_short = |flag: &&String| flag.trim_start_matches('-').len() == 1;
        let names = |names: &[String]| names.iter().map(|name| normal(name.as_bytes())).collect();
        let short = flags.iter().filter(is_short).map(|flag| flag.trim_start_matches('-').into()).collect();
        let long: Vec<String> = flags.iter().filter(|flag| !is_short(flag)).cloned().collect();
        Self {
            harmless_first: Words::new(HARMLESS_FIRST),
            harmless_last: Words::new(HARMLESS_LAST),
            keys: Words::new(KEYS),
            keys_or_files: Words::new(KEYS_OR_FILES),
            in_query: Words::new(IN_QUERY),
            flags: names(&long),
            short,
            allow: names(allow),
        }
    }

    /// What a text with one of the configured names in it must have, whatever separates its words.
    pub(super) fn triggers(&self) -> impl Iterator<Item = &[u8]> {
        let longest = |name: &'_ Vec<u8>| -> Range { longest_word(name) };
        self.flags.iter().filter_map(move |name| name.get(longest(name)))
    }

    pub(super) fn has_short(&self) -> bool {
        !self.short.is_empty()
    }

    /// Flags of one letter whose values are secrets by configuration.
    pub(super) fn short(&self) -> &[Vec<u8>] {
        &self.short
    }

    /// Whether the value of `name` is a secret. Dashes before it do not matter.
    pub(super) fn judge(&self, name: &[u8]) -> Option<Secret> {
        let name = normal(name);
        if self.allow.contains(&name) {
            return None;
        }
        if self.flags.contains(&name) {
            return Some(Secret::Sure);
        }
        self.by_words(&name)
    }

    /// The same for a name in the query of a URL.
    pub(super) fn judge_in_query(&self, name: &[u8]) -> Option<Secret> {
        let normal = normal(name);
        if self.in_query.has(&normal) && !self.allow.contains(&normal) {
            Some(Secret::Sure)
        } else {
            self.judge(name)
        }
    }

    fn by_words(&self, name: &[u8]) -> Option<Secret> {
        let mut words: Vec<&[u8]> = name.split(|byte| *byte == b'-').map(without_number).collect();
        // `PASSWORD_2`
        words.retain(|word| !word.is_empty());
        let (first, last) = (*words.first()?, *words.last()?);
        if WHOLE.split(' ').any(|whole| whole.as_bytes() == name) {
            return Some(Secret::Sure);
        }
        if self.harmless_last.has(last) || (words.len() > 1 && self.harmless_first.has(first)) {
            return None;
        }
        // `existingSecret` of Helm charts names one.
        if words.contains(&b"existing".as_slice()) {
            return None;
        }
        let is_key_of = |list: &Words| {
            words.windows(2).any(|pair| matches!(pair, [of, key] if *key == b"key" && list.has(of)))
        };
        if words.iter().any(|word| ends(word, SURE)) || is_key_of(&self.keys) || is_pass(&words) {
            Some(Secret::Sure)
        } else if words.iter().any(|word| *word == b"pw" || ends(word, UNLESS_PATH))
            || is_key_of(&self.keys_or_files)
        {
            Some(Secret::UnlessPath)
        } else {
            None
        }
    }
}

type Range = std::ops::Range<usize>;

fn longest_word(name: &[u8]) -> Range {
    let mut best = 0..0;
    let mut at = 0;
    for word in name.split(|byte| *byte == b'-') {
        if word.len() > best.len() {
            best = at..at + word.len();
        }
        at += word.len() + 1;
    }
    best
}

/// Words in lower case with dashes between them: `DB_Password`, `dbPassword` and `--db-password` are one name.
fn normal(name: &[u8]) -> Vec<u8> {
    let mut words = Vec::with_capacity(name.len() + 4);
    let mut last = b'-';
    for &byte in name {
        if byte.is_ascii_alphanumeric() {
            if byte.is_ascii_uppercase() && last.is_ascii_lowercase() {
                words.push(b'-');
            }
            words.push(byte.to_ascii_lowercase());
        } else if words.last().is_some_and(|last| *last != b'-') {
            words.push(b'-');
        }
        last = byte;
    }
    if words.last() == Some(&b'-') {
        words.pop();
    }
    words
}

fn is_pass(words: &[&[u8]]) -> bool {
    let Some((last, before)) = words.split_last() else { return false };
    last.ends_with(b"pass")
        && !ends(last, OTHER_PASSES)
        && !before.last().is_some_and(|word| {
            BEFORE_OTHER_PASSES.split_ascii_whitespace().any(|other| other.as_bytes() == *word)
        })
}

fn without_number(word: &[u8]) -> &[u8] {
    let end = word.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    // `sha256` is a word.
    if word.starts_with(b"sha") { word } else { word.get(..end).unwrap_or(word) }
}

/// Whether a value is the path of a file rather than a secret.
pub(super) fn is_path(value: &[u8]) -> bool {
    const STARTS: &[&[u8]] = &[b"/", b"./", b"../", b"~", b"file:", b"@", b"$"];
    const ENDS: &[&[u8]] = &[
        b".pem", b".key", b".crt", b".json", b".txt", b".p12", b".pub", b".pfx", b".yaml", b".yml", b".conf",
    ];
    STARTS.iter().any(|start| value.starts_with(start)) || ENDS.iter().any(|end| value.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_about_secrets() {
        let names = Names::new(&[], &[]);
        for name in [
            "--password",
            "-passwd",
            "DB_PASSWORD",
            "dbPassword",
            "PGPASSWORD",
            "SSHPASS",
            "--api-key",
            "X-Api-Key",
            "apikey",
            "AWS_SECRET_ACCESS_KEY",
            "--token",
            "GITHUB_TOKEN",
            "_authToken",
            "keyStorePassword",
            "--storepass",
            "SECRET_KEY_BASE",
            "--password1",
            "--psk",
            "client_secret",
            "--admin_password",
            "--oauth2-bearer",
            "requirepass",
        ] {
            assert_eq!(names.judge(name.as_bytes()), Some(Secret::Sure), "{name}");
        }
        for name in ["MYSQL_PWD", "--private-key", "--credentials"] {
            assert_eq!(names.judge(name.as_bytes()), Some(Secret::UnlessPath), "{name}");
        }
        for name in [
            "--password-file",
            "--passwordless",
            "--no-password",
            "--token-ttl",
            "--password-stdin",
            "SSH_AUTH_SOCK",
            "--key",
            "--bypass",
            "--two-pass",
            "--max-tokens",
            "--keyring",
            "--secret-name",
            "tokens",
            "--secret-id",
            "--starting-token",
            "--discovery-token-ca-cert-hash",
            "author",
            "monkey",
            "--passes",
            "--pass-through",
            "",
        ] {
            assert_eq!(names.judge(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_configuration_adds_names_and_takes_names_away() {
        let names = Names::new(&["--pin-code".into(), "-Q".into()], &["--session-token".into()]);
        assert_eq!(names.judge(b"PIN_CODE"), Some(Secret::Sure));
        assert_eq!(names.judge(b"SESSION_TOKEN"), None);
        assert_eq!(names.short(), [b"Q"]);
        assert_eq!(names.triggers().collect::<Vec<_>>(), [b"code"]);
    }
}
