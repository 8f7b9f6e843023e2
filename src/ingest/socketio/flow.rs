//! [`Flow`]: how much of one phone is let in, and when no more of it is.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    hub::budget::{Budget, Share},
};

/// Bytes of whole pictures that wait to be pushed, beyond which nothing more is read from their phone: it is slowed down,
/// and nobody else. The picture that goes beyond may have any size that is let in.
const WAITING_BYTES: usize = 1 << 20;
/// The longest text that a client may say, in bytes: pictures come as bytes beside it.
pub(super) const MAX_TEXT_BYTES: usize = 8 << 10;
/// What a message counts at least, in bytes: what it may hold beside its picture, so that those without are bounded too.
const MESSAGE_BYTES: usize = MAX_TEXT_BYTES;

/// What a stranger, who has not authenticated, may hold before it counts, in bytes: as much as it takes to authenticate, so that
/// those who send more keep nobody from it.
const STRANGER_BYTES: usize = 2 * MAX_TEXT_BYTES;

/// Messages of this size, in bytes, are let in whatever the limit for pictures is: so one that is too large is refused in words,
/// and its phone stays connected. Only what is larger still ends its connection.
const REFUSED_IN_WORDS_BYTES: usize = 32 << 20;

/// The most that a message takes on the way in, in bytes: a picture in base64, as some clients send it, and what stands around
/// it.
pub(super) const fn max_message_bytes(max_image_bytes: usize) -> usize {
    let largest = max_image_bytes / 3 * 4 + MAX_TEXT_BYTES;
    if largest > REFUSED_IN_WORDS_BYTES { largest } else { REFUSED_IN_WORDS_BYTES }
}

/// What has come of one phone and is not done with, over whichever connections it came.
pub(super) struct Flow {
    state: Mutex<State>,
    max_image_bytes: usize,
    /// Whoever reads from, or writes to, the phone's WebSocket, and whoever reads a body of its.
    wakers: [AtomicWaker; 3],
    ended: CancellationToken,
}

/// Who waits for a phone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiter {
    /// Who reads from its WebSocket.
    Reader,
    /// Who writes to it.
    Writer,
    /// Who reads the body of a request.
    Body,
}

/// How something has come from a phone. It may come both ways at once while it goes from one to the other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Over its WebSocket.
    Socket,
    /// In the body of a request.
    Body,
}

struct State {
    /// Bytes that have come since the last message was whole, by way.
    incoming: [usize; 2],
    /// What the messages that wait count.
    waiting: usize,
    share: Share,
    /// What of it does not count.
    free: usize,
    heard: Instant,
    /// Whether nothing more is to come in, although answers still go out.
    is_closing: bool,
    /// Why it was cut off, if it was.
    fault: Option<Error>,
}

impl Flow {
    /// That of a stranger: what it holds counts as a share of the strangers'.
    pub(super) fn new(strangers: &Budget, max_image_bytes: usize) -> Self {
        let (share, free) = (strangers.share(), STRANGER_BYTES);
        let heard = Instant::now();
        let state = State { incoming: [0; 2], waiting: 0, share, free, heard, is_closing: false, fault: None };
        Self { state: state.into(), max_image_bytes, wakers: Default::default(), ended: CancellationToken::new() }
    }

    /// It is no stranger's any more: what it holds counts as everybody's does.
    pub(super) fn authenticated(&self, incoming: &Budget) {
        let mut state = self.state.lock();
        (state.share, state.free) = (incoming.share(), 0);
        let _ = state.settle();
    }

    /// Ready when there is room for more; `false` when nothing is to come in any more, or to go out.
    pub(super) fn poll_room(&self, waiter: Waiter, context: &mut Context<'_>) -> Poll<bool> {
        // First, so that no change is missed.
        self.wakers[waiter as usize].register(context.waker());
        if self.ended.is_cancelled() {
            return Poll::Ready(false);
        }
        let state = self.state.lock();
        match waiter {
            Waiter::Writer => Poll::Ready(true),
            _ if !state.is_closing && state.waiting < WAITING_BYTES => Poll::Ready(true),
            _ => Poll::Pending,
        }
    }

    /// Notes that the phone is there.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Instant::now();
    }

    /// Notes what has come from the phone.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where it is more than a message may have; [`Error::Busy`], or for a stranger
    /// [`Error::AuthenticateFirst`].
    pub(super) fn comes(&self, way: Way, bytes: usize) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.heard = Instant::now();
        state.incoming[way as usize] += bytes;
        if state.incoming[way as usize] > max_message_bytes(self.max_image_bytes) {
            return Err(Error::TooLarge { limit: self.max_image_bytes });
        }
        let is_stranger = state.free > 0;
        state.settle().map_err(|busy| if is_stranger { Error::AuthenticateFirst } else { busy })
    }

    /// A message has come whole, with a picture of so many bytes or none, and waits from now on.
    pub(super) fn waits(&self, way: Way, bytes: usize) {
        let mut state = self.state.lock();
        state.incoming[way as usize] = 0;
        state.waiting += bytes.max(MESSAGE_BYTES);
        // It came in, so it was let in.
        let _ = state.settle();
    }

    /// A message is done with.
    pub(super) fn done(&self, bytes: usize) {
        let mut state = self.state.lock();
        let was_full = state.waiting >= WAITING_BYTES;
        state.waiting = state.waiting.saturating_sub(bytes.max(MESSAGE_BYTES));
        let _ = state.settle();
        let has_room = state.waiting < WAITING_BYTES;
        drop(state);
        // Nobody waits otherwise.
        if was_full && has_room {
            self.wake();
        }
    }

    /// How long nothing has come from the phone.
    pub(super) fn silence(&self) -> Duration {
        self.state.lock().heard.elapsed()
    }

    /// Nothing more comes in, although answers still go out.
    pub(super) fn close(&self) {
        self.state.lock().is_closing = true;
    }

    /// The same, at once and for good: the phone is cut off for this.
    pub(super) fn cut_off(&self, fault: Error) {
        self.state.lock().fault = Some(fault);
        self.end();
    }

    /// Why it was cut off, if it was; told once.
    pub(super) fn take_fault(&self) -> Option<Error> {
        self.state.lock().fault.take()
    }

    /// Nothing comes in any more, and nothing goes out.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.wake();
    }

    /// Done when that is so.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whoever reads may go on.
    pub(super) fn wake_reader(&self) {
        self.wakers[Waiter::Reader as usize].wake();
    }

    fn wake(&self) {
        self.wakers.iter().for_each(AtomicWaker::wake);
    }
}

impl State {
    fn settle(&mut self) -> Result<(), Error> {
        self.share.resize((self.incoming.iter().sum::<usize>() + self.waiting).saturating_sub(self.free))
    }
}
