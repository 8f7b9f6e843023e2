//! Who gets in: every route says what it [`Needs`], and [`admit`] holds everybody to it.

use std::{cell::Cell, future::poll_fn, pin::pin, rc::Rc, task::Poll};

use actix_web::{
    Error as ActixError, FromRequest, HttpMessage, HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    cookie::Cookie,
    dev::{Payload, RequestHead, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName},
    },
    middleware::Next,
    web,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    lasting::{self, Lasting, Watch},
    site,
};
use crate::{
    auth::{Auth, Credentials, Right, Visitor},
    config::Proxy,
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
    /// One of two rights on it: a vehicle needs either, and the handler tells who is one.
    Either(Right, Right),
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
    site::check(needs, &request)?;
    let Some(auth) = request.app_data::<web::Data<Auth>>().cloned() else { return Err(Error::LoginNeeded.into()) };
    if needs == Needs::OwnPage || (needs == Needs::Metrics && may_read_metrics(&auth, &request)) {
        return next.call(request).await;
    }
    if !auth.has_users() {
        // Where there is a token for it, nothing else helps.
        return if needs == Needs::Metrics { Err(Error::BadCredentials.into()) } else { next.call(request).await };
    }
    let visitor = match identify(needs, &auth, &request).await {
        Ok(visitor) => visitor,
        Err(Error::LoginNeeded) if is_navigation(request.head()) => return Ok(to_login(request)),
        Err(error) => return Err(error.into()),
    };
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
        request.set_payload(lasting::payload(payload, watch.clone(), ended.clone()));
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
    Ok(response.map_body(|_, body| BoxBody::new(Lasting::new(body, watch))))
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
    let query = Query::read(request.query_string());
    let login = request.cookie(LOGIN_COOKIE);
    let credentials = Credentials {
        authorization: authorization(request.headers()),
        login: login.as_ref().map(Cookie::value),
        token: query.get("token"),
        address: Edge::of(request.request()).address,
    };
    let visitor = auth.visitor(&credentials).await?.ok_or(Error::LoginNeeded)?;
    // Who it is counts for the page that tells of a refusal too.
    request.extensions_mut().insert(visitor.clone());
    match needs {
        Needs::Right(_) | Needs::Either(..) => {
            check(needs, &visitor, Some(&SessionId::extract(request.request()).await?))?;
        }
        _ => check(needs, &visitor, None)?,
    }
    Ok(visitor)
}

fn check(needs: Needs, visitor: &Visitor, session: Option<&SessionId>) -> Result<(), Error> {
    match needs {
        Needs::OwnPage | Needs::Somebody => Ok(()),
        Needs::User => visitor.must_be_user(),
        Needs::Right(right) => visitor.may(right, session.ok_or(Error::BadSession)?),
        Needs::Either(one, other) => {
            let session = session.ok_or(Error::BadSession)?;
            visitor.may(one, session).or_else(|_| visitor.may(other, session))
        }
        Needs::Admin | Needs::Metrics => visitor.must_be_admin(),
    }
}

/// An `Authorization` that is no text is one that nobody has.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default())
}

fn may_read_metrics(auth: &Auth, request: &ServiceRequest) -> bool {
    auth.metrics_are_open() || auth.is_for_metrics(authorization(request.headers()))
}

/// Whether a person has followed a link, so that a page is to come.
pub(super) fn is_navigation(head: &RequestHead) -> bool {
    let header = |name| head.headers().get(name).and_then(|value| value.to_str().ok());
    let is_page = match header(HeaderName::from_static("sec-fetch-mode")) {
        Some(mode) => mode == "navigate",
        None => header(header::ACCEPT).is_some_and(|accept| accept.starts_with("text/html")),
    };
    is_page && head.method == Method::GET
}

/// Sends a person to the login page, and from there back.
fn to_login(request: ServiceRequest) -> ServiceResponse<BoxBody> {
    let response = HttpResponse::build(StatusCode::SEE_OTHER)
        .insert_header((header::LOCATION, login_address(request.request())))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish();
    request.into_response(response)
}

/// The login page, which leads back to what was asked for.
pub(super) fn login_address(request: &HttpRequest) -> String {
    let prefix = Edge::of(request).prefix;
    let here = without_token(request.path(), request.query_string());
    // The path as it came begins with our own part of what stands before it.
    let stripped = prefix.strip_suffix(request.app_data::<web::Data<Proxy>>().map_or("", |proxy| &proxy.base_path));
    let next = format!("{}{here}", stripped.unwrap_or_default());
    format!("{prefix}/login?next={}", utf8_percent_encode(&next, IN_PARAMETER))
}

/// A path and its query, without a link's token: it has just been of no use.
fn without_token(path: &str, query: &str) -> String {
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("token=")).collect();
    if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) }
}
