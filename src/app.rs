//! [`App`]: opens the store, binds the listeners, owns the background tasks, and winds everything up.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_http::{ConnectionType, HttpService, Request, Response, body::MessageBody, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{
    App as HttpApp, ResponseError,
    dev::{AppConfig, ServiceResponse},
    middleware, web,
};
use anyhow::Context;
#[cfg(target_os = "linux")]
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{
    acme,
    auth::Auth,
    config::{Config, Live, Proxy, Sites},
    connection::{Connection, Socket},
    control::Relay,
    edge::{self, Hsts},
    error::Error,
    gateway, http,
    hub::{Hub, LiveSettings, NoData},
    ingest::socketio::Gateway,
    placeholder,
    port::{Port, Serves},
    redirect,
    store::{
        FrameStore,
        bus::{CommandBus, MemoryBus},
        memory::MemoryStore,
        redis::RedisStore,
        vault::{MemoryVault, Vault},
    },
    telemetry::{self, metrics::Metrics},
    tls::Https,
    vicer,
};

/// How long requests in flight may take to finish when the server ends, in seconds. With what comes before and after,
/// the process is gone within 10 s of SIGTERM: container engines kill it then.
const SHUTDOWN_SECONDS: u64 = 7;
/// How long a client may take to send the head of a connection's first request; for later ones there is
/// [`crate::connection::QUIET_TIMEOUT`].
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: longer than the minute after which cameras and proxies commonly send again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Threads for VICER's commands: few bytes, which never wait behind pictures.
const VICER_CONTROL_THREADS: usize = 1;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Bytes of an answer that are put together before they are written: heads and texts. Pictures go past it.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// A server that is bound and not yet running.
pub struct App {
    server: Server,
    address: SocketAddr,
    /// Whether that speaks HTTPS.
    encrypted: bool,
    /// Where plain HTTP is sent to HTTPS.
    redirecting: Option<SocketAddr>,
    /// Where Socket.IO clients are served.
    phones: Option<Port<gateway::SocketIo>>,
    /// Where VICER's controllers and vehicles are.
    vicer_control: Option<Port<vicer::Control>>,
    /// Where VICER's cameras and viewers are.
    vicer_stream: Option<Port<vicer::Stream>>,
    hub: web::Data<Hub>,
    closing: CancellationToken,
}

impl App {
    /// Opens the store, reads the certificate and binds the listeners. Redis need not be there yet.
    ///
    /// # Errors
    /// When an address cannot be bound, the certificate makes no sense or the No Data picture cannot be drawn.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        telemetry::init(&config.log);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let workers = config.listen.workers;
        let https = config.tls.files.as_ref().map(|files| Https::new(files, &config.tls)).transpose()?;
        let limits = config.store.limits;
        let (store, vault, bus): (Arc<dyn FrameStore>, Arc<dyn Vault>, Arc<dyn CommandBus>) =
            match &config.store.redis_url {
                Some(url) => {
                    // The main thread uses the store too, and so do those of other ports.
                    let threads = workers
                        + 1
                        + config.socketio.port.map_or(0, |_| workers)
                        + config.vicer.control_port.map_or(0, |_| VICER_CONTROL_THREADS)
                        + config.vicer.stream_port.map_or(0, |_| workers);
                    let store = RedisStore::new(url, config.store.redis_ca.as_deref(), limits, threads);
                    let store = Arc::new(store.context("REDIS_URL and REDIS_CA_FILE")?);
                    (store.clone(), store.clone(), store)
                }
                None => {
                    let store = MemoryStore::new(limits, config.store.max_memory);
                    (Arc::new(store), Arc::new(MemoryVault::default()), Arc::new(MemoryBus::default()))
                }
            };
        let auth = Auth::new(&config.access, vault.clone(), limits.ttl)?;
        let closing = CancellationToken::new();
        let pictures = config.pictures.clone();
        let (size, format) = (pictures.nodata_size, pictures.carried.placeholder_format());
        let bytes = tokio::task::spawn_blocking(move || placeholder::draw("No Data", "", size, format)).await??;
        let no_data = NoData { bytes, format };
        let metrics = Metrics::new().context("metrics")?;
        let (stale_after, max_sessions) = (config.live.stale_after, limits.max_sessions);
        let live = LiveSettings { stale_after, max_sessions };
        let relay = Relay::new(bus, config.control.command_ttl, metrics.control().clone(), closing.clone());
        let relay = web::Data::new(relay);
        let hub = Hub::new(store, pictures.carried, no_data, config.intake, live, metrics, closing.clone());
        let hub = web::Data::new(hub);

