//! `/login`, `/logout` and `/link`: how people get in, out, and let others see something.

use std::time::Duration;

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    cookie::{Cookie, SameSite, time::Duration as CookieDuration},
    http::{StatusCode, header},
    web,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    auth::{Auth, Credentials, MAX_LINK_LIFE, REMEMBERED_LIFE, Right, Visitor},
    edge::Edge,
    error::Error,
    session::SessionId,
    ui,
    wire::{error_body::ErrorBody, header::LOGIN_COOKIE, query::Query},
};

/// How long the body of a form, or of a request for a link, may take. It fits into one packet.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What the login page sends.
#[derive(Deserialize, ToSchema)]
pub struct LoginForm {
    /// The user's name, which may be an email address; `email` and `username` do as well.
    #[serde(alias = "email", alias = "username")]
    name: String,
    /// The password.
    password: String,
    /// Anything where the login is to last for 30 days instead of until the browser is closed, 12 hours at most.
    #[serde(default)]
    remember: String,
}

/// The login page.
#[utoipa::path(
    get, path = "/login", tag = "access", operation_id = "loginPage",
    responses((status = 200, description = "a form; for who is logged in, a way out", content_type = "text/html", body = String)),
)]
pub async fn login_page(auth: web::Data<Auth>, edge: Edge, request: HttpRequest) -> HttpResponse {
    let login = request.cookie(LOGIN_COOKIE);
    let login = login.as_ref().map(Cookie::value);
    let credentials = Credentials { authorization: None, login, token: None, address: edge.address };
    match auth.visitor(&credentials).await {
        Ok(Some(visitor)) => ui::login_page(&request, StatusCode::OK, visitor.name(), None),
        _ => ui::login_page(&request, StatusCode::OK, None, None),
    }
}

/// Logs in.
///
/// Then the browser is sent to `?next=`, a path of this server, or to the wall. Failures are slowed by account
/// and by address.
#[utoipa::path(
    post, path = "/login", tag = "access", operation_id = "logIn",
    params(("next" = Option<String>, Query, description = "where to go then: a path of this server")),
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "logged in: the cookie is HttpOnly and SameSite=Lax, over HTTPS also Secure"),
        (status = 400, description = "no login form", body = ErrorBody),
        (status = 401, description = "wrong; a page where Accept asks for one", body = ErrorBody),
        (status = 403, description = "sent by a page of another site", body = ErrorBody),
        (status = 429, description = "too many failures of late: see Retry-After", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn log_in(
    auth: web::Data<Auth>,
    edge: Edge,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let form = read::<web::Form<LoginForm>>(&request, payload).await.map_err(|_| Error::BadForm)?.into_inner();
    let remember = !form.remember.is_empty();
    let login = match auth.log_in(&form.name, &form.password, remember, edge.address).await {
        Ok(login) => login,
        Err(error) if wants_page(&request) => return Ok(login_failed(&request, &error)),
        Err(error) => return Err(error),
    };
    let mut cookie = login_cookie(login, &edge);
    if remember {
        cookie.set_max_age(CookieDuration::seconds(REMEMBERED_LIFE.as_secs() as i64));
    }
    let query = Query::read(request.query_string());
    let next = query.get("next").filter(|next| is_own_path(next));
    Ok(see_other(next.map_or_else(|| format!("{}/", edge.prefix), str::to_owned)).cookie(cookie).finish())
}

/// Logs out, on every replica.
#[utoipa::path(
    post, path = "/logout", tag = "access", operation_id = "logOut",
    responses(
        (status = 303, description = "logged out: the cookie is worth nothing any more, wherever it is kept"),
        (status = 403, description = "sent by a page of another site", body = ErrorBody),
        (status = 503, description = "not logged out; try again", body = ErrorBody),
    ),
)]
pub async fn log_out(auth: web::Data<Auth>, edge: Edge, request: HttpRequest) -> Result<HttpResponse, Error> {
    if let Some(cookie) = request.cookie(LOGIN_COOKIE) {
        auth.log_out(cookie.value()).await?;
    }
    let mut cookie = login_cookie(String::new(), &edge);
    cookie.make_removal();
    Ok(see_other(format!("{}/login", edge.prefix)).cookie(cookie).finish())
}

