//! Who gets in: every route says what it [`Needs`], and [`admit`] holds everybody to it.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error as ActixError, FromRequest, HttpMessage, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    cookie::Cookie,
    dev::{Payload, RequestHead, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName},
    },
    middleware::Next,
    web::{self, Bytes},
};
use futures_util::{StreamExt, stream};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    auth::{Auth, Credentials, Right, Visitor},
    config::{Cors, Proxy, Sites, parse_origin},
    edge::Edge,
    error::Error,
    session::SessionId,
    wire::{header::LOGIN_COOKIE, query::Query},
};

/// What a route needs of whoever asks. Where there are no users, everybody has everything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, and no page of another site may ask for it: it begins or ends a login.
    OwnPage,
    /// To be somebody: the handler asks what may be done.
    Somebody,
    /// To be a user; a link is not enough.
    User,
    /// A right on the `{session}` of the path.
    Right(Right),
    /// To be an admin.
    Admin,
    /// To be an admin, or to have `METRICS_TOKEN`.
    Metrics,
}

/// Characters of a path that would end it, or the parameter that it is put into.
const IN_PARAMETER: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>');

/// Lets a request through to its handler if it may, and for as long as it may. Otherwise what it lacks is the answer: as one,
/// and not as an error, it gets what every answer gets.
///
/// # Errors
/// None.
pub async fn admit(
    needs: Needs,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, ActixError> {
    let head = request.request().clone();
    let answer = let_through(needs, request, next).await;
    Ok(answer.unwrap_or_else(|error| ServiceResponse::from_err(error, head)))
}

async fn let_through(
    needs: Needs,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, ActixError> {
    check_site(needs, &request)?;
    let Some(auth) = request.app_data::<web::Data<Auth>>().cloned() else { return Err(Error::LoginNeeded.into()) };
    if needs == Needs::OwnPage || (needs == Needs::Metrics && may_read_metrics(&auth, &request)) {
        return next.call(request).await;
    }
    let visitor = match identify(needs, &auth, &request).await {
        Ok(visitor) => visitor,
        Err(error) if is_navigation(&request) && error.is_about_login() => return Ok(to_login(request)),
        Err(error) => return Err(error.into()),
    };
    request.extensions_mut().insert(visitor.clone());
    if !auth.has_users() {
        return next.call(request).await;
    }
    let session = SessionId::extract(request.request()).await.ok();
    let watch = Watch::new(move || {
        let session = session.clone();
        visitor.clone().lost(move |visitor| check(needs, visitor, session.as_ref()).is_ok())
    });
    // What comes in, what is waited for and what goes out: each may go on for as long as it may, and no longer.
    let ended = Rc::new(Cell::new(false));
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        request.set_payload(payload);
    } else {
        let (mut payload, mut watch, ended) = (payload, watch.clone(), ended.clone());
        let chunks = stream::poll_fn(move |context| {
            let next = payload.poll_next_unpin(context);
            match watch.poll_lost(next.is_pending(), context) {
                Poll::Ready(()) => {
                    ended.set(true);
                    Poll::Ready(Some(Err(PayloadError::Incomplete(None))))
                }
                Poll::Pending => next,
            }
        });
        request.set_payload(Payload::Stream { payload: Box::pin(chunks) });
    }
    let (mut handling, mut waiting) = (pin!(next.call(request)), watch.clone());
    let response = poll_fn(|context| {
        let answer = handling.as_mut().poll(context);
        match answer {
            Poll::Pending => waiting.poll_lost(true, context).map(|()| Err(Error::RightEnded.into())),
            answer => answer,
        }
    });
    let response = response.await?;
    if ended.get() && response.status().is_client_error() {
        return Err(Error::RightEnded.into());
    }
    if !matches!(response.response().body().size(), BodySize::Stream) {
        return Ok(response);
    }
    Ok(response.map_body(|_, body| BoxBody::new(Lasting { body, watch })))
}

/// Whether a client that asks before it sends its body (`Expect: 100-continue`) is told no: it has shown no credentials at all,
/// where there are users. FFmpeg shows those of a URL only when it is asked for them, and never looks up once it sends.
pub fn refuse_before_body(auth: &Auth, head: &RequestHead) -> Option<Error> {
    let shows_some = head.headers().contains_key(header::AUTHORIZATION)
        || head.headers().contains_key(header::COOKIE)
        || head.uri.query().is_some_and(|query| query.contains("token="));
    let path = head.uri.path();
    // Whatever else takes a body needs somebody.
    let needs_some =
        matches!(head.method, Method::POST | Method::PUT) && !path.ends_with("/login") && !path.ends_with("/logout");
    (auth.has_users() && needs_some && !shows_some).then_some(Error::LoginNeeded)
}

/// The visitor, who has what is needed.
async fn identify(needs: Needs, auth: &web::Data<Auth>, request: &ServiceRequest) -> Result<Visitor, Error> {
    let edge = Edge::extract(request.request()).await.map_err(|never| match never {})?;
    if let Some(anybody) = auth.anybody(edge.address) {
        // Here only the token helps.
        return if needs == Needs::Metrics { Err(Error::BadCredentials) } else { Ok(anybody) };
    }
    let query = Query::read(request.query_string());
    let login = request.cookie(LOGIN_COOKIE);
    let credentials = Credentials {
        authorization: authorization(request.headers()),
        login: login.as_ref().map(Cookie::value),
        token: query.get("token"),
        address: edge.address,
    };
    let visitor = auth.visitor(&credentials).await?.ok_or(Error::LoginNeeded)?;
    match needs {
        Needs::Right(_) => check(needs, &visitor, Some(&SessionId::extract(request.request()).await?))?,
        _ => check(needs, &visitor, None)?,
    }
    Ok(visitor)
}

fn check(needs: Needs, visitor: &Visitor, session: Option<&SessionId>) -> Result<(), Error> {
    match needs {
        Needs::OwnPage | Needs::Somebody => Ok(()),
        Needs::User => visitor.must_be_user(),
        Needs::Right(right) => visitor.may(right, session.ok_or(Error::BadSession)?),
        Needs::Admin | Needs::Metrics => visitor.must_be_admin(),
    }
}

/// An `Authorization` that is no text is one that nobody has.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default())
}

