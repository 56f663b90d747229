//! Metrics and health over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! Whoever reaches the address may ask, so one who asks much or slowly must not cost the agent
//! much: few connections, short requests, deadlines, and one encoding of the metrics at a time.

mod classic;
mod limits;
mod readiness;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::config::Http;
use classic::classic;
use limits::Limited;
pub(crate) use readiness::Readiness;
use tls::{Identity, Secured};
use token::{Shown, Token};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long the answers that are under way may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Where metrics come from.
pub(crate) trait MetricsSource: Send + Sync {
    /// The metrics in the `OpenMetrics` text format. May block: it is called on a thread for that.
    fn encode(&self) -> Result<String, fmt::Error>;
}

/// An address that is taken, and who may ask there.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    token: Option<Token>,
}

/// Takes the address, so that another one who has it is noticed before anything is attached, and reads the files that
/// protect it: what is wrong with them is an error that names the file and what to do.
pub(crate) async fn bind(address: SocketAddr, http: &Http) -> io::Result<Bound> {
    let Http { listen: _, tls_certificate, tls_key, token_file } = http;
    let is_named = |path: &Path| !path.as_os_str().is_empty();
    let identity = is_named(tls_certificate).then(|| Identity::load(tls_certificate, tls_key)).transpose()?;
    let token = is_named(token_file).then(|| Token::load(token_file)).transpose()?;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let what = format!("listening on {address}: {error}: choose another address with --listen");
        io::Error::new(error.kind(), what)
    })?;
    Ok(Bound { listener, identity: identity.map(Arc::new), token })
}

/// Answers until `cancel`.
pub(crate) async fn serve(
    bound: Bound,
    metrics: Arc<dyn MetricsSource>,
    readiness: Arc<Readiness>,
    cancel: CancellationToken,
) {
    let Bound { listener, identity, token } = bound;
    let turn = Arc::new(Semaphore::new(1));
    let router = Router::new()
        .route("/metrics", get(get_metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(get_readiness))
        .fallback(async || (StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"))
        .with_state(Shared { metrics, readiness, token, turn });
    let listener = Secured::new(Limited::new(listener), identity);
    let server = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    let time_is_up = async {
        cancel.cancelled().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        result = server.into_future() => if let Err(error) = result {
            error!(%error, "http server ended");
        },
        () = time_is_up => {}
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<dyn MetricsSource>,
    readiness: Arc<Readiness>,
    /// What a scrape has to show.
    token: Option<Token>,
    /// Whose turn it is to have metrics encoded.
    turn: Arc<Semaphore>,
}

async fn get_metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let Shared { metrics, turn, token, readiness: _ } = shared;
    if let Some(token) = token {
        match token.shown(&headers).await {
            Shown::Right => {}
            Shown::Wrong => {
                let challenge = [(WWW_AUTHENTICATE, "Bearer realm=\"tellwire\"")];
                return (StatusCode::UNAUTHORIZED, challenge, "show the token\n").into_response();
            }
            Shown::Unreadable => {
                return (StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be read\n").into_response();
            }
        }
    }
    let is_open = wants_open_metrics(&headers);
    let turn = turn.acquire_owned().await;
    let encoded = spawn_blocking(move || {
        // Held until it is done, even if the one who asked has gone.
        let _turn = turn;
        metrics.encode().map(|text| if is_open { text } else { classic(&text) })
    });
    let Ok(Ok(text)) = encoded.await else {
        error!("metrics cannot be encoded");
        return (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded\n").into_response();
    };
    let content_type = if is_open { OPEN_METRICS } else { CLASSIC };
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

fn wants_open_metrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"))
}

async fn get_readiness(State(shared): State<Shared>) -> Response {
    let report = shared.readiness.report();
    let status = if report.is_failed() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    // A struct of words cannot fail to become JSON.
    let body = serde_json::to_string(&report).unwrap_or_default() + "\n";
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
