//! Connections that come in, encrypted or not.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::super::net::Listen;
use super::{HANDSHAKE_WITHIN, Tls, chain};

/// Handshakes at once: who connects and says nothing holds one of these until its time is over.
const HANDSHAKES: usize = 256;
/// Connections that wait for the server.
const BACKLOG: usize = 64;

/// Who is at the other end; an extension of each request.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where it calls from.
    pub address: Option<SocketAddr>,
    certificate: Option<Arc<CertificateDer<'static>>>,
}

impl Peer {
    /// Whether it showed a certificate, which was checked then.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.certificate.is_some()
    }

    /// Whether its certificate is for this name (RFC 6125, subject alternative names).
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        let parsed = self.certificate.as_deref().and_then(|der| ParsedCertificate::try_from(der).ok());
        match (parsed, ServerName::try_from(name)) {
            (Some(parsed), Ok(name)) => rustls::client::verify_server_name(&parsed, &name).is_ok(),
            _ => false,
        }
    }
}

/// A connection that is ready.
pub struct Accepted<C> {
    stream: Stream<C>,
    peer: Peer,
}

enum Stream<C> {
    Plain(C),
    Encrypted(Box<TlsStream<C>>),
}

/// Accepts connections until nobody takes them any more. Certificates that changed hold from the next connection on.
#[must_use]
pub fn incoming<L: Listen>(listener: L, tls: Tls) -> ReceiverStream<io::Result<Accepted<L::Connection>>> {
    /// When there are no file handles left, say.
    const PAUSE: Duration = Duration::from_millis(100);
    let (ready, inbox) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(config) = tls.server() else {
                let peer = Peer { address: Some(address), certificate: None };
                let _ = ready.send(Ok(Accepted { stream: Stream::Plain(stream), peer })).await;
                continue;
            };
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let ready = ready.clone();
            tokio::spawn(async move {
                let handshake = TlsAcceptor::from(config).accept(stream);
                let reason = match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
                    Ok(Ok(stream)) => {
                        drop(place);
                        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                        let certificate = shown.map(|shown| Arc::new(shown.clone().into_owned()));
                        let peer = Peer { address: Some(address), certificate };
                        let stream = Stream::Encrypted(Box::new(stream));
                        let _ = ready.send(Ok(Accepted { stream, peer })).await;
                        return;
                    }
                    Ok(Err(error)) => chain(&error),
                    Err(_) => "it did not agree on keys in time".to_owned(),
                };
                tracing::debug!(peer = %address, reason, "connection refused");
            });
        }
    });
    ReceiverStream::new(inbox)
}

impl<C> Connected for Accepted<C> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Accepted<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Accepted<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
