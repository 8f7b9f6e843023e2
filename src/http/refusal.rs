//! Refusing a request whose body has not been read.
//!
//! A client that is still sending does not read; if the connection were closed at once, it would see a reset and not the
//! answer. The HTTP layer therefore answers first, goes on reading for [`DRAIN_TIME`] and then closes. For a chunked body
//! that nobody holds on to, though, it would read on until the client ends it, which a client need not do.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix_web::{
    Error, HttpMessage,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
};
use futures_util::{StreamExt, stream};

/// How long the rest of a refused body is read before the connection is closed.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Holds on to a chunked body until its answer is on its way, so that the connection is then closed in time.
///
/// # Errors
/// The service's own.
pub async fn hold_unread(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return next.call(request).await;
    }
    let held = Rc::new(RefCell::new(request.take_payload()));
    let reader = held.clone();
    let chunks = stream::poll_fn(move |context| reader.borrow_mut().poll_next_unpin(context));
    request.set_payload(Payload::Stream { payload: Box::pin(chunks) });
    let mut response = next.call(request).await?;
    response.response_mut().extensions_mut().insert(held);
    Ok(response)
}
