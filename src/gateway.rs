//! The listener for Socket.IO clients: the connections over which [`Gateway`] answers.
//!
//! socketioxide is a service for hyper, and wants tasks that may move between threads; so this port has a Tokio runtime of its
//! own beside the workers of the main one.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ingest::socketio::{Gateway, Line, Tap},
    tls::{Handshakes, Https, speaks_tls},
};

/// Connections that may be open at once. Who comes then waits.
const MAX_CONNECTIONS: usize = 20_000;
/// How long a connection may be without a request: longer than the minute after which clients and proxies commonly ask again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Bytes of one connection that are read and not yet asked for; so the longest head of a request.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// The pause after a connection could not be accepted: there are too many of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long clients may take to go when the server ends.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The port, which is bound and not yet served.
pub struct Listener {
    threads: Threads,
    listener: TcpListener,
    address: SocketAddr,
    serving: Serving,
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    gateway: Gateway,
    /// Where HTTPS is spoken too.
    handshakes: Option<Handshakes>,
    closing: CancellationToken,
}

/// The runtime. It ends without waiting, as it may be dropped by a task of another.
struct Threads(Option<Runtime>);

impl Listener {
    /// A port whose clients are answered by `gateway`, with so many threads, until `closing` is cancelled. With a certificate
    /// it takes HTTPS and plain HTTP: a client that knows only one of them cannot be changed.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(
        listener: TcpListener,
        gateway: Gateway,
        https: Option<&Https>,
        threads: usize,
        closing: CancellationToken,
    ) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("socketio").enable_all().build()?;
        let handshakes = https.map(Https::for_worker);
        let serving = Serving { gateway, handshakes, closing };
        Ok(Self { threads: Threads(Some(runtime)), address: listener.local_addr()?, listener, serving })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process is to end, and then until its clients have gone.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn run(self) -> io::Result<()> {
        let Self { threads, listener, serving, .. } = self;
        let Some(runtime) = &threads.0 else { return Ok(()) };
        runtime.spawn(serving.serve(listener)).await.map_err(io::Error::other)?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Serving {
    async fn serve(self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (connections, places) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        loop {
            let accept = async {
                let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                listener.accept().await.map(|(stream, peer)| (stream, peer, place))
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                () = self.closing.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    connections.spawn(self.clone().converse(stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a Socket.IO client could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        let gone = async { tokio::join!(self.gateway.empty(), connections.wait()) };
        if timeout(DRAIN_TIME, gone).await.is_err() {
            tracing::warn!("some Socket.IO clients did not go in time");
        }
        Ok(())
    }

    async fn converse(self, tcp: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // It fails only where the client has already gone.
        let _ = tcp.set_nodelay(true);
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
