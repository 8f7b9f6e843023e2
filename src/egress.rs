//! The ways out, one per file, and what they share: how a picture is answered.

pub mod queue;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    http::header,
};
use bytes::Bytes;

use crate::{
    connection::Outlet,
    hub::{Hub, budget::Share},
    wire::header::NO_DATA,
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