fn may_read_metrics(auth: &Auth, request: &ServiceRequest) -> bool {
    auth.metrics_are_open() || auth.is_for_metrics(authorization(request.headers()))
}

/// Refuses what pages of other sites may not do in a visitor's name, and what nobody's may (<https://fetch.spec.whatwg.org/>:
/// browsers tell a page's origin with every request that writes, and with every WebSocket).
fn check_site(needs: Needs, request: &ServiceRequest) -> Result<(), Error> {
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("null"));
    let Some(sites) = request.app_data::<web::Data<Sites>>() else { return Ok(()) };
    let is_https = request.extensions().get::<Edge>().is_some_and(|edge| edge.https);
    let is_socket = request.headers().contains_key(header::UPGRADE);
    let changes = !request.method().is_safe() || needs == Needs::Right(Right::Take);
    // What a browser adds by itself, whichever page asks.
    let by_itself = request.headers().contains_key(header::COOKIE)
        || authorization(request.headers())
            .is_some_and(|text| text.get(..6).is_some_and(|it| it.eq_ignore_ascii_case("basic ")));
    let guarded = match needs {
        Needs::OwnPage => !request.method().is_safe(),
        Needs::Right(Right::Command) => true,
        _ => by_itself && (is_socket || changes),
    };
    let Some(origin) = header(header::ORIGIN) else {
        // Pictures and links of other pages come without an origin.
        let site = header(HeaderName::from_static("sec-fetch-site"));
        let elsewhere = matches!(site, Some("cross-site" | "same-site"));
        return match guarded && elsewhere {
            true => Err(Error::CrossSite { origin: "another site".into() }),
            false => Ok(()),
        };
    };
    let normal = parse_origin(origin);
    let is_own = match (&sites.public_url, &normal) {
        (_, None) => false,
        (Some(url), Some(origin)) => url == origin,
        // A proxy that is not trusted may speak HTTPS without our knowing.
        (None, Some(origin)) => header(header::HOST).is_some_and(|host| {
            let is = |scheme: &str| parse_origin(&format!("{scheme}://{host}")).as_ref() == Some(origin);
            is("https") || (!is_https && is("http"))
        }),
    };
    let is_listed =
        matches!(&sites.cors, Cors::Only(origins) if normal.is_some_and(|origin| origins.contains(&origin)));
    // What a socket says can be read by any page, whatever the answer's headers: here that is for us to refuse.
    let unreadable = is_socket && sites.cors != Cors::Any;
    if is_own || is_listed || !(guarded || unreadable) {
        return Ok(());
    }
    Err(Error::CrossSite { origin: origin.to_owned() })
}

/// Whether a person has followed a link, so that a page is to come.
fn is_navigation(request: &ServiceRequest) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_page = match header(HeaderName::from_static("sec-fetch-mode")) {
        Some(mode) => mode == "navigate",
        None => header(header::ACCEPT).is_some_and(|accept| accept.starts_with("text/html")),
    };
    is_page && request.method() == Method::GET
}

/// Sends a person to the login page, and from there back.
fn to_login(request: ServiceRequest) -> ServiceResponse<BoxBody> {
    let edge = request.extensions().get::<Edge>().cloned();
    let prefix = edge.map(|edge| edge.prefix).unwrap_or_default();
    let here = without_token(request.path(), request.query_string());
    // The path as it came begins with our own part of what stands before it.
    let stripped = prefix.strip_suffix(request.app_data::<web::Data<Proxy>>().map_or("", |proxy| &proxy.base_path));
    let next = format!("{}{here}", stripped.unwrap_or_default());
    let location = format!("{prefix}/login?next={}", utf8_percent_encode(&next, IN_PARAMETER));
    let response = HttpResponse::build(StatusCode::SEE_OTHER)
        .insert_header((header::LOCATION, location))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish();
    request.into_response(response)
}

/// A path and its query, without a link's token: it has just been of no use.
fn without_token(path: &str, query: &str) -> String {
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("token=")).collect();
    if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) }
}

/// Tells when a visitor may no longer do what is going on.
struct Watch {
    lost: Rc<dyn Fn() -> Losing>,
    /// Made when there is something to wait for: most is done before.
    losing: Option<Losing>,
}

type Losing = Pin<Box<dyn Future<Output = ()>>>;

impl Watch {
    fn new<F: Future<Output = ()> + 'static>(lost: impl Fn() -> F + 'static) -> Self {
        Self { lost: Rc::new(move || Box::pin(lost())), losing: None }
    }

    /// Ready once it is over. It is looked for from the moment when something is waited for.
    fn poll_lost(&mut self, waits: bool, context: &mut Context<'_>) -> Poll<()> {
        if waits && self.losing.is_none() {
            self.losing = Some((self.lost)());
        }
        match &mut self.losing {
            Some(losing) => losing.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

/// One for something else that goes on.
impl Clone for Watch {
    fn clone(&self) -> Self {
        Self { lost: self.lost.clone(), losing: None }
    }
}

/// A body without an end, until its visitor may no longer see it.
struct Lasting {
    body: BoxBody,
    watch: Watch,
}

impl MessageBody for Lasting {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let next = Pin::new(&mut self.body).poll_next(context);
        match self.watch.poll_lost(next.is_pending(), context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => next,
        }
    }
}
