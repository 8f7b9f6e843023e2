//! `POST /control/{session}`: one command.

use std::time::Duration;

use actix_web::{HttpResponse, http::header, web};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::{MAX_COMMAND_BYTES, Relay, Words};
use crate::{auth::Visitor, error::Error, session::SessionId, store::bus::Operator, wire::error_body::ErrorBody};

/// How long the body may take to come. What takes longer than COMMAND_TTL_MS is then too late.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The answer to a command.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandAnswer {
    /// Vehicles that listen, to which it was handed on.
    vehicles: usize,
}

/// Sends one command to the vehicles of a session.
///
/// The body is the command, 64 KiB at most, and comes to them as it is: as a text where it is UTF-8. It takes a free wheel, which is
/// free again when the vehicles' lease ends. An empty one is the ping of who holds the wheel.
#[utoipa::path(
    post, path = "/control/{session}", tag = "control", operation_id = "sendCommand",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    request_body(content = String, description = "the command", content_type = "*/*"),
    responses(
        (status = 200, description = "it was handed on", body = CommandAnswer),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 409, description = "no_vehicle: nobody listens; not_driving: another holds the wheel", body = ErrorBody),
        (status = 413, description = "over 64 KiB", body = ErrorBody),
        (status = 503, description = "command_late, or the store is away", body = ErrorBody),
    ),
)]
pub async fn send(
    session: SessionId,
    visitor: Visitor,
    relay: web::Data<Relay>,
    mut payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let (received, mut body) = (Instant::now(), BytesMut::new());
    let stalled = || Error::BodyStalled { idle: BODY_TIME, whole: BODY_TIME };
    while let Some(chunk) = timeout_at(received + BODY_TIME, payload.next()).await.map_err(|_| stalled())? {
        let chunk = chunk.map_err(|_| Error::BodyCutOff)?;
        if body.len() + chunk.len() > MAX_COMMAND_BYTES {
            return Err(Error::CommandTooLarge { limit: MAX_COMMAND_BYTES });
        }
        body.extend_from_slice(&chunk);
    }
    let operator =
        Operator { id: format!("once-{}", visitor.fingerprint()).into(), name: visitor.public_name().into() };
    let vehicles = relay.command_once(&session, &operator, Words::of(body.freeze()), received).await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(CommandAnswer { vehicles }))
}
