//! The section `http`, and its flags.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::Listen;

/// Metrics and health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Http {
    /// Where /metrics, /healthz and /readyz are served. On an address that others reach, protect them by the keys below, or
    /// let the network decide who comes.
    pub(crate) listen: Listen,
    /// A certificate with its chain, in PEM: with it and its key everything is served by TLS, and nothing without. Both
    /// files are looked at for each new connection, so that a renewed certificate is taken up; a pair that is not one
    /// changes nothing, and the log says so. Empty for none.
    pub(crate) tls_certificate: PathBuf,
    /// The certificate's private key, in PEM.
    pub(crate) tls_key: PathBuf,
    /// A file with a token: /metrics is for those who show it ("Authorization: Bearer TOKEN"), as the file says at that
    /// time. /healthz and /readyz are for everybody, since a kubelet has no token. Empty for none.
    pub(crate) token_file: PathBuf,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: Listen::On(([127, 0, 0, 1], 9477).into()),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            token_file: PathBuf::new(),
        }
    }
}

/// Flags of who may have the metrics.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HttpArgs {
    /// Serve metrics and health by TLS, with this certificate and its chain in PEM
    #[arg(long, value_name = "FILE", env = "TELLWIRE_TLS_CERTIFICATE")]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "TELLWIRE_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Metrics only for those who show the token in this file
    #[arg(long, value_name = "FILE", env = "TELLWIRE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}