/// What a link is to be for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// The session.
    session: String,
    /// The right that it gives.
    right: Right,
    /// For how many seconds, 1 to 31536000.
    expires_in: u64,
}

/// A link.
#[derive(Serialize, ToSchema)]
pub struct NewLink {
    /// Where it leads: for `view` the newest picture. The token works on every route of the session that the right is for.
    url: String,
    /// What gives the right, as `?token=`.
    token: String,
    /// When it runs out, in seconds since 1970.
    expires: u64,
}

/// Makes a link that gives one right on one session for a time.
///
/// Only for a right that its maker holds, and dead when its maker loses it. A link makes no links.
#[utoipa::path(
    post, path = "/link", tag = "access", operation_id = "newLink",
    request_body = LinkRequest,
    responses(
        (status = 200, description = "the link", body = NewLink),
        (status = 400, description = "no request for a link", body = ErrorBody),
        (status = 401, description = "not logged in", body = ErrorBody),
        (status = 403, description = "the maker does not hold the right", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn link(
    visitor: Visitor,
    edge: Edge,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let body =
        read::<web::Bytes>(&request, payload).await.map_err(|_| bad_link("there is no body, or it is too long"))?;
    let wanted: LinkRequest = serde_json::from_slice(&body).map_err(|error| Error::BadLink(error.to_string()))?;
    let session: SessionId = wanted.session.parse()?;
    let life = Some(Duration::from_secs(wanted.expires_in)).filter(|life| !life.is_zero() && *life <= MAX_LINK_LIFE);
    let life = life.ok_or_else(|| bad_link("expires_in is to be 1 to 31536000 seconds"))?;
    let (token, expires) = visitor.link(&session, wanted.right, life).await?;
    let route = match wanted.right {
        Right::View => "snapshot",
        Right::Publish | Right::Take => "image",
        Right::Command => "control",
    };
    let url = format!("{}/{route}/{session}?token={token}", edge.prefix);
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(NewLink { url, token, expires }))
}

fn bad_link(what: &str) -> Error {
    Error::BadLink(what.to_owned())
}

/// Reads a small body, in bounded time. Its size is bounded by the HTTP layer: a form's to 16 KiB, others' to 256 KiB.
async fn read<T: FromRequest>(request: &HttpRequest, payload: web::Payload) -> Result<T, ()> {
    let mut payload = payload.into_inner();
    timeout(BODY_TIME, T::from_request(request, &mut payload)).await.map_err(drop)?.map_err(drop)
}

/// The login page again, and why. Without a challenge: a browser would show its own form.
fn login_failed(request: &HttpRequest, error: &Error) -> HttpResponse {
    let answer = error.error_response();
    let message = match error {
        Error::BadCredentials => "That name or password is wrong.",
        Error::TooManyLogins { .. } => "Too many attempts have failed. Wait a minute, then try again.",
        _ => "That did not work. Try again.",
    };
    let mut page = ui::login_page(request, answer.status(), None, Some(message));
    if let Some(pause) = answer.headers().get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, pause.clone());
    }
    page
}

/// Whether whoever asks would rather see a page than JSON.
fn wants_page(request: &HttpRequest) -> bool {
    request.headers().get(header::ACCEPT).is_some_and(|accept| accept.to_str().is_ok_and(|it| it.contains("text/html")))
}

fn login_cookie(login: String, edge: &Edge) -> Cookie<'static> {
    let path = if edge.prefix.is_empty() { "/" } else { &edge.prefix };
    Cookie::build(LOGIN_COOKIE, login)
        .path(path.to_owned())
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(edge.https)
        .finish()
}

fn see_other(location: String) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(StatusCode::SEE_OTHER);
    response.insert_header((header::LOCATION, location)).insert_header((header::CACHE_CONTROL, "no-store"));
    response
}

/// Whether this is a path of this server, and cannot be read as the address of another.
fn is_own_path(path: &str) -> bool {
    let rest = path.strip_prefix('/');
    rest.is_some_and(|rest| !rest.starts_with(['/', '\\']))
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_nobody_is_sent_elsewhere() {
        for own in ["/", "/stats", "/cams/stream/a?fps=5", "/a//b"] {
            assert!(is_own_path(own), "{own}");
        }
        for other in
            ["", "stats", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "/a\r\nb"]
        {
            assert!(!is_own_path(other), "{other:?}");
        }
    }
}
