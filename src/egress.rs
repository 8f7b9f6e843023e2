//! The ways out, one per file, and what they share: how a picture is answered.

pub mod queue;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    http::header,
};
use bytes::Bytes;

use crate::{hub::Hub, wire::header::NO_DATA};

/// In what pieces a picture is handed to the connection, in bytes. A piece is copied once, into a buffer that stays in
/// the processor's cache; a whole picture would make the connection allocate a buffer of its size.
pub const WRITE_PIECE: usize = 124 * 1024;

/// A picture may be opened as a page of its own, and then it must not be able to do anything.
const PICTURE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; sandbox";

/// The beginning of every answer that is a picture.
fn picture(content_type: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, content_type))
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

/// The bytes of a picture as a body, in pieces of [`WRITE_PIECE`].
struct PictureBody(Bytes);

impl MessageBody for PictureBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.0.len().min(WRITE_PIECE);
        Poll::Ready(Some(Ok(self.0.split_to(piece))))
    }
}
