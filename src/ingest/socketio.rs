//! Socket.IO, as the AndroidCamStream app speaks it: `authenticate`, then `receiveImage` for each picture.
//!
//! engineioxide speaks Engine.IO 3 and 4, over both transports and from one to the other; socketioxide's parser reads and
//! writes the packets of Socket.IO 4 and 5 in it. (socketioxide as a whole gives each event a task of its own, in which
//! pictures lose their order, and no way to end a connection.) Around them stands what they leave open: how much of one client
//! is let in (`flow`, `line`, `payload`), how long it is kept (`phone`), and who pushes to a session (`seats`).
//!
//! What a client says is handed over in the order in which it comes, and each client has one task that does it one after the
//! other; so pictures keep their order, and a client that sends more than is done waits for itself.

mod events;
mod flow;
mod line;
mod payload;
mod phone;
mod seats;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::ResponseError;
use bytes::Bytes;
use engineioxide::{
    DisconnectReason, Str, TransportType, config::EngineIoConfig, handler::EngineIoHandler, service::EngineIoService,
    socket::Sid,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::Service};
use parking_lot::Mutex;
use socketioxide_core::parser::ParseError;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::task::TaskTracker;

pub use self::line::{Line, Tap};
use self::{
    events::{Reader, Said},
    flow::{Flow, MAX_TEXT_BYTES, Way, max_message_bytes},
    payload::{Payload, Refused},
    phone::Phone,
    seats::Seats,
};
use crate::{
    auth::{Auth, Network},
    config::{Cors, Proxy, SessionTemplate, Sites, parse_origin},
    edge,
    error::Error,
    hub::{Hub, budget::Budget},
    store::vault::Vault,
    wire::{engineio::Form, error_body::ErrorBody},
};

/// Where Socket.IO is served: what every client asks for unless it is told otherwise.
const PATH: &str = "/socket.io";
/// How often one of the two sides sends a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a sign of life may take: over a slow network it waits for the picture before it. Connections that have died are
/// found sooner, by their silence.
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the way from polling to a WebSocket may take.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// Clients that may be connected at once.
const MAX_PHONES: usize = 10_000;
/// Clients of one network that may be connected without having authenticated: many phones come from one place at once when
/// the server was started anew, and they leave room for others.
const MAX_STRANGERS_A_NETWORK: usize = 1_000;
/// Which part of `MAX_INFLIGHT_BYTES` those may hold besides who have not authenticated.
const STRANGERS_PART: usize = 4;
/// Answers and acknowledgements that wait for one client to read them. Python's client of revision 3 gives up where more than
/// 16 come at once.
const MAX_WAITING_ANSWERS: usize = 12;
/// Bytes that are read from a WebSocket at once.
const READ_BYTES: usize = 16 * 1024;
/// The most that all packets of one polling request have together, in bytes; each is bounded for itself. What waits goes into
/// one request, and the original takes 256 pictures in one. Clients are told the number, and some read 31 bits of it.
const MAX_BODY_BYTES: u64 = i32::MAX as u64;
/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// The bodies of answers.
pub type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
/// The bodies of requests, as they reach engineioxide.
type AskBody = UnsyncBoxBody<Bytes, Refused>;

/// Serves Socket.IO clients.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What all clients share.
struct Shared {
    hub: Arc<Hub>,
    auth: Arc<Auth>,
    sites: Arc<Sites>,
    proxy: Arc<Proxy>,
    template: SessionTemplate,
    seats: Arc<Seats>,
    /// What those who have not authenticated may hold together, so that they take nothing from those who have.
    strangers: Budget,
    phones: Mutex<HashMap<Sid, Connected>>,
    /// How many there are in each network who have not authenticated.
    strangers_by_network: Mutex<HashMap<Network, usize>>,
    /// Those of the clients.
    tasks: TaskTracker,
    engine: OnceLock<EngineIoService<Handler, Elsewhere>>,
}

/// What is told of clients.
struct Handler(Weak<Shared>);

/// A client's connection, whatever it is made of.
type Socket = engineioxide::Socket<OnceLock<Ear>>;

/// Where a client is heard.
struct Ear {
    reader: Reader,
    flow: Arc<Flow>,
    /// What waits in it is bounded by the flow. Nobody listens any more where sending fails: the client is being ended.
    says: UnboundedSender<Said>,
}

/// A client that is connected.
#[derive(Clone)]
struct Connected {
    flow: Arc<Flow>,
    address: IpAddr,
    /// Held by the request whose body is being read: they come one after the other.
    posting: Arc<tokio::sync::Mutex<()>>,
    /// Whether it has begun to go from polling to a WebSocket.
    upgrading: Arc<AtomicBool>,
}

