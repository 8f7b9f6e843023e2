//! `POST /stream/{session}`: one request, many pictures.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{push_one, to_the_end};
use crate::{
    auth::{Visitor, clients::Client},
    error::Error,
    hub::Hub,
    session::SessionId,
    telemetry::metrics::WayIn,
    wire::{
        error_body::ErrorBody,
        header::VIEWERS,
        pictures::{Item, Splitter},
    },
};

/// The longest wait for the next byte of a stream: a camera that sends a picture a minute is one.
pub const STREAM_IDLE: Duration = Duration::from_secs(90);

/// The answer at the end of a stream.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct StreamAnswer {
    /// Viewers when the last picture was pushed.
    #[serde(skip)]
    viewers: usize,
    /// Pictures that were pushed.
    accepted: u64,
    /// Pictures that were not: not whole, too large, of the wrong type, or the store was away.
    refused: u64,
}

/// Pushes pictures for as long as the request goes on.
///
/// The body is multipart, as `ffmpeg -f mpjpeg` sends it, or JPEG after JPEG or PNG after PNG, as `-f image2pipe` does; which
/// of them, its first bytes tell. Each picture is a frame as soon as it is complete. One that is refused costs only itself.
#[utoipa::path(
    post, path = "/stream/{session}", tag = "live", operation_id = "pushStream",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    request_body(content = Vec<u8>, content_type = "*/*", description = "many pictures; parts may carry X-Timestamp"),
    responses(
        (status = 200, description = "at the end of the stream", body = StreamAnswer,
         headers(("X-Viewers" = usize, description = "viewers of the session when its last picture was pushed"))),
        (status = "4XX", description = "no stream of pictures, or it was cut off or fell silent", body = ErrorBody),
        (status = 503, description = "busy", body = ErrorBody),
    ),
)]
pub async fn push(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let splitter = Splitter::new(boundary(&request).as_deref(), hub.max_image_bytes());
    let answer = to_the_end(receive(hub, visitor.client(), session, payload, splitter)).await?;
    Ok(HttpResponse::Ok().insert_header((VIEWERS, answer.viewers)).json(answer))
}

async fn receive(
    hub: web::Data<Hub>,
    client: Arc<Client>,
    session: SessionId,
    mut payload: web::Payload,
    mut splitter: Splitter,
) -> Result<StreamAnswer, Error> {
    let mut items = VecDeque::new();
    let mut answer = StreamAnswer::default();
    let mut share = hub.incoming().share();
    loop {
        let chunk = tokio::select! {
            chunk = timeout(STREAM_IDLE, payload.next()) => chunk,
            () = hub.closing() => break,
        };
        let chunk = match chunk {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(_))) => return Err(Error::BodyCutOff),
            Ok(None) => break,
            Err(_) => return Err(Error::StreamStalled { idle: STREAM_IDLE }),
        };
        let fed = splitter.feed(&chunk, &mut items).map_err(|reason| Error::NotAStream(reason.to_string()));
        let whole: usize = items.iter().map(Item::size).sum();
        let room = share.resize(splitter.held() + whole);
        // What is whole is pushed, whatever is wrong with the rest.
        for item in items.drain(..) {
            answer.count(&hub, &client, &session, item).await;
        }
        fed?;
        room?;
        share.resize(splitter.held())?;
    }
    if let Some(item) = splitter.end() {
        answer.count(&hub, &client, &session, item).await;
    }
    if answer.accepted + answer.refused == 0 {
        return Err(Error::EmptyBody);
    }
    Ok(answer)
}

impl StreamAnswer {
    async fn count(&mut self, hub: &Hub, client: &Client, session: &SessionId, item: Item) {
        let refused = match item {
            Item::Picture { bytes, captured } => {
                match push_one(hub, client, session, bytes, captured, WayIn::Stream).await {
                    Ok(pushed) => {
                        self.accepted += 1;
                        self.viewers = pushed.viewers;
                        return;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Item::Refused(fault) => fault.to_string(),
        };
        tracing::debug!(%session, refused, "a picture of a stream was refused");
        self.refused += 1;
    }
}

/// The boundary that the request's content type names.
fn boundary(request: &HttpRequest) -> Option<String> {
    let kind = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?.parse::<mime::Mime>().ok()?;
    let boundary = kind.get_param(mime::BOUNDARY)?;
    (kind.type_() == mime::MULTIPART).then(|| boundary.as_str().to_owned())
}
