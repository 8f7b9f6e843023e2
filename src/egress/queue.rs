//! `GET /image/{session}`: takes the next frame.

use actix_web::{HttpRequest, HttpResponse, http::header::HeaderMap, web};

use super::{no_data, nothing, picture, picture_of_any_type, with_frame, with_no_data};
use crate::{
    error::Error,
    hub::Hub,
    session::SessionId,
    telemetry::metrics::WayOut,
    wire::{error_body::ErrorBody, header::QUEUE_LENGTH, query::Query},
};

/// Takes the next frame.
///
/// The oldest frame that has not expired, to this client only. Where there is none, the No Data picture with
/// `X-No-Data: 1`. Taking is at most once: a frame whose taker vanished is gone.
#[utoipa::path(
    get, path = "/image/{session}", tag = "queue", operation_id = "takeImage",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("wait" = Option<f64>, Query, description = "seconds to wait for a frame, 0 to 60"),
        ("empty" = Option<String>, Query, description = "204: where there is no frame, answer 204 instead of a picture"),
    ),
    responses(
        (status = 200, description = "the frame, or the No Data picture", content_type = "image/*", body = Vec<u8>,
         headers(
            ("X-Frame-Seq" = u64, description = "the frame's number within its session"),
            ("X-Frame-Timestamp" = String, description = "when it was taken, else received: seconds since 1970"),
            ("X-Queue-Length" = usize, description = "frames that are left"),
            ("X-No-Data" = String, description = "1 on the No Data picture"),
         )),
        (status = 204, description = "no frame, where empty=204 was asked for"),
        (status = 400, description = "refused; nothing was taken", body = ErrorBody),
        (status = 503, description = "store away, or a prefetch; nothing was taken", body = ErrorBody),
    ),
)]
pub async fn take(session: SessionId, hub: web::Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let (wait, empty_is_204) = (query.wait()?, query.empty_is_204()?);
    if is_prefetch(request.headers()) {
        return Err(Error::Prefetch);
    }
    // Before anything is taken: a frame that was taken has to be sent.
    hub.outgoing().check()?;
    let Some(taken) = hub.take(&session, wait).await? else {
        if empty_is_204 {
            return Ok(nothing().insert_header((QUEUE_LENGTH, 0)).finish());
        }
        let mut response = no_data(&hub);
        response.insert_header((QUEUE_LENGTH, 0));
        return Ok(with_no_data(&request, response, &hub));
    };
    let mut response = picture(hub.content_type(taken.frame.kind));
    response.insert_header((QUEUE_LENGTH, taken.left));
    Ok(with_frame(&request, response, &hub, taken.frame, WayOut::Queue))
}

/// Tells how many frames wait, and takes none.
#[utoipa::path(
    head, path = "/image/{session}", tag = "queue", operation_id = "peekImage",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 200, description = "nothing is taken; as with GET, but without a length",
         headers(
            ("X-Queue-Length" = usize, description = "frames that wait"),
            ("X-No-Data" = String, description = "1 where none does"),
         )),
        (status = 400, description = "refused"),
        (status = 503, description = "store away"),
    ),
)]
pub async fn peek(session: SessionId, hub: web::Data<Hub>) -> Result<HttpResponse, Error> {
    let waiting = hub.store().queued(&session).await?;
    let mut response = match hub.common_type() {
        _ if waiting == 0 => no_data(&hub),
        Some(content_type) => picture(content_type),
        None => picture_of_any_type(),
    };
    // No length: that of a picture which is not taken is not known.
    Ok(response.insert_header((QUEUE_LENGTH, waiting)).body(actix_web::body::None::new()))
}

/// Whether a browser asks ahead of the person before it (<https://wicg.github.io/nav-speculation/prefetch.html>).
fn is_prefetch(headers: &HeaderMap) -> bool {
    let says = |value: &str| value.to_ascii_lowercase().contains("prefetch");
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .iter()
        .any(|name| headers.get(*name).and_then(|value| value.to_str().ok()).is_some_and(says))
}