/// How a client's first request has come.
#[derive(Clone)]
struct Arrival {
    address: IpAddr,
    line: Line,
}

impl Gateway {
    /// A gateway into a hub.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        auth: Arc<Auth>,
        vault: Arc<dyn Vault>,
        sites: Arc<Sites>,
        proxy: Arc<Proxy>,
        template: SessionTemplate,
    ) -> Self {
        let max_message_bytes = max_message_bytes(hub.max_image_bytes());
        let strangers = Budget::new(hub.incoming().limit() / STRANGERS_PART);
        let shared = Arc::new(Shared {
            hub,
            auth,
            sites,
            proxy,
            template,
            seats: Arc::new(Seats::new(vault)),
            strangers,
            phones: Mutex::default(),
            strangers_by_network: Mutex::default(),
            tasks: TaskTracker::new(),
            engine: OnceLock::new(),
        });
        let config = EngineIoConfig::builder()
            .req_path(PATH)
            .ping_interval(PING_INTERVAL)
            .ping_timeout(PING_TIMEOUT)
            .upgrade_timeout(UPGRADE_WITHIN)
            .max_buffer_size(MAX_WAITING_ANSWERS)
            .max_payload(MAX_BODY_BYTES)
            .ws_read_buffer_size(READ_BYTES)
            .ws_max_message_size(max_message_bytes)
            .ws_max_frame_size(max_message_bytes)
            .build();
        let handler = Arc::new(Handler(Arc::downgrade(&shared)));
        let _ = shared.engine.set(EngineIoService::with_config_inner(Elsewhere, handler, config));
        Self(shared)
    }

    /// Done when there is no client any more: when the process ends, they are sent away.
    pub async fn empty(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Answers a request that has come over `line` from `peer`.
    pub async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, line: &Line) -> Response<AnswerBody> {
        let shared = &self.0;
        let origin = request.headers().get(header::ORIGIN).cloned();
        let answer = match shared.let_in(&request) {
            Err(refused) => shared.refuse(&refused),
            Ok(()) if request.method() == Method::OPTIONS => preflight(),
            Ok(()) => shared.hand_on(request, peer, line).await,
        };
        shared.readable_by(origin, answer)
    }
}

impl Shared {
    fn strangers_of(&self, network: Network) -> usize {
        self.strangers_by_network.lock().get(&network).copied().unwrap_or(0)
    }

    /// Whether the request may be answered at all: pages of other sites may not be let in by a browser that is not theirs.
    fn let_in(&self, request: &Request<Incoming>) -> Result<(), Error> {
        let (Some(origin), Cors::Only(listed)) = (request.headers().get(header::ORIGIN), &self.sites.cors) else {
            return Ok(());
        };
        let origin = origin.to_str().unwrap_or("null");
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let is_listed = parse_origin(origin).is_some_and(|origin| listed.contains(&origin));
        if is_listed || edge::is_own_origin(&self.sites, origin, host, false) {
            return Ok(());
        }
        Err(Error::CrossSite { origin: origin.to_owned() })
    }

    async fn hand_on(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        line: &Line,
    ) -> Response<AnswerBody> {
        let query = request.uri().query().unwrap_or_default();
        let is_websocket = parameter(query, "transport") == Some("websocket");
        let Some(sid) = parameter(query, "sid") else { return self.open(request, peer, line).await };
        let phone = sid.parse().ok().and_then(|sid: Sid| self.phones.lock().get(&sid).cloned());
        if let Some(phone) = &phone {
            phone.flow.heard();
        }
        match (request.method(), phone) {
            (&Method::POST, phone) => self.post(request, phone).await,
            (_, Some(phone)) if is_websocket => self.upgrade(request, &phone, line).await,
            (_, Some(phone)) => self.poll(request, &phone).await,
            (_, None) => self.ask(request.map(|_| nothing())).await,
        }
    }

    /// A client's first request.
    async fn open(&self, request: Request<Incoming>, peer: SocketAddr, line: &Line) -> Response<AnswerBody> {
        let address = edge::client_address(peer.ip(), request.headers(), &self.proxy);
        let (all, strangers) = (self.phones.lock().len(), self.strangers_of(Network::of(address)));
        for (count, limit) in [(all, MAX_PHONES), (strangers, MAX_STRANGERS_A_NETWORK)] {
            if count >= limit {
                return self.refuse(&Error::TooManyPhones { limit });
            }
        }
        let mut request = slim(request).map(|_| nothing());
        request.extensions_mut().insert(Arrival { address, line: line.clone() });
        self.ask(request).await
    }