        let listener = listen(SocketAddr::new(config.listen.ip, config.listen.port))?;
        let address = listener.local_addr()?;
        let builder = Server::build().workers(workers).disable_signals().shutdown_timeout(SHUTDOWN_SECONDS);
        let stopping = builder.graceful_shutdown_signal();
        let webroot = web::Data::new(acme::Webroot(config.tls.acme_webroot.clone()));
        let main = Site {
            hub: hub.clone(),
            relay: relay.clone(),
            auth: web::Data::new(auth),
            sites: web::Data::new(config.sites.clone()),
            proxy: web::Data::new(config.proxy.clone()),
            hsts: web::Data::new(Hsts(config.tls.hsts_seconds)),
            encrypted: https.is_some(),
            webroot: webroot.clone(),
            live: web::Data::new(config.live.clone()),
        };
        let phones = config.socketio.port.map(|port| {
            let ip = config.socketio.ip.unwrap_or(config.listen.ip);
            let (hub, auth) = (hub.clone().into_inner(), main.auth.clone().into_inner());
            let (sites, proxy) = (main.sites.clone().into_inner(), main.proxy.clone().into_inner());
            let clients = Gateway::new(hub, auth, vault, sites, proxy, config.socketio.session.clone());
            let clients = gateway::SocketIo::new(clients, https.as_ref(), closing.clone());
            open("SOCKETIO_PORT", SocketAddr::new(ip, port), clients, workers, &closing)
        });
        let phones = phones.transpose()?;
        let vicer = &config.vicer;
        let vicer_control = vicer.control_port.map(|port| {
            let control = vicer::Control::new(relay.clone().into_inner(), vicer);
            open("VICER_CONTROL_PORT", SocketAddr::new(vicer.ip, port), control, VICER_CONTROL_THREADS, &closing)
        });
        let vicer_stream = vicer.stream_port.map(|port| {
            let (hub, auth) = (hub.clone().into_inner(), main.auth.clone().into_inner());
            let stream = vicer::Stream::new(hub, auth, vicer.session.clone());
            open("VICER_STREAM_PORT", SocketAddr::new(vicer.ip, port), stream, workers, &closing)
        });
        let (vicer_control, vicer_stream) = (vicer_control.transpose()?, vicer_stream.transpose()?);
        let encrypted = main.encrypted;
        let signal = stopping.clone();
        let mut builder = match https {
            None => builder.listen("http", listener, move || {
                tcp().and_then(over_http(main.clone().app(), main.refuse_before_body(), signal.clone()))
            })?,
            Some(https) => builder.listen("https", listener, move || {
                let app = over_http(main.clone().app(), main.refuse_before_body(), signal.clone());
                tls(&https, signal.clone()).and_then(app)
            })?,
        };
        let mut redirecting = None;
        if let Some(port) = config.tls.redirect_port {
            let listener = listen(SocketAddr::new(config.listen.ip, port)).context("HTTP_REDIRECT_PORT")?;
            redirecting = Some(listener.local_addr()?);
            let target = redirect::Target::new(config.sites.public_url.as_deref(), address.port());
            let target = web::Data::new(target);
            builder = builder.listen("redirect", listener, move || {
                let app = redirecting_app(target.clone(), webroot.clone());
                tcp().and_then(over_http(app, |_| None, stopping.clone()))
            })?;
        }
        let server = builder.run();
        Ok(Self { server, address, encrypted, redirecting, phones, vicer_control, vicer_stream, hub, closing })
    }

    /// The address that was bound; its port is the real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Socket.IO clients are served, if they are.
    #[must_use]
    pub fn phones(&self) -> Option<SocketAddr> {
        self.phones.as_ref().map(Port::address)
    }

    /// What visitors' addresses begin with: `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.encrypted { "https" } else { "http" }
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
        tracing::info!("listening on {}://{}", self.scheme(), self.address);
        if let Some(address) = self.redirecting {
            tracing::info!("redirecting http://{address} to https");
        }
        if let Some(phones) = &self.phones {
            tracing::info!("listening for Socket.IO on {}://{}", self.scheme(), phones.address());
        }
        if let Some(control) = &self.vicer_control {
            tracing::info!("listening for VICER's controllers and vehicles on {}", control.address());
        }
        if let Some(stream) = &self.vicer_stream {
            tracing::info!("listening for VICER's cameras and viewers on {}", stream.address());
        }
        let (served, phones, control, stream, ()) = tokio::join!(
            self.server,
            run(self.phones),
            run(self.vicer_control),
            run(self.vicer_stream),
            until_shutdown
        );
        served.and(phones).and(control).and(stream)
    }
}

/// Serves a port, where there is one.
async fn run<S: Serves>(port: Option<Port<S>>) -> io::Result<()> {
    match port {
        Some(port) => port.run().await,
        None => Ok(()),
    }
}

