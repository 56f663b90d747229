//! Secrets by the form of the text: known tokens, keys, headers, URLs, and values with a telling name.
//!
//! All patterns are linear in the text, and look at bytes: nothing here asks for UTF-8.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::{Found, Rule, shell::Word};

/// What a pattern needs in the text, in any case of its letters, and which patterns need it. Text without any of
/// these has no secret that is known by its form.
pub(super) const TRIGGERS: &[(u8, &str)] = &[
    (NAMED, "pass pwd pw pswd appkey secret token key auth cred psk bearer sig= signature code="),
    (URL, "://"),
    (HEADER, "authorization cookie"),
    (SCHEME, "bearer basic"),
    (SQL, "identified passw securestring"),
    (KEY, "-----begin"),
    (
        TOKEN,
        "akia asia abia acca ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- gldt- glrt- glcbt- glptt- glft- glsoat- \
         glagent- glimt- glsa_ glc_ xox xapp- k_live_ k_test_ whsec_ aiza ya29. gocspx- sk- npm_ pypi- sg. _v1_ hvs. \
         hvb. hvr. eyj hf_ dapi shpat_ shpca_ shppa_ shpss_ atatt3 dckr_pat_ tskey- age-secret $1$ $2 $5$ $6$ $7$ $y$ \
         $gy$ $apr1$ $argon2 /webhooks/ hooks.slack jdbc: /bot",
    ),
];

/// Names of what follows: the ways of looking that a text is worth.
pub(super) const NAMED: u8 = 1;
const URL: u8 = 1 << 1;
const HEADER: u8 = 1 << 2;
const SCHEME: u8 = 1 << 3;
const SQL: u8 = 1 << 4;
const KEY: u8 = 1 << 5;
const TOKEN: u8 = 1 << 6;

/// A URL is looked at no further than this: many in one text cost no more than a few then.
const LONGEST_URL: usize = 2048;

/// What stands before credentials in a header.
const SCHEMES: &[&[u8]] = &[b"bearer", b"basic", b"token", b"digest", b"negotiate"];

/// Values that say yes or no, and are no secrets.
const SWITCHES: &[&[u8]] = &[
    b"true",
    b"false",
    b"yes",
    b"no",
    b"none",
    b"null",
    b"on",
    b"off",
    b"nil",
    b"undefined",
    b"required",
    b"optional",
];

/// Compiles a pattern for bytes, in ASCII.
pub(super) fn bytes(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).size_limit(1 << 20).build()
}

/// Compiled once.
#[derive(Debug)]
pub(super) struct Patterns {
    private_key: Regex,
    scheme: Regex,
    header: Regex,
    bearer: Regex,
    /// The whole match is a token, or the group `secret` of it.
    token: Regex,
    sql: Regex,
    /// What an `expect` script answers.
    send: Regex,
    cut: Regex,
}

const TOKENS: &str = r"(?x)
    \b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bgl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt)-[A-Za-z0-9_.-]{16,} | \bgl(?:sa|c)_[A-Za-z0-9_=+/]{20,}
    | \bxox[abceoprs]-[A-Za-z0-9-]{8,} | \bxapp-[A-Za-z0-9-]{16,}
    | \b[srp]k_(?:live|test)_[A-Za-z0-9]{8,} | \bwhsec_[A-Za-z0-9+/=]{16,}
    | \bAIza[A-Za-z0-9_-]{30,} | \bya29\.[A-Za-z0-9_-]{16,} | \bGOCSPX-[A-Za-z0-9_-]{16,}
    | \bsk-(?:[a-z0-9]+-)*[A-Za-z0-9_]{20,}[A-Za-z0-9_-]*
    | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[A-Za-z0-9_-]{32,} | \bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}
    | \bdo[opr]_v1_[a-f0-9]{32,} | \bhv[sbr]\.[A-Za-z0-9_-]{20,} | \bhf_[A-Za-z0-9]{30,} | \bdapi[a-f0-9]{32}\b
    | \bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b | \bATATT3[A-Za-z0-9_=-]{20,} | \bdckr_pat_[A-Za-z0-9_-]{20,}
    | \btskey-[A-Za-z0-9-]{16,} | \bAGE-SECRET-KEY-1[A-Z0-9]{20,}
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*
    | \$(?:1|2[abxy]?|5|6|7|y|gy|apr1|argon2id?)\$[./A-Za-z0-9$,=+]{16,}
    | hooks\.slack\.com/(?:services|workflows|triggers)/(?P<slack>[A-Za-z0-9/_-]+)
    | discord(?:app)?\.com/api/webhooks/[0-9]+/(?P<discord>[A-Za-z0-9_-]+)
    | /bot(?P<telegram>[0-9]{6,}:[A-Za-z0-9_-]{30,})
    | jdbc:oracle:[a-z]+:[^/@\s]*/(?P<oracle>[^@\s]+)@";

