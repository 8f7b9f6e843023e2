//! What goes on for as long as a visitor may do it, and no longer.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    error::PayloadError,
    web::Bytes,
};
use futures_util::{StreamExt, stream};

/// Tells when a visitor may no longer do what is going on.
pub(super) struct Watch {
    lost: Rc<dyn Fn() -> Losing>,
    /// Made when there is something to wait for: most is done before.
    losing: Option<Losing>,
    over: bool,
}

type Losing = Pin<Box<dyn Future<Output = ()>>>;

impl Watch {
    /// `lost` makes what is done when it is over.
    pub(super) fn new<F: Future<Output = ()> + 'static>(lost: impl Fn() -> F + 'static) -> Self {
        Self { lost: Rc::new(move || Box::pin(lost())), losing: None, over: false }
    }

    /// Ready once it is over. It is looked for from the moment when something is waited for.
    pub(super) fn poll_lost(&mut self, waits: bool, context: &mut Context<'_>) -> Poll<()> {
        if waits && self.losing.is_none() {
            self.losing = Some((self.lost)());
        }
        if !self.over
            && let Some(losing) = &mut self.losing
        {
            self.over = losing.as_mut().poll(context).is_ready();
        }
        if self.over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// One for something else that goes on.
impl Clone for Watch {
    fn clone(&self) -> Self {
        Self { lost: self.lost.clone(), losing: None, over: false }
    }
}

/// A body without an end, until its visitor may no longer see it.
pub(super) struct Lasting {
    body: BoxBody,
    watch: Watch,
}

impl Lasting {
    pub(super) fn new(body: BoxBody, watch: Watch) -> Self {
        Self { body, watch }
    }
}

impl MessageBody for Lasting {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let next = Pin::new(&mut self.body).poll_next(context);
        match self.watch.poll_lost(next.is_pending(), context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => next,
        }
    }
}

/// What a client sends, until it may no longer send it. That it was cut off then is noted in `ended`.
pub(super) fn payload(mut payload: Payload, mut watch: Watch, ended: Rc<Cell<bool>>) -> Payload {
    let chunks = stream::poll_fn(move |context| {
        let next = payload.poll_next_unpin(context);
        match watch.poll_lost(next.is_pending(), context) {
            Poll::Ready(()) => {
                ended.set(true);
                Poll::Ready(Some(Err(PayloadError::Incomplete(None))))
            }
            Poll::Pending => next,
        }
    });
    Payload::Stream { payload: Box::pin(chunks) }
}
