//! The ways out, one per file, and what they share: how a picture is answered.

pub mod cursor;
pub mod delivery;
pub mod mjpeg;
pub mod queue;
pub mod snapshot;
pub mod websocket;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{self, BodySize, MessageBody},
    http::{Method, header},
};
use bytes::Bytes;

use crate::{
    connection::Outlet,
    frame::Frame,
    hub::{Hub, budget::Share},
    telemetry::metrics::WayOut,
    wire::header::{FRAME_SEQ, FRAME_TIMESTAMP, NO_DATA},
};

/// A picture may be opened as a page of its own, and then it must not be able to do anything.
const PICTURE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; sandbox";

/// The beginning of every answer that is a picture.
fn picture(content_type: &str) -> HttpResponseBuilder {
    let mut response = picture_of_any_type();
    response.insert_header((header::CONTENT_TYPE, content_type));
    response
}

/// The same where the type is not known.
fn picture_of_any_type() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, PICTURE_POLICY));
    response
}

/// The No Data picture.
fn no_data(hub: &Hub) -> HttpResponseBuilder {
    let mut response = picture(hub.no_data_type());
    response.insert_header((NO_DATA, "1"));
    response
}

/// The answer where there is no frame, for who wants no picture then.
fn nothing() -> HttpResponseBuilder {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::CACHE_CONTROL, "no-store")).insert_header((NO_DATA, "1"));
    response
}

/// Answers with the No Data picture, or without where HEAD was asked for.
fn with_no_data(request: &HttpRequest, mut response: HttpResponseBuilder, hub: &Hub) -> HttpResponse {
    if request.method() == Method::HEAD {
        return response.body(body::None::new());
    }
    with_bytes(request, response, hub.no_data().bytes.clone(), hub.outgoing().share())
}

/// A picture's bytes as the body of an answer, which holds its share of the budget until it is sent. It must not be used
/// where HEAD could be asked for.
fn with_bytes(request: &HttpRequest, mut response: HttpResponseBuilder, picture: Bytes, share: Share) -> HttpResponse {
    match request.conn_data::<Outlet>() {
        // The HTTP layer counts what goes through its own hands, so it is told the length and not to count.
        Some(outlet) => response.no_chunking(picture.len() as u64).body(PictureBody {
            outlet: outlet.clone(),
            picture: Some(picture),
            _share: share,
        }),
        None => response.body(picture),
    }
}

/// The body of an answer that is one picture: nothing for the HTTP layer, everything for the [`Outlet`].
struct PictureBody {
    outlet: Outlet,
    picture: Option<Bytes>,
    _share: Share,
}

impl MessageBody for PictureBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if let Some(picture) = self.picture.take() {
            self.outlet.send([picture, Bytes::new(), Bytes::new()]);
        }
        self.outlet.poll_sent(context).map(|()| None)
    }
}

/// Answers with a frame: its number, its time and its picture, or no picture where HEAD was asked for.
fn with_frame(
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
    hub: &Hub,
    frame: Frame,
    way: WayOut,
) -> HttpResponse {
    response.insert_header((FRAME_SEQ, frame.seq.0)).insert_header((FRAME_TIMESTAMP, frame.captured.to_string()));
    if request.method() == Method::HEAD {
        return response.body(body::None::new());
    }
    let mut share = hub.outgoing().share();
    // It may be one too many by now; the next one who asks is told.
    let _ = share.grow(frame.bytes.len());
    hub.metrics().sent(way, frame.bytes.len());
    with_bytes(request, response, frame.bytes, share)
}
