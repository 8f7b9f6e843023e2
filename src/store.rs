//! [`FrameStore`]: where frames wait between being pushed and being taken, and the contract that every backend keeps.

pub mod memory;
pub mod redis;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    error::Error,
    frame::{Frame, NewFrame, Seq},
    session::SessionId,
};

/// How long a frame that was taken lives on, at least and (unless it is its session's newest) at most. Redis needs it
/// between the script that takes and the read of the bytes.
pub const TAKEN_GRACE: Duration = Duration::from_secs(2);

/// What every backend promises, checked for each of them by `tests/it/store.rs`:
///
/// - Numbers of a session grow by one from push to push and never go back.
/// - Pushes to a session that are answered one after the other come out in that order.
/// - Each frame goes to at most one taker, and to exactly one while takers come before it expires.
/// - A frame can be taken until it is `ttl` old and not after; then its memory is freed though nobody comes back.
/// - A call that fails has pushed or taken nothing, as far as the backend can know.
/// - Every call ends within a bounded time: [`redis::STORE_DEADLINE`] where a network is between; `stats` takes
///   [`redis::BATCH_TIME`] more for every 512 sessions.
#[async_trait]
pub trait FrameStore: Send + Sync {
    /// Numbers and appends a frame, dropping the oldest ones of the session beyond the cap, and renews the session.
    async fn push(&self, session: &SessionId, frame: NewFrame) -> Result<Pushed, Error>;

    /// Takes the oldest unexpired frame. It goes to this caller only.
    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error>;

    /// How many frames can still be taken.
    async fn queued(&self, session: &SessionId) -> Result<usize, Error>;

    /// Every session from its first frame until `ttl` after its last push, sorted by id.
    async fn stats(&self) -> Result<Vec<SessionStats>, Error>;

    /// Drops a session and its frames. One that does not exist is no error.
    async fn remove(&self, session: &SessionId) -> Result<(), Error>;

    /// Whether the store can be reached.
    async fn ping(&self) -> Result<(), Error>;

    /// Tells of pushes to the session, made through any replica, from the moment this call has returned.
    async fn notices(&self, session: &SessionId) -> Result<Notices, Error>;
}

/// The answer to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The frame's number.
    pub seq: Seq,
    /// Frames of the session that can be taken now, this one included.
    pub queued: usize,
    /// Frames that this push displaced because a limit was reached.
    pub dropped: usize,
}

/// A frame that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The frame.
    pub frame: Frame,
    /// Frames of the session that can be taken after it.
    pub left: usize,
}

/// One session in the statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStats {
    /// Which.
    pub session: SessionId,
    /// Frames that can be taken.
    pub queued: usize,
}

/// The same limits for every backend.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// `EXPIRE`: how long a frame lives.
    pub ttl: Duration,
    /// `MAX_QUEUE`: frames of a session that wait at most.
    pub max_queue: usize,
    /// `MAX_SESSIONS`.
    pub max_sessions: usize,
}

/// Pushes to one session as they happen: the newest number wins, and a listener that is slow misses what it could not
/// use any more.
#[derive(Debug)]
pub struct Notices(watch::Receiver<u64>);

impl Notices {
    /// Waits until something may have been pushed since this call last returned. False when no more will come.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Who listens to which session in this process; what both backends build [`FrameStore::notices`] on.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<HashMap<SessionId, watch::Sender<u64>>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener.
    pub(crate) fn listen(&self, session: &SessionId) -> Notices {
        let mut sessions = self.lock();
        Notices(sessions.entry(session.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe())
    }

    /// Wakes the listeners of a session.
    pub(crate) fn tell(&self, session: &SessionId) {
        if let Some(sender) = self.lock().get(session) {
            sender.send_modify(|turn| *turn += 1);
        }
    }

    /// Wakes everybody: something may have been missed.
    pub(crate) fn tell_all(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|turn| *turn += 1);
        }
    }

    /// Forgets the sessions that nobody listens to any more and returns them.
    pub(crate) fn forget_idle(&self) -> Vec<SessionId> {
        let mut sessions = self.lock();
        let idle: Vec<_> = sessions
            .iter()
            .filter(|(_, sender)| sender.receiver_count() == 0)
            .map(|(session, _)| session.clone())
            .collect();
        for session in &idle {
            sessions.remove(session);
        }
        idle
    }

    /// The sessions that somebody listens to.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.lock().keys().cloned().collect()
    }
}
