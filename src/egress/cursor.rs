//! `GET /frames/{session}`: the frames one by one and in order, not taken.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{nothing, picture, with_frame};
use crate::{
    error::Error,
    frame::Seq,
    hub::Hub,
    session::SessionId,
    telemetry::metrics::WayOut,
    wire::{error_body::ErrorBody, header::FRAMES_MISSED, query::Query},
};

/// Reads the next frame after a number.
///
/// Nothing is taken, so any number of clients get every frame, in order: each asks for what comes after the `X-Frame-Seq`
/// that it got last. A frame that somebody took can be read for 2 s more; one that cannot be read any more counts as missed.
#[utoipa::path(
    get, path = "/frames/{session}", tag = "live", operation_id = "nextFrame",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("after" = Option<u64>, Query, description = "the number of the frame that was read last; without it, the oldest frame is read"),
        ("wait" = Option<f64>, Query, description = "seconds to wait for a frame, 0 to 60"),
    ),
    responses(
        (status = 200, description = "the frame", content_type = "image/*", body = Vec<u8>,
         headers(
            ("X-Frame-Seq" = u64, description = "the frame's number within its session"),
            ("X-Frame-Timestamp" = String, description = "when it was taken, else received: seconds since 1970"),
            ("X-Frames-Missed" = u64, description = "frames after the given number, and since the session began, that cannot be read any more"),
         )),
        (status = 204, description = "none came in time"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 503, description = "store away, or busy", body = ErrorBody),
    ),
)]
pub async fn next(session: SessionId, hub: web::Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let wait = query.wait()?;
    let after = query.parse("after", "a frame's number, as X-Frame-Seq told it", |text| text.parse().ok())?;
    hub.outgoing().check()?;
    let Some(next) = hub.after(&session, Seq(after.unwrap_or(0)), wait).await? else {
        return Ok(nothing().finish());
    };
    let mut response = picture(hub.content_type(next.frame.kind));
    response.insert_header((FRAMES_MISSED, next.missed));
    Ok(with_frame(&request, response, &hub, next.frame, WayOut::Cursor))
}
