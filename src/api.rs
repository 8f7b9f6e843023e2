//! Sessions, statistics, health and metrics.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::{Right, Visitor},
    error::Error,
    hub::Hub,
    session::SessionId,
    store,
    wire::{accept::WantsJson, error_body::ErrorBody, query::Query},
};

/// A new session.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewSession {
    /// Its id, a UUID of version 4.
    session: String,
}

/// What is in the store.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Frames that can be taken, of all sessions together.
    num_images: usize,
    /// Sessions.
    num_sessions: usize,
    /// Each session, sorted by id.
    sessions: Vec<SessionStats>,
}

/// One session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStats {
    /// Its id.
    id: String,
    /// Frames that can be taken.
    len: usize,
    /// The number of its newest frame.
    seq: u64,
    /// Milliseconds since that was received.
    age_ms: u64,
    /// Frames a second that are pushed, over the last 2 to 4 s; 0 once none came for 10 s.
    fps: f64,
    /// Viewers of all replicas together; at most 5 s old.
    viewers: usize,
}

impl From<store::SessionStats> for SessionStats {
    fn from(stats: store::SessionStats) -> Self {
        Self {
            id: stats.session.to_string(),
            len: stats.queued,
            seq: stats.seq.0,
            age_ms: stats.age.as_millis() as u64,
            // Nobody reads more than two digits of it.
            fps: (stats.fps * 100.0).round() / 100.0,
            viewers: stats.viewers,
        }
    }
}

/// Makes a session id that nobody can guess.
///
/// The session itself begins with its first frame; any other id of the right form will do as well. A user has every right on
/// a session whose id was made for that user.
#[utoipa::path(
    get, path = "/session", tag = "sessions", operation_id = "newSession",
    responses((status = 200, description = "the id, as text or as JSON where Accept asks for it",
        content((String = "text/plain"), (NewSession = "application/json")))),
)]
pub async fn new_session(visitor: Visitor, WantsJson(json): WantsJson) -> HttpResponse {
    let session = visitor.new_session();
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    if json {
        response.json(NewSession { session: session.to_string() })
    } else {
        response.content_type("text/plain; charset=utf-8").body(session.to_string())
    }
}

/// Drops a session and its frames.
#[utoipa::path(
    delete, path = "/session/{session}", tag = "sessions", operation_id = "removeSession",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 204, description = "it is gone, or never was"),
        (status = 400, description = "not a session id", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn remove_session(session: SessionId, hub: web::Data<Hub>) -> Result<HttpResponse, Error> {
    hub.store().remove(&session).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Tells how each session stands: frames that wait, the newest, its rate, its viewers.
///
/// A session is listed from its first frame until EXPIRE seconds after its last, with `len` 0 too. Where there are users,
/// admins see all, and others those that they may view.
#[utoipa::path(
    get, path = "/stats", tag = "sessions", operation_id = "stats",
    params(("session" = Option<String>, Query, description = "this session only")),
    responses(
        (status = 200, description = "exact at the moment of asking", body = Stats),
        (status = 400, description = "not a session id", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn stats(visitor: Visitor, hub: web::Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let only = query.get("session").map(str::parse::<SessionId>).transpose()?;
    let mut sessions = hub.store().stats().await?;
    sessions.retain(|stats| only.as_ref().is_none_or(|only| stats.session == *only));
    if visitor.must_be_admin().is_err() {
        sessions.retain(|stats| visitor.may(Right::View, &stats.session).is_ok());
    }
    let stats = Stats {
        num_images: sessions.iter().map(|session| session.queued).sum(),
        num_sessions: sessions.len(),
        sessions: sessions.into_iter().map(SessionStats::from).collect(),
    };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(stats))
}

/// Whether the process is up.
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "it is", body = String, content_type = "text/plain")),
)]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body("ok")
}

/// Whether requests can be served: the store can be reached.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses(
        (status = 200, description = "they can", body = String, content_type = "text/plain"),
        (status = 503, description = "not now", body = ErrorBody),
    ),
)]
pub async fn readyz(hub: web::Data<Hub>) -> Result<HttpResponse, Error> {
    hub.store().ping().await?;
    Ok(healthz().await)
}

/// What is counted and measured, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses(
        (status = 200, description = "Prometheus's text format 0.0.4; the number of sessions is left out while the store is away", body = String, content_type = "text/plain"),
    ),
)]
pub async fn metrics(hub: web::Data<Hub>) -> HttpResponse {
    let sessions = hub.store().sessions().await.ok();
    match hub.metrics().render(sessions, hub.store().expired()) {
        Ok(text) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}
