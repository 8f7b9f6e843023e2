//! [`Port`]: a port with threads of its own, for clients that do not speak to actix.

use std::{
    future::{Future, ready},
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections that may be open at once. Who comes then waits.
const MAX_CONNECTIONS: usize = 20_000;
/// The pause after a connection could not be accepted: there are too many of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long clients may take to go when the server ends.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What clients of a port are served by.
pub trait Serves: Clone + Send + Sync + 'static {
    /// What they are called in the log, and their threads.
    const CLIENTS: &'static str;

    /// Serves one connection, which has its place until that is dropped. It ends by itself when the process is to end.
    fn serve(self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit)
    -> impl Future<Output = ()> + Send;

    /// Done when nothing is left of clients beside their connections.
    fn empty(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// A port that is bound and not yet served.
pub struct Port<S> {
    threads: Threads,
    listener: TcpListener,
    address: SocketAddr,
    serves: S,
    closing: CancellationToken,
}

/// The runtime. It ends without waiting, as it may be dropped by a task of another.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl<S: Serves> Port<S> {
    /// A port that is served with so many threads, until `closing` is cancelled.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(listener: TcpListener, serves: S, threads: usize, closing: CancellationToken) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name(S::CLIENTS).enable_all().build()?;
        Ok(Self { threads: Threads(Some(runtime)), address: listener.local_addr()?, listener, serves, closing })
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
        let Self { threads, listener, serves, closing, .. } = self;
        let Some(runtime) = &threads.0 else { return Ok(()) };
        runtime.spawn(accept(listener, serves, closing)).await.map_err(io::Error::other)?
    }
}

async fn accept<S: Serves>(listener: TcpListener, serves: S, closing: CancellationToken) -> io::Result<()> {
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
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                // It fails only where the client has already gone.
                let _ = stream.set_nodelay(true);
                connections.spawn(serves.clone().serve(stream, peer, place));
            }
            Err(error) => {
                tracing::warn!(%error, "one of {} could not be accepted", S::CLIENTS);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let gone = async { tokio::join!(serves.empty(), connections.wait()) };
    if timeout(DRAIN_TIME, gone).await.is_err() {
        tracing::warn!("some of {} did not go in time", S::CLIENTS);
    }
    Ok(())
}
