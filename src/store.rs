//! [`FrameStore`]: where frames wait between being pushed and being taken, and the contract that every backend keeps.

pub mod bus;
pub mod memory;
pub mod redis;
pub mod vault;

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    error::Error,
    frame::{Frame, NewFrame, Seq, Timestamp},
    session::SessionId,
};

/// How long a frame that was taken can still be read, at least and (unless it is its session's newest) at most: readers
/// with a cursor get it too, and Redis needs it between the script that takes and the read of the bytes.
pub const TAKEN_GRACE: Duration = Duration::from_secs(2);
/// How long a process's count of viewers holds unless it is told again.
pub const VIEWERS_LIFE: Duration = Duration::from_secs(5);
/// A session's rate is measured over the time since a push that was made so long before the latest, or up to twice as
/// long.
const RATE_SAMPLE: Duration = Duration::from_secs(2);
/// A session has no rate any more once nothing was pushed for so long.
const RATE_LIFE: Duration = Duration::from_secs(10);

/// What every backend promises, checked for each of them by `tests/it/store.rs`:
///
/// - Numbers of a session grow by one from push to push and never go back.
/// - Pushes to a session that are answered one after the other come out in that order.
/// - Each frame goes to at most one taker, and to exactly one while takers come before it expires.
/// - A frame can be taken until it is `ttl` old and not after; then its memory is freed though nobody comes back.
/// - Reading (`newest`, `get`, `after`) takes nothing. A frame can be read for as long as it can be taken, and for
///   [`TAKEN_GRACE`] after it was; the newest until it ends or another is pushed. Only a cap can end it sooner.
/// - A call that fails has pushed or taken nothing, as far as the backend can know.
/// - Every call ends within a bounded time: [`redis::STORE_DEADLINE`] where a network is between; `stats` takes
///   [`redis::BATCH_TIME`] more for every 512 sessions.
#[async_trait]
pub trait FrameStore: Send + Sync {
    /// Numbers and appends a frame, dropping the oldest ones of the session beyond the cap, and renews the session.
    async fn push(&self, session: &SessionId, frame: NewFrame) -> Result<Pushed, Error>;

    /// Takes the oldest unexpired frame. It goes to this caller only.
    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error>;

    /// The newest frame. Its picture is left out where its number is the one that the caller knows.
    async fn newest(&self, session: &SessionId, known: Option<Seq>) -> Result<Option<Newest>, Error>;

    /// The frame of this number, if it can still be read: for who has just been told of it.
    async fn get(&self, session: &SessionId, seq: Seq) -> Result<Option<Seen>, Error>;

    /// The first frame after this number that can still be read.
    async fn after(&self, session: &SessionId, seq: Seq) -> Result<Option<Next>, Error>;

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

    /// Notes how many viewers this process has for each of these sessions. That holds for [`VIEWERS_LIFE`].
    async fn note_viewers(&self, viewers: &[(SessionId, usize)]) -> Result<(), Error>;

    /// How many sessions there are.
    async fn sessions(&self) -> Result<usize, Error>;

    /// How many frames have expired untaken since the process began, as far as it has come across them.
    fn expired(&self) -> u64;
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
    /// Viewers of the session, of all replicas together; at most [`VIEWERS_LIFE`] old.
    pub viewers: usize,
}

/// A frame that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The frame.
    pub frame: Frame,
    /// Frames of the session that can be taken after it.
    pub left: usize,
}

/// A frame that was read and not taken.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The frame.
    pub frame: Frame,
    /// How long ago it was received.
    pub age: Duration,
}

/// A session's newest frame.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its number.
    pub seq: Seq,
    /// When it was received.
    pub received: Timestamp,
    /// How long ago that was.
    pub age: Duration,
    /// The frame itself, unless the caller knows it.
    pub frame: Option<Frame>,
}

/// What a cursor comes to.
#[derive(Debug, Clone)]
pub struct Next {
    /// The frame.
    pub frame: Frame,
    /// Frames between the cursor and this one that cannot be read any more. Those of an earlier life of the session, before
    /// it had ended and begun again, do not count.
    pub missed: u64,
}

/// One session in the statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionStats {
    /// Which.
    pub session: SessionId,
    /// Frames that can be taken.
    pub queued: usize,
    /// The number of its newest frame.
    pub seq: Seq,
    /// How long ago that was received.
    pub age: Duration,
    /// Frames a second that are pushed, over the last 2 to 4 s; 0 once none came for 10 s.
    pub fps: f64,
    /// Viewers of all replicas together; at most [`VIEWERS_LIFE`] old.
    pub viewers: usize,
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
pub struct Notices(watch::Receiver<Notice>);

/// What a listener is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// This frame was pushed, perhaps after others.
    Pushed(Seq),
    /// Something may have happened: it is for the listener to look.
    Look,
}

impl Notices {
    /// Waits until something may have been pushed since this call last returned. `None` when no more will come.
    pub async fn next(&mut self) -> Option<Notice> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

/// Who listens to which session in this process; what both backends build [`FrameStore::notices`] on.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<HashMap<SessionId, watch::Sender<Notice>>>);

impl Listeners {
    /// Adds a listener.
    pub(crate) fn listen(&self, session: &SessionId) -> Notices {
        let mut sessions = self.0.lock();
        let sender = sessions.entry(session.clone()).or_insert_with(|| watch::Sender::new(Notice::Look));
        Notices(sender.subscribe())
    }

    /// Wakes the listeners of a session. Pushes may tell of themselves in another order than that of their numbers.
    pub(crate) fn tell(&self, session: &SessionId, notice: Notice) {
        if let Some(sender) = self.0.lock().get(session) {
            sender.send_if_modified(|latest| {
                let late = matches!((*latest, notice), (Notice::Pushed(newer), Notice::Pushed(seq)) if seq < newer);
                *latest = if late { *latest } else { notice };
                !late
            });
        }
    }

    /// Wakes everybody: something may have been missed.
    pub(crate) fn tell_all(&self) {
        for sender in self.0.lock().values() {
            sender.send_replace(Notice::Look);
        }
    }

    /// The sessions that somebody listens to; the others are forgotten.
    pub(crate) fn listened_to(&self) -> Vec<SessionId> {
        let mut sessions = self.0.lock();
        sessions.retain(|_, sender| sender.receiver_count() > 0);
        sessions.keys().cloned().collect()
    }
}