    /// A client that goes from polling to a WebSocket.
    async fn upgrade(&self, request: Request<Incoming>, phone: &Connected, line: &Line) -> Response<AnswerBody> {
        // It goes once; where that fails, the client begins anew.
        if phone.upgrading.swap(true, Ordering::Relaxed) {
            return self.refuse(&Error::UnknownClient);
        }
        let answer = self.ask(request.map(|_| nothing())).await;
        // Only now is the connection known to carry nothing else.
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            line.belongs_to(&phone.flow);
        }
        answer
    }

    /// A client waits for what it is told. Where it is to be cut off, it is told that it is not known: then it connects anew.
    async fn poll(&self, request: Request<Incoming>, phone: &Connected) -> Response<AnswerBody> {
        tokio::select! {
            biased;
            () = phone.flow.ended() => self.refuse(&Error::UnknownClient),
            answer = self.ask(request.map(|_| nothing())) => answer,
        }
    }

    /// What a client says while it polls.
    async fn post(self: &Arc<Self>, mut request: Request<Incoming>, phone: Option<Connected>) -> Response<AnswerBody> {
        let is_revision_3 = parameter(request.uri().query().unwrap_or_default(), "EIO") == Some("3");
        let is_binary = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == BINARY);
        let form = match (is_revision_3, is_binary) {
            (false, _) => Form::Text4,
            (true, true) => Form::Binary3,
            (true, false) => Form::Text3,
        };
        if form == Form::Text3 {
            // It leaves in the other form.
            request.headers_mut().insert(header::CONTENT_TYPE, BINARY);
        }
        let shared = self.clone();
        // In a task of its own: a client that hangs up right after its last byte has sent whole pictures.
        let posted = self.tasks.spawn(async move {
            let (address, owner) = match phone {
                Some(Connected { flow, address, posting, .. }) => {
                    (Some(address), Some((flow, posting.lock_owned().await)))
                }
                None => (None, None),
            };
            let (parts, body) = request.into_parts();
            let body = Payload::new(body, form, shared.hub.max_image_bytes(), owner);
            let verdict = body.verdict();
            let answer = shared.ask(Request::from_parts(parts, body.boxed_unsync())).await;
            let Some(refused) = verdict.take() else { return answer };
            if let Some(address) = address {
                shared.hub.metrics().refused(refused.code());
                tracing::warn!(%address, code = refused.code(), error = %refused, "a phone is cut off");
            }
            shared.refuse(&refused)
        });
        posted.await.unwrap_or_else(|ended| self.refuse(&Error::unavailable(ended)))
    }

    async fn ask(&self, request: Request<AskBody>) -> Response<AnswerBody> {
        let Some(engine) = self.engine.get() else { return self.refuse(&Error::UnknownClient) };
        match engine.call(request).await {
            Ok(answer) => answer.map(BodyExt::boxed_unsync),
            Err(never) => match never {},
        }
    }

    fn refuse(&self, error: &Error) -> Response<AnswerBody> {
        tracing::debug!(code = error.code(), %error, "refused");
        json(status(error), &ErrorBody::of(error)).map(BodyExt::boxed_unsync)
    }

    /// Lets the page that asked read the answer. Older clients in browsers ask with cookies, which mean nothing here.
    fn readable_by(&self, origin: Option<HeaderValue>, mut answer: Response<AnswerBody>) -> Response<AnswerBody> {
        if let Some(origin) = origin.filter(|_| answer.status() != StatusCode::FORBIDDEN) {
            let headers = answer.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        answer
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// These are called one after the other, in the order in which a client's bytes came.
impl EngineIoHandler for Handler {
    type Data = OnceLock<Ear>;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket>) {
        let (Some(shared), Some(Arrival { address, line })) =
            (self.0.upgrade(), socket.req_parts.extensions.get::<Arrival>().cloned())
        else {
            return;
        };
        let max_image_bytes = shared.hub.max_image_bytes();
        let flow = Arc::new(Flow::new(&shared.strangers, max_image_bytes));
        if socket.transport_type() == TransportType::Websocket {
            line.belongs_to(&flow);
        }
        let (says, said) = mpsc::unbounded_channel();
        let _ = socket.data.set(Ear { reader: Reader::new(max_image_bytes), flow: flow.clone(), says });
        let connected = Connected { flow: flow.clone(), address, posting: Arc::default(), upgrading: Arc::default() };
        let joined = Joined::new(&shared, socket.id, connected);
        let phone = Phone::new(shared.clone(), socket, flow, said, address);
        shared.tasks.spawn(async move {
            phone.run().await;
            drop(joined);
        });
    }

    fn on_disconnect(&self, socket: Arc<Socket>, _: DisconnectReason) {
        if let Some(Ear { says, .. }) = socket.data.get() {
            let _ = says.send(Said::Leave);
        }
    }

    fn on_message(self: &Arc<Self>, text: Str, socket: Arc<Socket>) {
        let Some(ear) = socket.data.get() else { return };
        if text.as_str().len() > MAX_TEXT_BYTES {
            tracing::debug!("a client's text is over the limit of {MAX_TEXT_BYTES} bytes");
            return socket.close(DisconnectReason::PacketParsingError);
        }
        ear.hear(ear.reader.text(text), &socket);
    }

    fn on_binary(self: &Arc<Self>, bytes: Bytes, socket: Arc<Socket>) {
        if let Some(ear) = socket.data.get() {
            ear.hear(ear.reader.bytes(bytes), &socket);
        }
    }
}

impl Ear {
    fn hear(&self, said: Result<Option<Said>, ParseError>, socket: &Socket) {
        let way = match socket.transport_type() {
            TransportType::Websocket => Way::Socket,
            TransportType::Polling => Way::Body,
        };
        match said {
            Ok(None) => {}
            Ok(Some(said)) => {
                self.flow.waits(way, said.bytes());
                let _ = self.says.send(said);
            }
            Err(error) => {
                tracing::debug!(%error, "a client's packet is not understood");
                socket.close(DisconnectReason::PacketParsingError);
            }
        }
    }
}

/// Counts a client for as long as it is there.
struct Joined {
    shared: Arc<Shared>,
    sid: Sid,
}

/// Counts a client that has not authenticated.
struct Stranger {
    shared: Arc<Shared>,
    network: Network,
}

impl Stranger {
    fn new(shared: &Arc<Shared>, address: IpAddr) -> Self {
        let network = Network::of(address);
        *shared.strangers_by_network.lock().entry(network).or_default() += 1;
        Self { shared: shared.clone(), network }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.shared.strangers_by_network.lock();
        if let Some(count) = strangers.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.network);
            }
        }
    }
}

