//! `POST /imageForm/{session}`: the picture is the one file of a form.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap, HeaderValue},
    web,
};
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

/// What a form may hold besides its picture: boundaries, headers of the parts, and text fields, in bytes.
const FORM_OVERHEAD_BYTES: usize = 64 * 1024;

/// Pushes one picture out of a form.
///
/// Exactly one file, whatever its field is called; text fields are ignored.
#[utoipa::path(
    post, path = "/imageForm/{session}", tag = "queue", operation_id = "pushImageForm",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("X-Timestamp" = Option<String>, Header, description = "when the picture was taken, in seconds since 1970"),
    ),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
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
    let headers = parser_headers(&request)?;
    let incoming = Incoming::new(&hub, &request, payload, hub.max_image_bytes() + FORM_OVERHEAD_BYTES)?;
    let (fault, share) = (incoming.fault(), incoming.share());
    let reason = |error: MultipartError| fault.take().unwrap_or_else(|| Error::BadMultipart(error.to_string()));

    let mut picture = None;
    let mut parts = Multipart::new(&headers, incoming);
    while let Some(part) = parts.next().await {
        let mut part = part.map_err(reason)?;
        if !is_file(&part) {
            // Its bytes count, so that nobody sends text for ever.
            while let Some(chunk) = part.next().await {
                chunk.map_err(reason)?;
            }
            continue;
        }
        // What a browser sends for a file field that was left empty has this name, and no bytes.
        let perhaps_left_empty = file_name(&part) == Some("");
        if picture.is_some() && !perhaps_left_empty {
            return Err(Error::TooManyFiles);
        }
        let mut file = Collector::new(declared_length(&request), hub.max_image_bytes());
        while let Some(chunk) = part.next().await {
            file.add(&chunk.map_err(reason)?)?;
        }
        let file = file.finish();
        if perhaps_left_empty && file.is_empty() {
            continue;
        }
        if picture.replace(file).is_some() {
            return Err(Error::TooManyFiles);
        }
    }
    let pushed = super::push(hub, client, session, picture.ok_or(Error::NoFile)?, captured, WayIn::Form, share).await?;
    Ok(answer(json, pushed))
}

/// The form, for the description.
#[derive(utoipa::ToSchema)]
#[allow(dead_code)]
struct PictureForm {
    /// The picture; the field may have any name.
    #[schema(content_media_type = "image/*", value_type = Vec<u8>)]
    image: Vec<u8>,
}

/// What the parser is told of the request. It would insist on a name for every field of a form; here names do not matter,
/// and some clients write them in ways that it does not read, so it is told that this is any multipart body.
fn parser_headers(request: &HttpRequest) -> Result<HeaderMap, Error> {
    let content_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Error::WrongContentType);
    }
    let value = HeaderValue::from_str(&format!("multipart/mixed;{parameters}")).map_err(|_| Error::WrongContentType)?;
    Ok(HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
}

fn file_name(part: &Field) -> Option<&str> {
    part.content_disposition()?.get_filename()
}

/// A file has a name, or at least is a picture.
fn is_file(part: &Field) -> bool {
    let named =
        part.content_disposition().is_some_and(|it| it.get_filename().is_some() || it.get_filename_ext().is_some());
    named || part.content_type().is_some_and(|kind| kind.type_() == "image")
}
