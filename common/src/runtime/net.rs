//! Where a program listens and how it dials: by TCP, or by what stands in for it in a simulation.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint, Error};

type Dial = dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, Error>> + Send + Sync;

/// How connections are made; by default by TCP.
#[derive(Clone, Default)]
pub struct Network(Option<Arc<Dial>>);

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_tcp() { "Network(tcp)" } else { "Network(simulated)" })
    }
}

impl Network {
    /// One that is dialled in another way.
    #[must_use]
    pub fn new(
        dial: impl Fn(Endpoint) -> BoxFuture<'static, Result<Channel, Error>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(dial)))
    }

    /// Whether it is the real one.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.0.is_none()
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody answers, or who answers is not trusted.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel, Error> {
        match &self.0 {
            None => endpoint.connect().await,
            Some(dial) => dial(endpoint).await,
        }
    }
}

/// A socket that listens, and the network it is in.
pub trait Listen: Send + Sync + 'static {
    /// What it accepts.
    type Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Where it listens.
    ///
    /// # Errors
    /// When it is not bound.
    fn address(&self) -> io::Result<SocketAddr>;

    /// The network it is in.
    fn network(&self) -> Network {
        Network::default()
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// When the system has no room for it, say; the one after may be accepted.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Connection = TcpStream;

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = Self::accept(self).await?;
        // Small messages must not wait for one another.
        let _ = stream.set_nodelay(true);
        Ok((stream, address))
    }
}
