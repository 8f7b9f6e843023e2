//! [`Gateway`] on its port: the connections over which Socket.IO clients are answered.
//!
//! engineioxide is a service for hyper, and wants tasks that may move between threads; so it has a [`Port`](crate::port::Port).

use std::{net::SocketAddr, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ingest::socketio::{Gateway, Line, Tap},
    port::Serves,
    tls::{Handshakes, Https, speaks_tls},
};

/// How long a connection may be without a request: longer than the minute after which clients and proxies commonly ask again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Bytes of one connection that are read and not yet asked for; so the longest head of a request.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// What every connection needs.
#[derive(Clone)]
pub struct SocketIo {
    gateway: Gateway,
    /// Where HTTPS is spoken too.
    handshakes: Option<Handshakes>,
    closing: CancellationToken,
}

impl SocketIo {
    /// Clients are answered by `gateway`. With a certificate that is over HTTPS and plain HTTP: a client that knows only one of them
    /// cannot be changed.
    #[must_use]
    pub fn new(gateway: Gateway, https: Option<&Https>, closing: CancellationToken) -> Self {
        Self { gateway, handshakes: https.map(Https::for_worker), closing }
    }

    async fn answer<S>(&self, stream: S, peer: SocketAddr, place: OwnedSemaphorePermit) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let line = Line::default();
        let stream = TokioIo::new(Tap::new(stream, line.clone(), place));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (gateway, line) = (self.gateway.clone(), line.clone());
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(request, peer, &line).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE)
            .max_buf_size(READ_BUFFER_BYTES)
            .serve_connection(stream, service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.closing.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

impl Serves for SocketIo {
    const CLIENTS: &'static str = "socketio";

    async fn serve(self, tcp: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let speaks_tls = match speaks_tls(&tcp).await {
            Ok(speaks_tls) => speaks_tls,
            Err(error) => return tracing::debug!(%peer, %error, "a connection without a byte"),
        };
        let ended = match self.handshakes.as_ref().filter(|_| speaks_tls) {
            None => self.answer(tcp, peer, place).await,
            Some(handshakes) => match handshakes.accept(tcp).await {
                Ok(stream) => self.answer(stream, peer, place).await,
                Err(error) => return tracing::debug!(%peer, %error, "no TLS handshake"),
            },
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a Socket.IO client's connection has ended");
        }
    }

    async fn empty(&self) {
        self.gateway.empty().await;
    }
}
