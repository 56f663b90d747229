//! The token that a scrape has to show.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

/// A token's file, which is read at each request: whoever changes it changes what is accepted.
#[derive(Clone, Debug)]
pub(super) struct Token(Arc<Path>);

/// Whether a request has the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Right,
    Wrong,
    /// The file cannot be read: nobody can be right.
    Unreadable,
}

impl Token {
    /// An error names the file and what to do.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            let what = format!("http.token-file {}: {error}: name a file with a token in it", path.display());
            io::Error::other(what)
        };
        match read(path) {
            Ok(token) if token.is_empty() => Err(wrong(&"it is empty")),
            Ok(_) => Ok(Self(path.into())),
            Err(error) => Err(wrong(&error)),
        }
    }

    pub(super) async fn shown(&self, headers: &HeaderMap) -> Shown {
        let asked = headers.get(AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?));
        let asked = asked.map(Sha256::digest);
        let path: PathBuf = self.0.to_path_buf();
        match spawn_blocking(move || read(&path)).await {
            Ok(Ok(token)) if !token.is_empty() => match asked {
                Some(asked) if is_same(&asked, &Sha256::digest(token)) => Shown::Right,
                _ => Shown::Wrong,
            },
            _ => {
                tracing::error!("the token cannot be read: {}", self.0.display());
                Shown::Unreadable
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

/// The scheme's name has no case (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes as long whatever is different.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::{HeaderMap, header::AUTHORIZATION};

    use super::{Shown, Token};

    #[tokio::test]
    async fn a_token_is_what_its_file_says_now() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "first\n").unwrap();
        let token = Token::load(&file).unwrap();
        let shown = async |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            token.shown(&headers).await
        };
        for value in ["Bearer first", "bearer  first"] {
            assert_eq!(shown(Some(value)).await, Shown::Right, "{value}");
        }
        for value in [None, Some("first"), Some("Bearer"), Some("Bearer firs"), Some("Basic first")] {
            assert_eq!(shown(value).await, Shown::Wrong, "{value:?}");
        }
        fs::write(&file, "second").unwrap();
        assert_eq!(shown(Some("Bearer first")).await, Shown::Wrong);
        assert_eq!(shown(Some("Bearer second")).await, Shown::Right);
        fs::write(&file, "").unwrap();
        assert_eq!(shown(Some("Bearer ")).await, Shown::Unreadable);
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for wrong in ["No such file", "it is empty"] {
            let error = Token::load(&file).unwrap_err().to_string();
            assert!(error.starts_with(&format!("http.token-file {}: {wrong}", file.display())), "{error}");
            assert!(error.ends_with("name a file with a token in it"), "{error}");
            fs::write(&file, "\n").unwrap();
        }
    }
}
