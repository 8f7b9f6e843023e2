//! The embedded store: frames in this process, gone when it ends. The default.
//!
//! One mutex guards everything; what happens under it is a few map operations, and no frame is copied or freed there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    FrameStore, Listeners, Newest, Next, Notice, Notices, Pushed, RATE_LIFE, RATE_SAMPLE, Seen, SessionStats,
    StoreLimits, TAKEN_GRACE, Taken,
};
use crate::{
    error::Error,
    frame::{Frame, NewFrame, Seq, Timestamp},
    session::SessionId,
};

/// Bytes that a queued frame costs besides its picture: its places in the queue and in the order of expiry and the
/// allocator's rounding. Measured with 3-byte frames and rounded up.
const FRAME_OVERHEAD: usize = 320;
/// Bytes that a session costs besides its frames and its id, measured likewise.
const SESSION_OVERHEAD: usize = 640;
/// Places that an empty queue may keep: [`SESSION_OVERHEAD`] counts them.
const MAX_SPARE_PLACES: usize = 4;
/// How often memory is freed in sessions that nobody touches.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// See the [module](self).
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    listeners: Listeners,
    limits: StoreLimits,
    max_memory: usize,
    expired: AtomicU64,
}

/// When each spent frame is let go, of which session, and its number.
type SpentEnds = VecDeque<(Instant, SessionId, Seq)>;

/// When something ends, and a number that makes equal instants different and keeps their order.
type Deadline = (Instant, u64);

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    /// The session of every frame that is not spent, by the frame's end, soonest first: the one order for expiry and for
    /// making room. Frames of a session end in their order, so an entry always means the oldest one there.
    frame_ends: BTreeMap<Deadline, SessionId>,
    /// Every spent frame by when it is let go, soonest first. Some may be gone already, with their session.
    spent_ends: SpentEnds,
    /// Every session by its end or by an instant before that: a push moves the end, not the entry.
    session_ends: BTreeMap<Deadline, SessionId>,
    next_tie: u64,
    /// Bytes held for frames, bookkeeping included.
    used_by_frames: usize,
    /// Bytes held for sessions without their frames.
    used_by_sessions: usize,
    /// The highest number that a session which is gone ever gave, so that none goes back.
    highest_gone: Option<Seq>,
    /// Viewers of each session that has any.
    viewers: HashMap<SessionId, usize>,
}

/// A session's frames, oldest first: those that are spent, then either the newest alone, taken too, or the queue.
struct Session {
    first: Seq,
    last: Seq,
    /// Taken, and not the newest: they are let go [`TAKEN_GRACE`] after they became so.
    spent: VecDeque<Held>,
    /// The newest, if it was taken.
    kept: Option<Held>,
    queue: VecDeque<Held>,
    ends: Instant,
    /// Its key in `session_ends`.
    deadline: Deadline,
    rate: Rate,
}

/// Two earlier pushes, at least [`RATE_SAMPLE`] apart as a rule, and the time of the latest.
struct Rate {
    older: (Seq, Instant),
    newer: (Seq, Instant),
    latest: Instant,
}

impl Rate {
    fn begin(seq: Seq, now: Instant) -> Self {
        Self { older: (seq, now), newer: (seq, now), latest: now }
    }

    fn pushed(&mut self, seq: Seq, now: Instant) {
        if now.duration_since(self.latest) >= RATE_LIFE {
            *self = Self::begin(seq, now);
            return;
        }
        self.latest = now;
        if now.duration_since(self.newer.1) >= RATE_SAMPLE {
            self.older = self.newer;
            self.newer = (seq, now);
        }
    }

    /// Frames a second.
    fn fps(&self, last: Seq, now: Instant) -> f64 {
        let seconds = self.latest.duration_since(self.older.1).as_secs_f64();
        if seconds == 0.0 || now.duration_since(self.latest) >= RATE_LIFE {
            return 0.0;
        }
        last.0.saturating_sub(self.older.0.0) as f64 / seconds
    }
}

struct Held {
    frame: Frame,
    received: Instant,
    /// Its key in `frame_ends`.
    deadline: Deadline,
}

impl Held {
    fn cost(&self) -> usize {
        self.frame.bytes.len() + FRAME_OVERHEAD
    }
}

impl Session {
    /// The newest frame, taken or not.
    fn newest(&self) -> Option<&Held> {
        self.queue.back().or(self.kept.as_ref())
    }

    /// A frame that was taken is not the newest any more.
    fn spend(&mut self, id: &SessionId, held: Held, now: Instant, spent_ends: &mut SpentEnds) {
        spent_ends.push_back((now + TAKEN_GRACE, id.clone(), held.frame.seq));
        self.spent.push_back(held);
    }

