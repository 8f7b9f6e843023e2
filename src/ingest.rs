//! The ways in, one per file, and what they share: receiving a body within bounds, and the answer to a push.

pub mod body;
pub mod form;
pub mod socketio;
pub mod stream;
pub mod websocket;

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, error::PayloadError, http::header, web};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};
use utoipa::ToSchema;

use crate::{
    auth::clients::Client,
    error::Error,
    frame::Timestamp,
    hub::{Hub, budget::Share},
    session::SessionId,
    store::Pushed,
    telemetry::metrics::WayIn,
    wire::{
        accept::WantsJson,
        header::{TIMESTAMP, VIEWERS},
    },
};

/// The longest wait for the next byte of a body.
pub const BODY_IDLE: Duration = Duration::from_secs(10);
/// The longest time for a whole body: the largest picture by default over 0.5 Mbit/s.
pub const BODY_WHOLE: Duration = Duration::from_secs(300);

/// The answer to a push for clients that ask for JSON.
#[derive(Debug, Serialize, ToSchema)]
pub struct PushAnswer {
    /// The frame's number within its session; it grows by one from frame to frame.
    #[schema(example = 1_795_224_497_123_456_u64)]
    seq: u64,
    /// Frames of the session that can be taken now, this one included.
    queued: usize,
    /// Frames that this push displaced because MAX_QUEUE or MAX_MEMORY was reached.
    dropped: usize,
}

/// The answer to a push over a connection that carries many.
#[derive(Debug, Serialize)]
struct Receipt {
    /// The frame's number.
    seq: u64,
    /// Who watches the session.
    viewers: usize,
}

impl From<Pushed> for Receipt {
    fn from(Pushed { seq, viewers, .. }: Pushed) -> Self {
        Self { seq: seq.0, viewers }
    }
}

/// Answers a push.
fn answer(WantsJson(json): WantsJson, pushed: Pushed) -> HttpResponse {
    let Pushed { seq, queued, dropped, viewers } = pushed;
    let mut response = HttpResponse::Ok();
    response.insert_header((VIEWERS, viewers));
    if json { response.json(PushAnswer { seq: seq.0, queued, dropped }) } else { response.finish() }
}

/// Does something to its end although the client may hang up, which cancels its handler: a camera that closes its
/// connection right after the last byte has sent a whole picture.
async fn to_the_end<T: 'static>(work: impl Future<Output = Result<T, Error>> + 'static) -> Result<T, Error> {
    let mut work = Box::pin(work);
    // In memory it is done at once.
    if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
        return done;
    }
    actix_web::rt::spawn(work).await.unwrap_or_else(|ended| Err(Error::unavailable(ended)))
}

/// Pushes a picture, if its client may push one more.
async fn push_one(
    hub: &Hub,
    client: &Client,
    session: &SessionId,
    picture: Bytes,
    captured: Option<Timestamp>,
    way: WayIn,
) -> Result<Pushed, Error> {
    client.may_push(session)?;
    let pushed = hub.push(session, picture, captured, way).await?;
    client.pushed(session);
    Ok(pushed)
}

/// Pushes a picture that was received whole, from a client of whom it is known that it may. Its share of the budget is held
/// until then.
async fn push(
    hub: web::Data<Hub>,
    client: Arc<Client>,
    session: SessionId,
    picture: Bytes,
    captured: Option<Timestamp>,
    way: WayIn,
    share: Rc<RefCell<Share>>,
) -> Result<Pushed, Error> {
    to_the_end(async move {
        let pushed = hub.push(&session, picture, captured, way).await.inspect(|_| client.pushed(&session));
        drop(share);
        pushed
    })
    .await
}

/// The producer's `X-Timestamp`, if it sent one.
fn captured(request: &HttpRequest) -> Result<Option<Timestamp>, Error> {
    let Some(stamp) = request.headers().get(TIMESTAMP) else { return Ok(None) };
    stamp.to_str().map_err(|_| Error::BadTimestamp)?.parse().map(Some)
}

/// What the request says that its body's length is.
fn declared_length(request: &HttpRequest) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body as it comes in, within all bounds: size, time, and the process's budget. A fault ends the stream and is kept
/// for whoever reads it through a parser with errors of its own.
struct Incoming {
    payload: web::Payload,
    limit: usize,
    seen: usize,
    fault: Rc<RefCell<Option<Error>>>,
    share: Rc<RefCell<Share>>,
    /// Made when the body first keeps us waiting.
    idle: Option<Pin<Box<Sleep>>>,
    ends: Instant,
    too_large: usize,
}

impl Incoming {
    /// Lets a body of at most `limit` bytes in; a larger one is reported as over [`Hub::max_image_bytes`].
    fn new(hub: &Hub, request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<Self, Error> {
        let too_large = hub.max_image_bytes();
        if declared_length(request).is_some_and(|length| length > limit) {
            return Err(Error::TooLarge { limit: too_large });
        }
        Ok(Self {
            payload,
            limit,
            seen: 0,
            fault: Rc::default(),
            share: Rc::new(RefCell::new(hub.incoming().share())),
            idle: None,
            ends: Instant::now() + BODY_WHOLE,
            too_large,
        })
    }

    /// The place where a fault will be found.
    fn fault(&self) -> Rc<RefCell<Option<Error>>> {
        self.fault.clone()
    }

    /// What is to be held until the picture is the store's.
    fn share(&self) -> Rc<RefCell<Share>> {
        self.share.clone()
    }

    fn fail(&self, error: Error) -> Poll<Option<Result<Bytes, PayloadError>>> {
        *self.fault.borrow_mut() = Some(error);
        Poll::Ready(Some(Err(PayloadError::Incomplete(None))))
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = match self.payload.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(chunk))) => chunk,
            Poll::Ready(Some(Err(_))) => return self.fail(Error::BodyCutOff),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let until = self.ends.min(Instant::now() + BODY_IDLE);
                let idle = self.idle.get_or_insert_with(|| Box::pin(sleep_until(until)));
                return match idle.as_mut().poll(context) {
                    Poll::Ready(()) => self.fail(Error::BodyStalled { idle: BODY_IDLE, whole: BODY_WHOLE }),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        let until = self.ends.min(Instant::now() + BODY_IDLE);
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(until);
        }
        self.seen += chunk.len();
        if self.seen > self.limit {
            return self.fail(Error::TooLarge { limit: self.too_large });
        }
        let grown = self.share.borrow_mut().grow(chunk.len());
        match grown {
            Ok(()) => Poll::Ready(Some(Ok(chunk))),
            Err(busy) => self.fail(busy),
        }
    }
}

/// Collects a picture into one buffer: the only copy of a frame on its way to the memory store.
struct Collector {
    buffer: BytesMut,
    limit: usize,
}

impl Collector {
    /// Room for the announced length, so that nothing is moved while it comes.
    fn new(announced: Option<usize>, limit: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(announced.unwrap_or(0).min(limit)), limit }
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + chunk.len() > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The picture, in a buffer of about its size: one that grew without knowing its end may be twice as large.
    fn finish(self) -> Bytes {
        let Self { buffer, .. } = self;
        if buffer.capacity() - buffer.len() > buffer.len() / 8 {
            Bytes::copy_from_slice(&buffer)
        } else {
            buffer.freeze()
        }
    }
}