/// Binds a port that has threads of its own.
fn open<S: Serves>(
    variable: &'static str,
    address: SocketAddr,
    serves: S,
    threads: usize,
    closing: &CancellationToken,
) -> anyhow::Result<Port<S>> {
    let listener = listen(address).context(variable)?;
    Port::new(listener, serves, threads, closing.clone()).with_context(|| format!("threads for {variable}"))
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

/// What the main port serves.
#[derive(Clone)]
struct Site {
    hub: web::Data<Hub>,
    relay: web::Data<Relay>,
    auth: web::Data<Auth>,
    sites: web::Data<Sites>,
    proxy: web::Data<Proxy>,
    hsts: web::Data<Hsts>,
    /// Whether it is served over HTTPS.
    encrypted: bool,
    webroot: web::Data<acme::Webroot>,
    live: web::Data<Live>,
}

impl Site {
    /// What is asked before a client is told to send its body.
    fn refuse_before_body(&self) -> impl Fn(&Request) -> Option<Error> + Clone + use<> {
        let auth = self.auth.clone();
        move |request| http::refuse_before_body(&auth, request.head())
    }

    /// Every route, and what is around them all.
    fn app(
        self,
    ) -> impl ServiceFactory<
        Request,
        Config = AppConfig,
        Response = ServiceResponse<impl MessageBody + 'static>,
        Error = actix_web::Error,
        InitError = (),
    > {
        let cors = http::cors(&self.sites.cors);
        let base_path = self.proxy.base_path.clone();
        let may_be_https = self.encrypted || !self.proxy.trusted.is_empty();
        HttpApp::new()
            .app_data(self.hub)
            .app_data(self.relay)
            .app_data(self.auth)
            .app_data(self.sites)
            .app_data(self.proxy)
            .app_data(self.hsts)
            .app_data(self.webroot)
            .app_data(self.live)
            .configure(|app| http::routes_below(&base_path, app))
            .wrap(cors)
            .wrap(middleware::from_fn(http::error::as_asked))
            .wrap(middleware::from_fn(http::bound_unread))
            .wrap(middleware::Condition::new(may_be_https, middleware::from_fn(edge::stay_with_https)))
            .wrap(middleware::DefaultHeaders::new().add(("x-content-type-options", "nosniff")))
            .into_factory()
    }
}

/// What the port serves that sends plain HTTP to HTTPS.
fn redirecting_app(
    target: web::Data<redirect::Target>,
    webroot: web::Data<acme::Webroot>,
) -> impl ServiceFactory<
    Request,
    Config = AppConfig,
    Response = ServiceResponse<impl MessageBody + 'static>,
    Error = actix_web::Error,
    InitError = (),
> {
    HttpApp::new()
        .app_data(target)
        .app_data(webroot)
        .configure(redirect::routes)
        .wrap(middleware::from_fn(http::bound_unread))
        .wrap(middleware::DefaultHeaders::new().add(("x-content-type-options", "nosniff")))
        .into_factory()
}

/// What a worker does with each connection, once it is a byte stream: HTTP/1 over a [`Connection`], so that pictures go past
/// the HTTP layer's buffer.
fn over_http<T, S, B>(
    app: S,
    refuse_before_body: impl Fn(&Request) -> Option<Error> + Clone + 'static,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<Accepted<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    T: Socket + 'static,
    S: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let app = app.map_err(|error| error.error_response());
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .expect(fn_service(move |request: Request| {
            let refused = refuse_before_body(&request).map(|error| {
                let mut response = error.error_response();
                response.head_mut().set_connection_type(ConnectionType::Close);
                Response::from(response)
            });
            std::future::ready(refused.map_or(Ok(request), Err))
        }))
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(http::DRAIN_TIME)
        .keep_alive(KEEP_ALIVE)
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        // A client that has closed its side is gone: what waits on its behalf must not take a frame for it.
        .h1_allow_half_closed(false)
        .on_connect_ext(|connection: &Connection<T>, data| {
            data.insert(connection.outlet());
            data.insert(connection.inlet());
            data.insert(connection.encrypted());
        })
        .h1(map_config(app, |()| AppConfig::default()))
}

/// A connection that can carry HTTP, and whose it is.
type Accepted<T> = (Connection<T>, Option<SocketAddr>);

/// A connection as it comes.
fn tcp()
-> impl ServiceFactory<TcpStream, Config = (), Response = Accepted<TcpStream>, Error = DispatchError, InitError = ()> {
    fn_service(async |stream: TcpStream| {
        let peer = prepare(&stream);
        Ok((Connection::new(stream), peer))
    })
}

/// A connection as it comes, encrypted. Each has a task of its own, so none waits for another's handshake.
fn tls(
    https: &Https,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = Accepted<TlsStream<TcpStream>>,
    Error = DispatchError,
    InitError = (),
> + use<> {
    let handshakes = https.for_worker();
    fn_service(move |stream: TcpStream| {
        let (handshakes, stopping) = (handshakes.clone(), stopping.clone());
        async move {
            let peer = prepare(&stream);
            let accepted = tokio::select! {
                accepted = handshakes.accept(stream) => accepted,
                // It has not asked for anything yet.
                () = stopping.notified() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            let stream = accepted.inspect_err(|error| tracing::debug!(?peer, %error, "no TLS handshake"))?;
            Ok((Connection::new(stream), peer))
        }
    })
}

/// Sets what every connection has, and tells whose it is. Both fail only where the client has already gone.
fn prepare(stream: &TcpStream) -> Option<SocketAddr> {
    stream.set_nodelay(true).ok();
    stream.peer_addr().ok()
}
