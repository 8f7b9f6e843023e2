//! `GET /snapshot/{session}`: the newest frame, not taken.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::header::{self, EntityTag, Header, IfNoneMatch},
    web,
};

use super::{no_data, nothing, picture, with_frame, with_no_data};
use crate::{
    error::Error,
    frame::Seq,
    hub::Hub,
    session::SessionId,
    store::Newest,
    telemetry::metrics::WayOut,
    wire::{
        error_body::ErrorBody,
        header::{FRAME_AGE_MS, FRAME_SEQ},
        query::Query,
    },
};

/// The longest `max_age`, in seconds: 30 days, as long as a frame may live.
const MAX_MAX_AGE_SECONDS: f64 = 30.0 * 24.0 * 3600.0;

/// Shows the newest frame.
///
/// Nothing is taken: everybody who asks gets it, until it expires. Where there is none, or none that is new enough, the No
/// Data picture with `X-No-Data: 1`.
#[utoipa::path(
    get, path = "/snapshot/{session}", tag = "live", operation_id = "snapshot",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("max_age" = Option<f64>, Query, description = "seconds that the frame may be old"),
        ("wait" = Option<f64>, Query, description = "seconds to wait for such a frame, 0 to 60"),
        ("empty" = Option<String>, Query, description = "204: where there is none, answer 204 instead of a picture"),
        ("If-None-Match" = Option<String>, Header, description = "the ETag of the frame that the client has"),
    ),
    responses(
        (status = 200, description = "the frame, or the No Data picture", content_type = "image/*", body = Vec<u8>,
         headers(
            ("X-Frame-Seq" = u64, description = "the frame's number within its session"),
            ("X-Frame-Timestamp" = String, description = "when it was taken, else received: seconds since 1970"),
            ("X-Frame-Age-Ms" = u64, description = "milliseconds since it was received"),
            ("ETag" = String, description = "names this very frame"),
            ("X-No-Data" = String, description = "1 on the No Data picture"),
         )),
        (status = 204, description = "no such frame, where empty=204 was asked for"),
        (status = 304, description = "the frame is the one that the client has; its age is in the headers"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 503, description = "store away, or busy", body = ErrorBody),
    ),
)]
pub async fn show(session: SessionId, hub: web::Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let (wait, empty_is_204) = (query.wait()?, query.empty_is_204()?);
    let max_age = query.number("max_age", "seconds from 0 to 2592000", 0.0..=MAX_MAX_AGE_SECONDS)?;
    let max_age = max_age.map_or(Duration::MAX, Duration::from_secs_f64);
    hub.outgoing().check()?;
    let held = IfNoneMatch::parse(&request).ok();
    let mut newest = hub.newest(&session, max_age, held.as_ref().and_then(only_number), wait).await?;
    if newest.as_ref().is_some_and(|newest| newest.frame.is_none() && !is_held(held.as_ref(), newest)) {
        newest = hub.newest(&session, max_age, None, Duration::ZERO).await?;
    }
    let Some(newest) = newest else {
        return Ok(match empty_is_204 {
            true => nothing().finish(),
            false => with_no_data(&request, no_data(&hub), &hub),
        });
    };
    let about_it = |mut response: HttpResponseBuilder| {
        response.insert_header(header::ETag(tag_of(&newest)));
        response.insert_header((FRAME_AGE_MS, newest.age.as_millis() as u64));
        response
    };
    match &newest.frame {
        Some(frame) if !is_held(held.as_ref(), &newest) => {
            let response = about_it(picture(hub.content_type(frame.kind)));
            Ok(with_frame(&request, response, &hub, frame.clone(), WayOut::Snapshot))
        }
        _ => {
            let mut response = about_it(HttpResponse::NotModified());
            response.insert_header((FRAME_SEQ, newest.seq.0)).insert_header((header::CACHE_CONTROL, "no-store"));
            Ok(response.finish())
        }
    }
}

/// The frame's number and the time of its receipt in milliseconds: neither alone would do if a store began anew.
fn tag_of(newest: &Newest) -> EntityTag {
    EntityTag::new_strong(format!("{}-{:.0}", newest.seq, newest.received.seconds() * 1000.0))
}

/// Whether the client has this frame.
fn is_held(held: Option<&IfNoneMatch>, newest: &Newest) -> bool {
    match held {
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&tag_of(newest))),
        None => false,
    }
}

/// The number of the frame that the client has, if it names just one.
fn only_number(held: &IfNoneMatch) -> Option<Seq> {
    let IfNoneMatch::Items(tags) = held else { return None };
    let [tag] = &tags[..] else { return None };
    tag.tag().split_once('-')?.0.parse().ok().map(Seq)
}
