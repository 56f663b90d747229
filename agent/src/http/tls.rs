//! TLS over connections, with a certificate that may be renewed while the agent runs.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use axum::serve::Listener;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::spawn_blocking,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

/// A certificate and its key, as they were last.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The files that were tried last, whether they were of use or not.
    tried: [Stamp; 2],
}

/// What tells a file from the one that it was: its inode and size, and the times of its content and of its inode in ns.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Identity {
    /// An error names the file and what to do.
    pub(super) fn load(certificate: &Path, key: &Path) -> io::Result<Self> {
        let tried = [stamp(certificate), stamp(key)];
        let config = load(certificate, key)?;
        let current = Mutex::new(Current { config, tried });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// What the next connection is served with. It looks at the files, which may block.
    fn current(&self) -> Arc<ServerConfig> {
        let now = [stamp(&self.certificate), stamp(&self.key)];
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now != current.tried {
            current.tried = now;
            // Between the two files of a renewal they are no pair: the one before is good for that moment.
            match load(&self.certificate, &self.key) {
                Ok(config) => {
                    current.config = config;
                    tracing::info!("certificate taken up: {}", self.certificate.display());
                }
                Err(error) => tracing::warn!(%error, "certificate not taken up, the one before stays"),
            }
        }
        Arc::clone(&current.config)
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Some((
        file.ino(),
        file.size(),
        nanos(file.mtime(), file.mtime_nsec()),
        nanos(file.ctime(), file.ctime_nsec()),
    ))
}

fn load(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let wrong = |name: &str, path: &Path, error: &dyn std::fmt::Display, instead: &str| {
        io::Error::other(format!("http.{name} {}: {error}: {instead}", path.display()))
    };
    let of_certificate = |error: &dyn std::fmt::Display| {
        wrong("tls-certificate", certificate, error, "name a file with a certificate in PEM")
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_certificate(&error))?;
    if chain.is_empty() {
        return Err(of_certificate(&"no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| wrong("tls-key", key, &error, "name a file with a private key in PEM"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| {
            wrong("tls-key", key, &error, "name the key of the certificate in http.tls-certificate")
        })?;
    Ok(Arc::new(config))
}

/// A listener's connections, by TLS where there is an identity.
pub(super) struct Secured<L> {
    inner: L,
    identity: Option<Arc<Identity>>,
}

impl<L> Secured<L> {
    pub(super) fn new(inner: L, identity: Option<Arc<Identity>>) -> Self {
        Self { inner, identity }
    }
}

impl<L: Listener<Addr = SocketAddr>> Listener for Secured<L> {
    type Io = Connection<L::Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.inner.accept().await;
            let Some(identity) = self.identity.clone() else { return (Connection::Plain(stream), peer) };
            // It fails only while the runtime ends.
            if let Ok(config) = spawn_blocking(move || identity.current()).await {
                // The handshake is the connection's own business: nobody waits here for a peer.
                let handshake = TlsAcceptor::from(config).accept(stream);
                return (Connection::Handshake(Box::new(handshake)), peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

pub(super) enum Connection<S> {
    Plain(S),
    Handshake(Box<Accept<S>>),
    Tls(Box<TlsStream<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Ready once bytes of HTTP can be read and written.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Handshake(handshake) = self {
            let stream = ready!(Pin::new(handshake.as_mut()).poll(context))?;
            *self = Self::Tls(Box::new(stream));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Handshake(_) => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Self::Handshake(_) => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            Self::Handshake(_) => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Handshake(_) => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            // Nothing of HTTP has been written yet.
            Self::Handshake(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // Dropping it closes the connection.
            Self::Handshake(_) => Poll::Ready(Ok(())),
        }
    }
}