    /// The first frame after a number.
    fn after(&self, seq: Seq) -> Option<&Held> {
        let first_of = |frames: &VecDeque<Held>| frames.partition_point(|held| held.frame.seq <= seq);
        self.spent
            .get(first_of(&self.spent))
            .or(self.kept.as_ref().filter(|kept| kept.frame.seq > seq))
            .or_else(|| self.queue.get(first_of(&self.queue)))
    }
}

/// Takes the oldest one off. What a backlog has left behind is given back: it counts for nothing in MAX_MEMORY.
fn pop_front<T>(places: &mut VecDeque<T>) -> Option<T> {
    let first = places.pop_front()?;
    if places.capacity() > MAX_SPARE_PLACES && places.len() < places.capacity() / 4 {
        places.shrink_to(places.capacity() / 2);
    }
    Some(first)
}

fn session_cost(session: &SessionId) -> usize {
    session.as_str().len() + SESSION_OVERHEAD
}

/// Frames that were let go, to be freed outside the lock.
#[derive(Default)]
struct LetGo {
    frames: Vec<Held>,
    /// How many of them nobody had taken.
    untaken: usize,
}

impl State {
    fn deadline(&mut self, at: Instant) -> Deadline {
        self.next_tie += 1;
        (at, self.next_tie)
    }

    /// Removes what has ended.
    fn expire(&mut self, now: Instant) -> LetGo {
        let mut gone = LetGo::default();
        while self.spent_ends.front().is_some_and(|(ends, ..)| *ends <= now) {
            self.drop_spent(&mut gone);
        }
        while let Some(id) = first_before(&self.frame_ends, now) {
            self.drop_oldest(&id, &mut gone);
        }
        while let Some(entry) = self.session_ends.first_entry().filter(|entry| entry.key().0 <= now) {
            let id = entry.remove();
            let Some(ends) = self.sessions.get(&id).map(|session| session.ends) else { continue };
            if ends <= now {
                self.forget(&id, &mut gone);
                continue;
            }
            let deadline = self.deadline(ends);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.deadline = deadline;
            }
            self.session_ends.insert(deadline, id);
        }
        gone
    }

    /// Takes the oldest frame off the session's queue, and tells how many are left. It can be read for a while yet.
    fn take(&mut self, id: &SessionId, now: Instant) -> Option<(Frame, usize)> {
        let Self { sessions, frame_ends, spent_ends, .. } = self;
        let session = sessions.get_mut(id)?;
        let held = pop_front(&mut session.queue)?;
        let frame = held.frame.clone();
        if session.queue.is_empty() {
            session.kept = Some(held);
        } else {
            frame_ends.remove(&held.deadline);
            session.spend(id, held, now, spent_ends);
        }
        Some((frame, session.queue.len()))
    }

    /// Lets go of the frame that was spent first.
    fn drop_spent(&mut self, gone: &mut LetGo) {
        let Some((_, id, seq)) = pop_front(&mut self.spent_ends) else { return };
        let spent = self.sessions.get_mut(&id).map(|session| &mut session.spent);
        let first = spent.filter(|spent| spent.front().is_some_and(|held| held.frame.seq == seq)).and_then(pop_front);
        self.let_go(first, gone);
    }

    /// Lets go of the session's oldest frame that is not spent.
    fn drop_oldest(&mut self, id: &SessionId, gone: &mut LetGo) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let held = match session.kept.take() {
            Some(kept) => kept,
            None => {
                let Some(held) = pop_front(&mut session.queue) else { return };
                gone.untaken += 1;
                held
            }
        };
        self.frame_ends.remove(&held.deadline);
        self.let_go(Some(held), gone);
    }

    fn let_go(&mut self, held: Option<Held>, gone: &mut LetGo) {
        self.used_by_frames -= held.as_ref().map_or(0, Held::cost);
        gone.frames.extend(held);
    }

    /// Removes a session.
    fn forget(&mut self, id: &SessionId, gone: &mut LetGo) {
        while self.sessions.get(id).is_some_and(|session| session.newest().is_some()) {
            self.drop_oldest(id, gone);
        }
        if let Some(mut session) = self.sessions.remove(id) {
            for held in session.spent.drain(..) {
                self.let_go(Some(held), gone);
            }
            self.session_ends.remove(&session.deadline);
            self.used_by_sessions -= session_cost(id);
            self.highest_gone = self.highest_gone.max(Some(session.last));
        }
    }

    /// Checks everything that can refuse a push before anything is changed, then makes room for it: first in its own
    /// queue, then by letting go of what is spent, then of the oldest frames of any session.
    fn make_room(
        &mut self,
        id: &SessionId,
        size: usize,
        limits: &StoreLimits,
        max_memory: usize,
    ) -> Result<LetGo, Error> {
        let is_new = !self.sessions.contains_key(id);
        if is_new && self.sessions.len() >= limits.max_sessions {
            return Err(Error::TooManySessions { limit: limits.max_sessions });
        }
        let cost = size + FRAME_OVERHEAD + if is_new { session_cost(id) } else { 0 };
        if self.used_by_sessions + cost > max_memory {
            return Err(Error::StoreFull(
                "the picture and the sessions do not fit into MAX_MEMORY together; raise it, or use Redis",
            ));
        }
        let mut gone = LetGo::default();
        while self.sessions.get(id).is_some_and(|session| session.queue.len() >= limits.max_queue) {
            self.drop_oldest(id, &mut gone);
        }
        while self.used_by_sessions + self.used_by_frames + cost > max_memory {
            if !self.spent_ends.is_empty() {
                self.drop_spent(&mut gone);
                continue;
            }
            let Some(oldest) = self.frame_ends.values().next().cloned() else { break };
            self.drop_oldest(&oldest, &mut gone);
        }
        Ok(gone)
    }

    /// Appends a frame that there is room for.
    fn append(&mut self, id: &SessionId, new: NewFrame, now: Instant, ends: Instant) -> (Seq, usize) {
        let deadline = self.deadline(ends);
        let session = match self.sessions.entry(id.clone()) {
            Entry::Occupied(entry) => {
                let session = entry.into_mut();
                session.last = session.last.next();
                session.rate.pushed(session.last, now);
                session
            }
            Entry::Vacant(entry) => {
                self.used_by_sessions += session_cost(id);
                self.session_ends.insert(deadline, id.clone());
                let first = Some(Seq::before_first()).max(self.highest_gone).unwrap_or_else(Seq::before_first).next();
                entry.insert(Session {
                    first,
                    last: first,
                    spent: VecDeque::new(),
                    kept: None,
                    queue: VecDeque::new(),
                    ends,
                    deadline,
                    rate: Rate::begin(first, now),
                })
            }
        };
        session.ends = ends;
        let received = Timestamp::now();
        let frame = Frame {
            seq: session.last,
            kind: new.kind,
            captured: new.captured.unwrap_or(received),
            received,
            bytes: new.bytes,
        };
        let held = Held { frame, received: now, deadline };
        self.used_by_frames += held.cost();
        self.frame_ends.insert(deadline, id.clone());
        session.queue.push_back(held);
        if let Some(kept) = session.kept.take() {
            self.frame_ends.remove(&kept.deadline);
            session.spend(id, kept, now, &mut self.spent_ends);
        }
        (session.last, session.queue.len())
    }

    fn queued(&self, id: &SessionId) -> usize {
        self.sessions.get(id).map_or(0, |session| session.queue.len())
    }

    fn viewers(&self, id: &SessionId) -> usize {
        self.viewers.get(id).copied().unwrap_or(0)
    }
}