impl Joined {
    fn new(shared: &Arc<Shared>, sid: Sid, connected: Connected) -> Self {
        shared.phones.lock().insert(sid, connected);
        shared.hub.metrics().phones().inc();
        Self { shared: shared.clone(), sid }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.shared.phones.lock().remove(&self.sid);
        self.shared.hub.metrics().phones().dec();
    }
}

/// What engineioxide looks at in a client's first request.
const KEPT_HEADERS: [HeaderName; 3] = [header::SEC_WEBSOCKET_KEY, header::UPGRADE, header::CONNECTION];
/// See [`KEPT_HEADERS`].
const KEPT_PARAMETERS: [&str; 3] = ["EIO", "transport", "b64"];
/// The content type of the binary form.
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

fn nothing() -> AskBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// As it is on every other route.
fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status_code().as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A request with no more than engineioxide looks at, in memory of its own: it is kept for as long as its client is there.
fn slim<B>(mut request: Request<B>) -> Request<B> {
    let mut headers = HeaderMap::with_capacity(KEPT_HEADERS.len());
    for name in KEPT_HEADERS {
        let value = request.headers().get(&name).and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    *request.headers_mut() = headers;
    let query = request.uri().query().unwrap_or_default();
    let kept = KEPT_PARAMETERS.map(|name| (name, parameter(query, name)));
    let kept = kept.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    if let Ok(uri) = format!("{}?{}", request.uri().path(), kept.collect::<Vec<_>>().join("&")).parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// The value of a parameter as engineioxide finds it: the first of its name.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?.split('=').next()
}

fn json(status: StatusCode, body: &ErrorBody) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(serde_json::to_vec(body).unwrap_or_default()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn preflight() -> Response<AnswerBody> {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    answer
}

/// What is asked for elsewhere than at [`PATH`].
#[derive(Clone)]
struct Elsewhere;

impl<B> Service<Request<B>> for Elsewhere {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<B>) -> Self::Future {
        let message = "this port is for Socket.IO clients, at /socket.io/; pages and everything else are on the server's main port";
        ready(Ok(json(StatusCode::NOT_FOUND, &ErrorBody::new("not_found", message.to_owned()))))
    }
}
