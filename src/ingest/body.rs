//! `POST /image/{session}`: the body is one picture.

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;

use super::{Collector, Incoming, PushAnswer, answer, captured, declared_length};
use crate::{
    auth::Visitor,
    error::Error,
    hub::Hub,
    session::SessionId,
    telemetry::metrics::WayIn,
    wire::{accept::WantsJson, error_body::ErrorBody},
};

/// Pushes one picture.
///
/// The body is the picture, under any content type or none. The answer is empty, or JSON where `Accept` asks for it.
#[utoipa::path(
    post, path = "/image/{session}", tag = "queue", operation_id = "pushImage",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -; it begins with its first frame"),
        ("X-Timestamp" = Option<String>, Header, description = "when the picture was taken, in seconds since 1970"),
    ),
    request_body(content = Vec<u8>, content_type = "image/*", description = "one picture"),
    responses(
        (status = 200, description = "the frame is in the queue; without Accept: application/json the answer is empty", body = PushAnswer, content_type = "application/json",
         headers(("X-Viewers" = usize, description = "viewers of the session, of all replicas together, at most 5 s old"))),
        (status = "4XX", description = "refused; nothing was pushed", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn push(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    json: WantsJson,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let (captured, client) = (captured(&request)?, visitor.client());
    client.may_push(&session)?;
    let mut incoming = Incoming::new(&hub, &request, payload, hub.max_image_bytes())?;
    let (fault, share) = (incoming.fault(), incoming.share());
    let mut picture = Collector::new(declared_length(&request), hub.max_image_bytes());
    while let Some(chunk) = incoming.next().await {
        let chunk = chunk.map_err(|_| fault.take().unwrap_or(Error::BodyCutOff))?;
        picture.add(&chunk)?;
    }
    let pushed = super::push(hub, client, session, picture.finish(), captured, WayIn::Body, share).await?;
    Ok(answer(json, pushed))
}

/// The same as POST, for clients that PUT.
#[utoipa::path(
    put, path = "/image/{session}", tag = "queue", operation_id = "putImage",
    params(
        ("session" = String, Path, description = "see POST"),
        ("X-Timestamp" = Option<String>, Header, description = "see POST"),
    ),
    request_body(content = Vec<u8>, content_type = "image/*", description = "one picture"),
    responses(
        (status = 200, description = "see POST", body = PushAnswer, content_type = "application/json",
         headers(("X-Viewers" = usize, description = "viewers of the session, of all replicas together, at most 5 s old"))),
        (status = "4XX", description = "refused; nothing was pushed", body = ErrorBody),
        (status = 503, description = "try again", body = ErrorBody),
    ),
)]
pub async fn put(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    json: WantsJson,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    push(session, visitor, hub, json, request, payload).await
}
