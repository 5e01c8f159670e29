//! The simulated network: tonic over turmoil's sockets.

use std::io;
use std::net::SocketAddr;

use evenkeel_common::runtime::net::{Listen, Network};
use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use tonic::transport::Uri;
use turmoil::net::{TcpListener, TcpStream};

/// A socket that listens on a simulated host.
pub struct Listener(TcpListener);

impl Listener {
    /// Binds a port of this host.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn bind(port: u16) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(("0.0.0.0", port)).await?))
    }
}

impl Listen for Listener {
    type Connection = TcpStream;

    fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn network(&self) -> Network {
        network()
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// How simulated hosts dial each other, by name.
#[must_use]
pub fn network() -> Network {
    Network::new(|endpoint| {
        async move {
            let connector = tower::service_fn(|uri: Uri| async move {
                let place = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
                TcpStream::connect(place).await.map(TokioIo::new)
            });
            endpoint.connect_with_connector(connector).await
        }
        .boxed()
    })
}