/// The beginnings of what is known, at the end of an argument that was cut.
const CUT: &str = r"(?x)
    (?: ://[^/\s@:]*:(?P<url>[^/\s@]*) |
    \b(?P<token>(?:AKIA|ASIA|gh[pousr]_|github_pat_|gl[a-z]+-|xox[a-z]-|[srp]k_(?:live|test)_|AIza|ya29\.|npm_|hvs\.|eyJ)
    [A-Za-z0-9_.-]*) )$";

impl Patterns {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            private_key: bytes(
                r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<secret>(?s:.*?))(?:-----END [A-Z0-9 ]*PRIVATE KEY|\z)",
            )?,
            scheme: bytes(r"[A-Za-z][A-Za-z0-9+.-]*://")?,
            header: bytes(
                r#"(?i)(?:authorization\\?["']?\s*[:=]\s*(?:\\?["'])?(?:(?:bearer|basic|token|digest|negotiate|apikey|api-key|ntlm|aws4-hmac-sha256|splunk|key|oauth|ssws|genie\x6bey|bot)\s+)?|(?:^|^-H|[\r\n"'])(?:set-)?cookie:\s*)"#,
            )?,
            bearer: bytes(
                r"(?i)\b(?:bearer\s+(?P<bearer>[A-Za-z0-9._~+/=-]{16,})|basic\s+(?P<basic>[A-Za-z0-9+/]{8,}={0,2}))",
            )?,
            token: bytes(TOKENS)?,
            sql: bytes(
                r#"(?i)\b(?:identified\s+(?:with\s+\S+\s+)?(?:by|as)|password(?:\s+for\s+\S+)?|convertto-securestring(?:\s+-string)?)\s+(?:=\s*)?(?:password\s*\(\s*)?(?:by\s+)?(?:password\s+)?\\?(?:'(?P<single>[^'\\]*)|"(?P<double>[^"\\]*))"#,
            )?,
            send: bytes(r#"(?i)passw[^"]*"[^"]*?\bsend\s+(?:--\s+)?"(?P<secret>[^"\\]+)"#)?,
            cut: bytes(CUT)?,
        })
    }

    /// Looks in one word for what its triggers say that it can have.
    pub(super) fn scan(&self, word: &Word<'_>, triggers: u8, found: &mut Found) {
        let text = word.bytes.as_ref();
        let has = |class: u8| triggers & class != 0;
        if has(KEY) {
            for captures in self.private_key.captures_iter(text) {
                if let Some(secret) = captures.name("secret") {
                    found.push(word, secret.range(), Rule::PrivateKey);
                }
            }
        }
        if has(URL) {
            self.urls(word, found);
        }
        if has(HEADER) {
            self.headers(word, found);
        }
        if has(SCHEME) {
            self.schemes(word, found);
        }
        if has(TOKEN) {
            for captures in self.token.captures_iter(text) {
                let group = captures.iter().skip(1).flatten().next().or_else(|| captures.get(0));
                if let Some(token) = group {
                    found.push(word, token.range(), Rule::KnownToken);
                }
            }
        }
        if has(SQL) {
            for captures in self.sql.captures_iter(text).chain(self.send.captures_iter(text)) {
                if let Some(secret) = captures.iter().skip(1).flatten().next() {
                    found.push(word, secret.range(), Rule::FieldValue);
                }
            }
        }
    }

    /// Looks at the end of a word that was cut, where a secret has no end to be known by.
    pub(super) fn cut(&self, word: &Word<'_>, found: &mut Found) {
        if let Some(captures) = self.cut.captures(&word.bytes) {
            if let Some(secret) = captures.name("url") {
                found.push(word, secret.range(), Rule::UrlCredentials);
            } else if let Some(secret) = captures.name("token") {
                found.push(word, secret.range(), Rule::KnownToken);
            }
        }
    }

    fn urls(&self, word: &Word<'_>, found: &mut Found) {
        let text = word.bytes.as_ref();
        for scheme in self.scheme.find_iter(text) {
            let start = scheme.end();
            let rest = text.get(start..).unwrap_or_default();
            let rest = rest.get(..LONGEST_URL).unwrap_or(rest);
            let run =
                end_of(rest, |byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>'));
            let run = rest.get(..run).unwrap_or_default();
            if let Some(range) = userinfo_secret(run, scheme.as_bytes()) {
                let secret = run.get(range.clone()).unwrap_or_default();
                if !is_variable(secret) || word.is_literal {
                    found.push(word, start + range.start..start + range.end, Rule::UrlCredentials);
                }
            }
        }
    }

    fn headers(&self, word: &Word<'_>, found: &mut Found) {
        let text = word.bytes.as_ref();
        for header in self.header.find_iter(text) {
            let quote = text
                .get(..header.start())
                .and_then(<[u8]>::last)
                .or_else(|| header.as_bytes().first())
                .copied()
                .filter(|byte| matches!(byte, b'"' | b'\''));
            // A quote within the match, as in `Authorization="..."`, ends the value too.
            let quote = match header.as_bytes().last() {
                Some(last @ (b'"' | b'\'')) => Some(*last),
                _ => quote,
            };
            let rest = text.get(header.end()..).unwrap_or_default();
            let end = end_of(rest, |byte| matches!(byte, b'\r' | b'\n') || Some(byte) == quote);
            let value = rest.get(..end).unwrap_or_default();
            let value = value.strip_suffix(b"\\").unwrap_or(value);
            // A scheme alone: its credentials are in the next word.
            let is_scheme = SCHEMES.iter().any(|scheme| value.eq_ignore_ascii_case(scheme));
            if !is_variable(value) && !is_scheme {
                let range = header.end()..header.end() + value.len();
                found.push(word, range, Rule::AuthorizationHeader);
            }
        }
    }

    /// `Bearer X` and `Basic X` outside of a header.
    fn schemes(&self, word: &Word<'_>, found: &mut Found) {
        for captures in self.bearer.captures_iter(&word.bytes) {
            let Some(secret) = captures.iter().skip(1).flatten().next() else { continue };
            // "basic authentication" and the like are words.
            if secret.as_bytes().iter().any(|byte| byte.is_ascii_digit() || *byte == b'=') {
                found.push(word, secret.range(), Rule::AuthorizationHeader);
            }
        }
    }
}

