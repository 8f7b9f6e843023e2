//! Refusing a request whose body has not been read.
//!
//! A client that is still sending does not read; if the connection were closed at once, it would see a reset and not the
//! answer. The HTTP layer therefore answers first, goes on reading for [`DRAIN_TIME`] and then closes; the connection ends
//! it sooner, after [`DRAIN_BYTES`]. For a chunked body that nobody holds on to, though, the HTTP layer would read on until
//! the client ends it, which a client need not do.

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

use crate::connection::Inlet;

/// How long the rest of a refused body is read before the connection is closed.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How many bytes of it are read.
const DRAIN_BYTES: usize = 4 << 20;

/// Bounds what is read of a request that is refused.
///
/// # Errors
/// The service's own.
pub async fn bound_unread<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let inlet = request.conn_data::<Inlet>().cloned();
    // The request before on this connection may have been refused.
    inlet.iter().for_each(Inlet::read_freely);
    let response = hold_unread(request, next).await?;
    if response.status().is_client_error() || response.status().is_server_error() {
        inlet.iter().for_each(|inlet| inlet.read_at_most(DRAIN_BYTES));
    }
    Ok(response)
}

/// Holds on to a chunked body until its answer has been sent, so that the connection is then closed in time.
async fn hold_unread<B: MessageBody + 'static>(
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