fn first_before(ends: &BTreeMap<Deadline, SessionId>, now: Instant) -> Option<SessionId> {
    ends.first_key_value().filter(|(deadline, _)| deadline.0 <= now).map(|(_, id)| id.clone())
}

impl Shared {
    /// Does something under the lock, on a state from which everything that has ended is gone. What that freed, and
    /// what the work hands out, is dropped after the lock is released.
    fn with<T>(&self, work: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock();
        // The clock is read under the lock, so that frames end in the order in which they were appended.
        let now = Instant::now();
        let ended = state.expire(now);
        let result = work(&mut state, now);
        drop(state);
        self.expired.fetch_add(ended.untaken as u64, Ordering::Relaxed);
        drop(ended);
        result
    }

    fn sweep(&self) {
        self.with(|_, _| ());
        self.listeners.listened_to();
    }
}

impl MemoryStore {
    /// An empty store that holds at most `max_memory` bytes, bookkeeping counted. Its sweeper runs on the current
    /// Tokio runtime and ends with the store.
    #[must_use]
    pub fn new(limits: StoreLimits, max_memory: usize) -> Self {
        let (state, listeners, expired) = (Mutex::default(), Listeners::default(), AtomicU64::default());
        let shared = Arc::new(Shared { state, listeners, limits, max_memory, expired });
        tokio::spawn(sweep_until_dropped(Arc::downgrade(&shared)));
        Self { shared }
    }
}

async fn sweep_until_dropped(shared: Weak<Shared>) {
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.sweep();
    }
}

