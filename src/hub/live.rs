//! The live side of the hub: every frame to everybody who watches.
//!
//! However many viewers a session has in this process, one task follows it and one frame of it is held: the newest. A
//! viewer that is slow finds the newest frame when it is ready for one, and nobody waits for it. The task ends with the
//! last viewer, so a session that nobody watches costs nothing here.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::budget::{Budget, Share};
use crate::{
    error::Error,
    frame::{Frame, Seq},
    session::SessionId,
    store::{FrameStore, Notice},
};

/// How long after a failure the store is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How often a session that is silent is looked at without being told to: its frame may have expired.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a frame that is being pushed through this process is waited for when the store tells of it sooner than the
/// push returns. Fetching it would carry it over the network for nothing.
const PUSH_PATIENCE: Duration = Duration::from_millis(50);
/// How often the store is told again of viewers: twice within [`VIEWERS_LIFE`](crate::store::VIEWERS_LIFE).
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
/// The shortest time between two such notes: viewers may come and go by the hundred.
const NOTE_PAUSE: Duration = Duration::from_millis(100);

/// The newest frame of a session on its way to viewers.
#[derive(Debug)]
pub struct LiveFrame {
    /// The frame.
    pub frame: Frame,
    /// When it was received, by the clock of this process.
    pub received: Instant,
    /// Its place among all that were shown to the session's viewers here, counted from 1.
    pub place: u64,
    heads: [OnceLock<Bytes>; 2],
    /// What it takes of the budget for frames on their way to slow viewers once it is not the newest any more.
    share: Mutex<Share>,
}

/// What stands before a frame, made once for all viewers.
#[derive(Debug, Clone, Copy)]
pub enum Head {
    /// The head of a part of an MJPEG stream.
    Part,
    /// The head of a WebSocket message.
    Message,
}

impl LiveFrame {
    /// How old it is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.received.elapsed()
    }

    /// The head that this frame has, or gets now.
    pub fn head(&self, head: Head, make: impl FnOnce(&Frame) -> Bytes) -> Bytes {
        self.heads[head as usize].get_or_init(|| make(&self.frame)).clone()
    }
}

/// How a session stands for its viewers.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Whether anybody has looked yet: before that, having no frame means nothing.
    pub known: bool,
    /// The newest frame, until it expires.
    pub frame: Option<Arc<LiveFrame>>,
    /// How many frames were shown so far.
    count: u64,
}

/// One viewer of one session. It is one less when this is dropped.
pub struct Viewer {
    shared: Arc<Shared>,
    session: SessionId,
    state: watch::Receiver<State>,
}

impl Viewer {
    /// How the session stands now.
    pub fn state(&mut self) -> State {
        self.state.borrow_and_update().clone()
    }

    /// Waits until that is not so any more.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // Only when the process ends.
            std::future::pending::<()>().await;
        }
    }

    /// The state as it changes, for who watches several sessions.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.leave(&self.session);
    }
}

/// The live side of the [`Hub`](super::Hub).
pub(super) struct Live {
    shared: Arc<Shared>,
    _note: AbortOnDropHandle<()>,
}

struct Shared {
    store: Arc<dyn FrameStore>,
    viewing: Budget,
    gauge: IntGauge,
    max_sessions: usize,
    channels: Mutex<HashMap<SessionId, Watched>>,
    /// Sessions whose number of viewers has changed since the store was last told.
    changed: Mutex<HashSet<SessionId>>,
    wake: Notify,
}

/// A session that somebody watches.
struct Watched {
    channel: Arc<Channel>,
    viewers: usize,
    _follow: AbortOnDropHandle<()>,
}

struct Channel {
    state: watch::Sender<State>,
    /// Pushes to the session that this process has begun and not finished.
    pushing: AtomicUsize,
    /// What replaced frames count against.
    viewing: Budget,
}

/// A push to a session that is watched in this process.
pub(super) struct Pushing(Arc<Channel>);

