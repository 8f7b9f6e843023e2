//! [`App`]: opens the store, binds the listener, owns the background tasks, and winds everything up.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{App as HttpApp, dev::AppConfig, middleware, web};
use anyhow::Context;
#[cfg(target_os = "linux")]
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Auth,
    config::{Config, Proxy, Sites},
    connection::Connection,
    edge::{self, Hsts},
    http,
    hub::{Hub, LiveSettings, NoData},
    placeholder,
    store::{
        FrameStore,
        memory::MemoryStore,
        redis::RedisStore,
        vault::{MemoryVault, Vault},
    },
    telemetry::{self, metrics::Metrics},
};

/// How long requests in flight may take to finish when the server ends, in seconds. With what comes before and after,
/// the process is gone within 10 s of SIGTERM: container engines kill it then.
const SHUTDOWN_SECONDS: u64 = 7;
/// How long a client may take to send the head of a connection's first request; for later ones there is
/// [`crate::connection::QUIET_TIMEOUT`].
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: longer than the minute after which cameras and proxies commonly send again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Bytes of an answer that are put together before they are written: heads and texts. Pictures go past it.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// A server that is bound and not yet running.
pub struct App {
    server: Server,
    address: SocketAddr,
    hub: web::Data<Hub>,
    closing: CancellationToken,
}

impl App {
    /// Opens the store and binds the listener. Redis need not be there yet.
    ///
    /// # Errors
    /// When the address cannot be bound or the No Data picture not be drawn.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        telemetry::init(&config.log);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let workers = config.listen.workers;
        let (store, vault): (Arc<dyn FrameStore>, Arc<dyn Vault>) = match &config.store.redis_url {
            Some(url) => {
                // The main thread uses the store too.
                let store = Arc::new(RedisStore::new(url, config.store.limits, workers + 1).context("REDIS_URL")?);
                (store.clone(), store)
            }
            None => {
                let store = MemoryStore::new(config.store.limits, config.store.max_memory);
                (Arc::new(store), Arc::new(MemoryVault::default()))
            }
        };
        let auth = Auth::new(&config.access, vault, config.store.limits.ttl)?;
        let closing = CancellationToken::new();
        let pictures = config.pictures.clone();
        let (size, format) = (pictures.nodata_size, pictures.carried.placeholder_format());
        let bytes = tokio::task::spawn_blocking(move || placeholder::draw("No Data", "", size, format)).await??;
        let no_data = NoData { bytes, format };
        let metrics = Metrics::new().context("metrics")?;
        let (stale_after, max_sessions) = (config.live.stale_after, config.store.limits.max_sessions);
        let live = LiveSettings { stale_after, max_sessions };
        let hub = Hub::new(store, pictures.carried, no_data, config.intake, live, metrics, closing.clone());
        let hub = web::Data::new(hub);

        let listener = listen(SocketAddr::new(config.listen.ip, config.listen.port))?;
        let address = listener.local_addr()?;
        let builder = Server::build().workers(workers).disable_signals().shutdown_timeout(SHUTDOWN_SECONDS);
        let site = Site {
            hub: hub.clone(),
            auth: web::Data::new(auth),
            sites: web::Data::new(config.sites.clone()),
            proxy: web::Data::new(config.proxy.clone()),
            hsts: web::Data::new(Hsts(config.tls.hsts_seconds)),
        };
        let stopping = builder.graceful_shutdown_signal();
        let server = builder.listen("http", listener, move || http_over_tcp(site.clone(), stopping.clone()))?.run();
        Ok(Self { server, address, hub, closing })
    }

    /// The address that was bound; its port is the real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the routes work on.
    #[must_use]
    pub fn hub(&self) -> Arc<Hub> {
        self.hub.clone().into_inner()
    }

    /// Serves until `shutdown` is done, then finishes what is in flight.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let handle = self.server.handle();
        let closing = self.closing.clone();
        let until_shutdown = async {
            shutdown.await;
            tracing::info!("shutting down: finishing what is in flight");
            closing.cancel();
            handle.stop(true).await;
        };
        tracing::info!("listening on http://{}", self.address);
        let (served, ()) = tokio::join!(self.server, until_shutdown);
        served
    }
}

/// What handlers work with.
#[derive(Clone)]
struct Site {
    hub: web::Data<Hub>,
    auth: web::Data<Auth>,
    sites: web::Data<Sites>,
    proxy: web::Data<Proxy>,
    hsts: web::Data<Hsts>,
}

/// Binds a listener.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A server that starts again right away gets its port, although old connections still linger on it.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().with_context(|| format!("cannot listen on {} port {}", address.ip(), address.port()))
}

/// What a worker does with each connection: HTTP/1 with every route, over a [`Connection`], so that pictures go past the
/// HTTP layer's buffer.
fn http_over_tcp(
    site: Site,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<> {
    let cors = http::cors(&site.sites.cors);
    let base_path = site.proxy.base_path.clone();
    let app = HttpApp::new()
        .app_data(site.hub)
        .app_data(site.auth)
        .app_data(site.sites)
        .app_data(site.proxy)
        .app_data(site.hsts)
        .configure(|app| http::routes_below(&base_path, app))
        .wrap(cors)
        .wrap(middleware::from_fn(http::error::refused_preflight))
        .wrap(middleware::from_fn(http::bound_unread))
        .wrap(middleware::from_fn(edge::look))
        .wrap(middleware::DefaultHeaders::new().add(("x-content-type-options", "nosniff")));
    let app = app.into_factory().map_err(|error| error.error_response());
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(http::DRAIN_TIME)
        .keep_alive(KEEP_ALIVE)
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        // A client that has closed its side is gone: what waits on its behalf must not take a frame for it.
        .h1_allow_half_closed(false)
        .on_connect_ext(|connection: &Connection<TcpStream>, data| {
            data.insert(connection.outlet());
            data.insert(connection.inlet());
        })
        .h1(map_config(app, |()| AppConfig::default()));
    fn_service(|stream: TcpStream| async {
        // Both fail only where the client has already gone.
        stream.set_nodelay(true).ok();
        let peer = stream.peer_addr().ok();
        Ok((Connection::new(stream), peer))
    })
    .and_then(http)
}