#[async_trait]
impl FrameStore for MemoryStore {
    async fn push(&self, session: &SessionId, frame: NewFrame) -> Result<Pushed, Error> {
        let Shared { limits, max_memory, listeners, .. } = &*self.shared;
        let (pushed, gone) = self.shared.with(|state, now| {
            let gone = state.make_room(session, frame.bytes.len(), limits, *max_memory)?;
            let (seq, queued) = state.append(session, frame, now, now + limits.ttl);
            Ok((Pushed { seq, queued, dropped: gone.untaken, viewers: state.viewers(session) }, gone))
        })?;
        drop(gone);
        listeners.tell(session, Notice::Pushed(pushed.seq));
        Ok(pushed)
    }

    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error> {
        Ok(self.shared.with(|state, now| {
            let (frame, left) = state.take(session, now)?;
            Some(Taken { frame, left })
        }))
    }

    async fn newest(&self, session: &SessionId, known: Option<Seq>) -> Result<Option<Newest>, Error> {
        Ok(self.shared.with(|state, now| {
            let Held { frame, received, .. } = state.sessions.get(session)?.newest()?;
            let unknown = known != Some(frame.seq);
            Some(Newest {
                seq: frame.seq,
                received: frame.received,
                age: now.duration_since(*received),
                frame: unknown.then(|| frame.clone()),
            })
        }))
    }

    async fn get(&self, session: &SessionId, seq: Seq) -> Result<Option<Seen>, Error> {
        Ok(self.shared.with(|state, now| {
            let held = state.sessions.get(session)?.after(Seq(seq.0.checked_sub(1)?))?;
            let seen = || Seen { frame: held.frame.clone(), age: now.duration_since(held.received) };
            (held.frame.seq == seq).then(seen)
        }))
    }

    async fn after(&self, session: &SessionId, seq: Seq) -> Result<Option<Next>, Error> {
        Ok(self.shared.with(|state, _| {
            let session = state.sessions.get(session)?;
            let frame = session.after(seq)?.frame.clone();
            Some(Next { missed: frame.seq.0.saturating_sub(session.first.0.max(seq.0.saturating_add(1))), frame })
        }))
    }

    async fn queued(&self, session: &SessionId) -> Result<usize, Error> {
        Ok(self.shared.with(|state, _| state.queued(session)))
    }

    async fn stats(&self) -> Result<Vec<SessionStats>, Error> {
        let mut stats: Vec<_> = self.shared.with(|state, now| {
            let one = |(id, session): (&SessionId, &Session)| SessionStats {
                session: id.clone(),
                queued: session.queue.len(),
                seq: session.last,
                age: now.duration_since(session.rate.latest),
                fps: session.rate.fps(session.last, now),
                viewers: state.viewers(id),
            };
            state.sessions.iter().map(one).collect()
        });
        stats.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        Ok(stats)
    }

    async fn remove(&self, session: &SessionId) -> Result<(), Error> {
        let gone = self.shared.with(|state, _| {
            let mut gone = LetGo::default();
            state.forget(session, &mut gone);
            gone
        });
        drop(gone);
        self.shared.listeners.tell(session, Notice::Look);
        Ok(())
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        Ok(self.shared.listeners.listen(session))
    }

    async fn note_viewers(&self, viewers: &[(SessionId, usize)]) -> Result<(), Error> {
        self.shared.with(|state, _| {
            for (session, count) in viewers {
                match count {
                    0 => drop(state.viewers.remove(session)),
                    _ => drop(state.viewers.insert(session.clone(), *count)),
                }
            }
        });
        Ok(())
    }

    async fn sessions(&self) -> Result<usize, Error> {
        Ok(self.shared.with(|state, _| state.sessions.len()))
    }

    fn expired(&self) -> u64 {
        self.shared.expired.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ImageType;

    #[test]
    fn a_backlog_leaves_no_room_behind_that_nobody_counts() {
        let mut state = State::default();
        let session: SessionId = "a".parse().unwrap();
        let now = Instant::now();
        let ends = now + Duration::from_secs(60);
        for _ in 0..10_000 {
            state.append(&session, NewFrame { bytes: "x".into(), kind: ImageType::Jpeg, captured: None }, now, ends);
        }
        while state.take(&session, now).is_some() {}
        assert!(state.sessions[&session].queue.capacity() <= MAX_SPARE_PLACES);
        drop(state.expire(now + TAKEN_GRACE));
        assert!(state.sessions[&session].spent.capacity() <= MAX_SPARE_PLACES);
        assert_eq!(state.used_by_frames, FRAME_OVERHEAD + 1, "the newest is kept");
        drop(state.expire(ends));
        assert_eq!((state.used_by_frames, state.used_by_sessions), (0, 0));
    }
}