impl Pushing {
    /// The frame has got its number.
    pub(super) fn done(&self, frame: Frame) {
        self.0.offer(frame, Duration::ZERO);
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.0.pushing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Channel {
    /// The frame is shown unless a newer one is.
    fn offer(&self, frame: Frame, age: Duration) {
        let seq = frame.seq;
        let newer = |held: &State| held.frame.as_ref().is_none_or(|held| held.frame.seq < seq);
        self.show_if(newer, Some((frame, age)));
    }

    /// Shows a frame of this age, or that there is none, if that is right by what is shown.
    fn show_if(&self, right: impl Fn(&State) -> bool, frame: Option<(Frame, Duration)>) {
        let mut old = None;
        self.state.send_if_modified(|state| {
            if !right(state) {
                return false;
            }
            let count = state.count + u64::from(frame.is_some());
            let frame = frame.map(|(frame, age)| {
                let received = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
                let (heads, share) = (Default::default(), Mutex::new(self.viewing.share()));
                Arc::new(LiveFrame { frame, received, place: count, heads, share })
            });
            old = std::mem::replace(state, State { known: true, frame, count }).frame;
            true
        });
        if let Some(old) = old {
            // It may be over the limit by now: then slow viewers are dropped.
            let _ = old.share.lock().grow(old.frame.bytes.len());
        }
    }

    fn seq(&self) -> Option<Seq> {
        self.state.borrow().frame.as_ref().map(|held| held.frame.seq)
    }
}

impl Shared {
    fn note(&self, session: &SessionId) {
        self.changed.lock().insert(session.clone());
        self.wake.notify_one();
    }

    fn leave(&self, session: &SessionId) {
        self.gauge.dec();
        let mut channels = self.channels.lock();
        let last = channels.get_mut(session).is_some_and(|watched| {
            watched.viewers -= 1;
            watched.viewers == 0
        });
        let ended = if last { channels.remove(session) } else { None };
        drop(channels);
        drop(ended);
        self.note(session);
    }

    /// Shows what the store tells of, until it is aborted.
    async fn follow(self: Arc<Self>, session: SessionId, channel: Arc<Channel>) {
        // Listen first, then look: what is pushed in between is not missed.
        let mut notices = loop {
            match self.store.notices(&session).await {
                Ok(notices) => break notices,
                Err(_) => channel.state.send_modify(|state| state.known = true),
            }
            sleep(RETRY_PAUSE).await;
        };
        let mut notice = Notice::Look;
        loop {
            let pause = match self.see(&session, &channel, notice).await {
                Ok(()) => LOOK_INTERVAL,
                Err(_) => {
                    channel.state.send_if_modified(|state| !std::mem::replace(&mut state.known, true));
                    RETRY_PAUSE
                }
            };
            notice = match timeout(pause, notices.next()).await {
                Ok(Some(notice)) => notice,
                Ok(None) => return,
                Err(_) => Notice::Look,
            };
        }
    }

    async fn see(&self, session: &SessionId, channel: &Channel, notice: Notice) -> Result<(), Error> {
        if let Notice::Pushed(seq) = notice {
            let shown = |state: &State| state.frame.as_ref().is_some_and(|held| held.frame.seq >= seq);
            if channel.pushing.load(Ordering::Relaxed) > 0 {
                let _ = timeout(PUSH_PATIENCE, channel.state.subscribe().wait_for(shown)).await;
            }
            if shown(&channel.state.borrow()) {
                return Ok(());
            }
            if let Some(seen) = self.store.get(session, seq).await? {
                channel.offer(seen.frame, seen.age);
                return Ok(());
            }
        }
        let held = channel.seq();
        // What was pushed while the store was being asked is newer than its answer.
        let unchanged = |state: &State| state.frame.as_ref().map(|held| held.frame.seq) == held;
        match self.store.newest(session, held).await? {
            Some(newest) => {
                if let Some(frame) = newest.frame {
                    channel.show_if(unchanged, Some((frame, newest.age)));
                }
            }
            None => {
                let right = |state: &State| unchanged(state) && (held.is_some() || !state.known);
                channel.show_if(right, None);
            }
        }
        Ok(())
    }

    /// Tells the store how many viewers there are, until it is aborted.
    async fn keep_noting(self: Arc<Self>) {
        let mut all_at = Instant::now() + NOTE_INTERVAL;
        loop {
            let _ = timeout_at(all_at, self.wake.notified()).await;
            let all = Instant::now() >= all_at;
            if all {
                all_at = Instant::now() + NOTE_INTERVAL;
            }
            let mut sessions = std::mem::take(&mut *self.changed.lock());
            let viewers: Vec<_> = {
                let channels = self.channels.lock();
                if all {
                    sessions.extend(channels.keys().cloned());
                }
                let count = |session: &SessionId| channels.get(session).map_or(0, |watched| watched.viewers);
                sessions.into_iter().map(|session| (session.clone(), count(&session))).collect()
            };
            if !viewers.is_empty() {
                // Where it fails, the next note makes up for it, and what the store knows does not hold for long.
                let _ = self.store.note_viewers(&viewers).await;
            }
            sleep(NOTE_PAUSE).await;
        }
    }
}

impl Live {
    /// Its tasks run on the current Tokio runtime and on those that viewers come from.
    pub(super) fn new(store: Arc<dyn FrameStore>, viewing: Budget, gauge: IntGauge, max_sessions: usize) -> Self {
        let shared = Arc::new(Shared {
            store,
            viewing,
            gauge,
            max_sessions,
            channels: Mutex::default(),
            changed: Mutex::default(),
            wake: Notify::new(),
        });
        let _note = AbortOnDropHandle::new(tokio::spawn(shared.clone().keep_noting()));
        Self { shared, _note }
    }

    /// One more viewer, unless it watches one more session than there may be: those that do not exist count too.
    pub(super) fn watch(&self, session: &SessionId) -> Result<Viewer, Error> {
        let shared = self.shared.clone();
        let state = {
            let mut channels = shared.channels.lock();
            if channels.len() >= shared.max_sessions && !channels.contains_key(session) {
                return Err(Error::TooManySessions { limit: shared.max_sessions });
            }
            let watched = channels.entry(session.clone()).or_insert_with(|| {
                let (state, _) = watch::channel(State::default());
                let channel =
                    Arc::new(Channel { state, pushing: AtomicUsize::new(0), viewing: shared.viewing.clone() });
                let follow = tokio::spawn(shared.clone().follow(session.clone(), channel.clone()));
                Watched { channel, viewers: 0, _follow: AbortOnDropHandle::new(follow) }
            });
            watched.viewers += 1;
            watched.channel.state.subscribe()
        };
        shared.gauge.inc();
        shared.note(session);
        Ok(Viewer { shared, session: session.clone(), state })
    }

    /// A push begins, if somebody watches.
    pub(super) fn begin_push(&self, session: &SessionId) -> Option<Pushing> {
        let channel = self.shared.channels.lock().get(session)?.channel.clone();
        channel.pushing.fetch_add(1, Ordering::Relaxed);
        Some(Pushing(channel))
    }
}
