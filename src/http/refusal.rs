//! Refusing a request whose body has not been read.
//!
//! A client that is still sending does not read; if the connection were closed at once, it would see a reset and not the
//! answer. The HTTP layer therefore answers first, goes on reading for [`DRAIN_TIME`] and then closes. For a chunked body
//! that nobody holds on to, though, it would read on until the client ends it, which a client need not do.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    Error, HttpMessage,
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web::Bytes,
};
use futures_util::{StreamExt, stream};

/// How long the rest of a refused body is read before the connection is closed.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Holds on to a chunked body until its answer has been sent, so that the connection is then closed in time.
///
/// # Errors
/// The service's own.
pub async fn hold_unread<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let held = Rc::new(RefCell::new(request.take_payload()));
    let reader = held.clone();
    let chunks = stream::poll_fn(move |context| reader.borrow_mut().poll_next_unpin(context));
    request.set_payload(Payload::Stream { payload: Box::pin(chunks) });
    let response = next.call(request).await?;
    Ok(response.map_body(|_, answer| EitherBody::right(Holding { answer: answer.boxed(), _held: held }.boxed())))
}

/// An answer's body with the request's beside it.
struct Holding {
    answer: BoxBody,
    _held: Rc<RefCell<Payload>>,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(context)
    }
}
