//! [`Payload`]: the body of a polling request, packet by packet and within all bounds.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, Sleep, sleep_until},
};

use super::flow::{Flow, Waiter, Way, max_message_bytes};
use crate::{
    error::Error,
    ingest::{BODY_IDLE, BODY_WHOLE},
    wire::engineio::{Fault, Form, Packets},
};

/// What a body may have whose phone is not known: one of a newer client that has not yet said hello.
const HELLO_BYTES: usize = 16 * 1024;

/// See the [module](self).
pub(super) struct Payload {
    body: Incoming,
    packets: Packets,
    /// Whose it is, and its turn: a phone's bodies come one after the other.
    phone: Option<(Arc<Flow>, OwnedMutexGuard<()>)>,
    unknown_bytes: usize,
    /// Pieces of a packet that are to be handed on.
    pieces: VecDeque<Bytes>,
    idle: Pin<Box<Sleep>>,
    /// Whether there was no room for more.
    held_up: bool,
    ends: Instant,
    over: bool,
    max_image_bytes: usize,
    verdict: Verdict,
}

/// What was wrong with a body, for the answer.
#[derive(Clone, Default)]
pub(super) struct Verdict(Arc<Mutex<Option<Error>>>);

impl Verdict {
    pub(super) fn take(&self) -> Option<Error> {
        self.0.lock().take()
    }
}

/// A body that was not let in; why is in its [`Verdict`].
#[derive(Debug)]
pub(super) struct Refused;

impl Payload {
    pub(super) fn new(
        body: Incoming,
        form: Form,
        max_image_bytes: usize,
        phone: Option<(Arc<Flow>, OwnedMutexGuard<()>)>,
    ) -> Self {
        let (packets, ends) = (Packets::new(form, max_message_bytes(max_image_bytes)), Instant::now() + BODY_WHOLE);
        let idle = Box::pin(sleep_until(Instant::now() + BODY_IDLE));
        let (pieces, verdict) = (VecDeque::with_capacity(2), Verdict::default());
        Self {
            body,
            packets,
            phone,
            unknown_bytes: 0,
            pieces,
            idle,
            held_up: false,
            ends,
            over: false,
            max_image_bytes,
            verdict,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Notes what has come.
    fn came(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &self.phone {
            Some((flow, _)) => flow.comes(Way::Body, bytes.len())?,
            None => {
                self.unknown_bytes += bytes.len();
                if self.unknown_bytes > HELLO_BYTES {
                    return Err(Error::BadMessage { expected: "no more than 16 KiB before the client has joined" });
                }
            }
        }
        self.packets.feed(bytes);
        Ok(())
    }

    /// The next packet, as soon as it has come; nothing at the end.
    fn poll_packet(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<[Bytes; 2]>, Error>> {
        if let Some((flow, _)) = &self.phone {
            match flow.poll_room(Waiter::Body, context) {
                Poll::Pending => {
                    self.held_up = true;
                    return Poll::Pending;
                }
                Poll::Ready(false) => return Poll::Ready(Err(Error::UnknownClient)),
                // It was not the client who let us wait.
                Poll::Ready(true) if std::mem::take(&mut self.held_up) => {
                    self.idle.as_mut().reset(self.ends.min(Instant::now() + BODY_IDLE));
                }
                Poll::Ready(true) => {}
            }
        }
        let limit = self.max_image_bytes;
        let refused = |fault| match fault {
            Fault::TooLarge => Error::TooLarge { limit },
            Fault::Malformed => Error::BadMessage { expected: "packets of Engine.IO, revision 3 or 4" },
        };
        while !self.over {
            if let Some(packet) = self.packets.next_packet().map_err(refused)? {
                return Poll::Ready(Ok(Some(packet)));
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.as_mut().reset(self.ends.min(Instant::now() + BODY_IDLE));
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        self.came(&bytes)?;
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Error::BodyCutOff)),
                Poll::Ready(None) => self.over = true,
                Poll::Pending => {
                    ready!(self.idle.as_mut().poll(context));
                    return Poll::Ready(Err(Error::BodyStalled { idle: BODY_IDLE, whole: BODY_WHOLE }));
                }
            }
        }
        Poll::Ready(self.packets.finish().map_err(refused))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match ready!(self.poll_packet(context)) {
                Ok(Some(pieces)) => self.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty())),
                Ok(None) => return Poll::Ready(None),
                Err(error) => {
                    *self.verdict.0.lock() = Some(error);
                    return Poll::Ready(Some(Err(Refused)));
                }
            }
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload")
    }
}