/// Where the first byte is that ends a value, or the end.
pub(super) fn end_of(text: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| ends(*byte)).unwrap_or(text.len())
}

/// The secret in what follows `scheme://`: the password, or a user that is a token.
fn userinfo_secret(run: &[u8], scheme: &[u8]) -> Option<Range<usize>> {
    let authority = end_of(run, |byte| matches!(byte, b'/' | b'?' | b'#'));
    let host = run.get(..authority)?;
    let at = if let Some(at) = host.iter().rposition(|byte| *byte == b'@') {
        at
    } else {
        // A password with a slash in it: what stands behind the colon is no port, and there is an `@` later.
        let colon = host.iter().position(|byte| *byte == b':')?;
        let port = host.get(colon + 1..)?;
        let is_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
        let is_address = host.starts_with(b"[");
        if is_port || is_address || authority == run.len() {
            return None;
        }
        run.iter().rposition(|byte| *byte == b'@')?
    };
    // An image by its digest.
    if run.get(at + 1..)?.starts_with(b"sha256:") || run.get(at + 1..)?.starts_with(b"sha512:") {
        return None;
    }
    let info = run.get(..at)?;
    if let Some(colon) = info.iter().position(|byte| *byte == b':') {
        let secret = colon + 1..at;
        // `https://TOKEN:x-oauth-basic@host`: the password is a word, the user is the secret.
        if matches!(info.get(secret.clone()), Some(b"x-oauth-basic" | b"")) {
            return Some(0..colon);
        }
        return Some(secret);
    }
    let is_web = scheme.eq_ignore_ascii_case(b"https://") || scheme.eq_ignore_ascii_case(b"http://");
    let is_token = info.len() >= 16
        && info.iter().any(u8::is_ascii_digit)
        && info.iter().any(u8::is_ascii_alphabetic)
        && !info.contains(&b'.');
    (is_web && is_token).then_some(0..at)
}

/// `$NAME`, `${NAME}`, `$(command)`, `{{ template }}`, `%s`: not the secret, but where it comes from.
pub(super) fn is_variable(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let is_name =
        |text: &[u8]| !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    match value {
        [b'$', b'{', .., b'}']
        | [b'$', b'(', ..]
        | [b'`', ..]
        | [b'{', b'{', ..]
        | [b'%', b's' | b'd' | b'q' | b'v']
        | [b'%', b's' | b'd' | b'q' | b'v', b'\\' | b'\n', ..] => true,
        [b'$', name @ ..] => is_name(name) || matches!(name, b"@" | b"*" | b"?" | b"#"),
        _ => false,
    }
}

/// One digit counts or switches something.
pub(super) fn is_switch(value: &[u8]) -> bool {
    matches!(value, [digit] if digit.is_ascii_digit())
        || SWITCHES.iter().any(|switch| value.eq_ignore_ascii_case(switch))
}
