//! The embedded store: frames in this process, gone when it ends. The default.
//!
//! One mutex guards everything; what happens under it is a few map operations, and no frame is copied or freed there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{FrameStore, Listeners, Notices, Pushed, SessionStats, StoreLimits, Taken};
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
}

/// When something ends, and a number that makes equal instants different and keeps their order.
type Deadline = (Instant, u64);

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    /// Every queued frame's session by the frame's end, soonest first: the one order for expiry and for making room.
    /// Frames of a session end in the order of its queue, so an entry always means the oldest one there.
    frame_ends: BTreeMap<Deadline, SessionId>,
    /// Every session by its end or by an instant before that: a push moves the end, not the entry.
    session_ends: BTreeMap<Deadline, SessionId>,
    next_tie: u64,
    /// Bytes held for frames, bookkeeping included.
    used_by_frames: usize,
    /// Bytes held for sessions without their frames.
    used_by_sessions: usize,
    /// The highest number that a session which is gone ever gave, so that none goes back.
    highest_gone: Option<Seq>,
}

struct Session {
    last: Seq,
    queue: VecDeque<Held>,
    ends: Instant,
    /// Its key in `session_ends`.
    deadline: Deadline,
}

struct Held {
    frame: Frame,
    /// Its key in `frame_ends`.
    deadline: Deadline,
}

impl Held {
    fn cost(&self) -> usize {
        self.frame.bytes.len() + FRAME_OVERHEAD
    }
}

fn session_cost(session: &SessionId) -> usize {
    session.as_str().len() + SESSION_OVERHEAD
}

impl State {
    fn deadline(&mut self, at: Instant) -> Deadline {
        self.next_tie += 1;
        (at, self.next_tie)
    }

    /// Removes what has ended. The pictures are handed back to be freed outside the lock.
    fn expire(&mut self, now: Instant) -> Vec<Frame> {
        let mut freed = Vec::new();
        while let Some(id) = first_before(&self.frame_ends, now) {
            freed.extend(self.pop(&id));
        }
        while let Some(entry) = self.session_ends.first_entry().filter(|entry| entry.key().0 <= now) {
            let id = entry.remove();
            let Some(ends) = self.sessions.get(&id).map(|session| session.ends) else { continue };
            if ends <= now {
                self.forget(&id);
                continue;
            }
            let deadline = self.deadline(ends);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.deadline = deadline;
            }
            self.session_ends.insert(deadline, id);
        }
        freed
    }

    /// Takes the oldest frame off the session's queue.
    fn pop(&mut self, id: &SessionId) -> Option<Frame> {
        let queue = &mut self.sessions.get_mut(id)?.queue;
        let held = queue.pop_front()?;
        // What a backlog has left behind is given back: it counts for nothing in MAX_MEMORY.
        if queue.capacity() > MAX_SPARE_PLACES && queue.len() < queue.capacity() / 4 {
            queue.shrink_to(queue.capacity() / 2);
        }
        self.used_by_frames -= held.cost();
        self.frame_ends.remove(&held.deadline);
        Some(held.frame)
    }

    /// Removes a session whose queue is empty.
    fn forget(&mut self, id: &SessionId) {
        if let Some(session) = self.sessions.remove(id) {
            self.session_ends.remove(&session.deadline);
            self.used_by_sessions -= session_cost(id);
            self.highest_gone = self.highest_gone.max(Some(session.last));
        }
    }

    /// Checks everything that can refuse a push before anything is changed, then makes room for it: first in its own
    /// queue, then by dropping the oldest frames of any session.
    fn make_room(
        &mut self,
        id: &SessionId,
        size: usize,
        limits: &StoreLimits,
        max_memory: usize,
    ) -> Result<Vec<Frame>, Error> {
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
        let mut dropped = Vec::new();
        while self.sessions.get(id).is_some_and(|session| session.queue.len() >= limits.max_queue) {
            dropped.extend(self.pop(id));
        }
        while self.used_by_sessions + self.used_by_frames + cost > max_memory {
            let Some(oldest) = self.frame_ends.values().next().cloned() else { break };
            dropped.extend(self.pop(&oldest));
        }
        Ok(dropped)
    }

    /// Appends a frame that there is room for.
    fn append(&mut self, id: &SessionId, new: NewFrame, ends: Instant) -> (Seq, usize) {
        let deadline = self.deadline(ends);
        let session = match self.sessions.entry(id.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.used_by_sessions += session_cost(id);
                self.session_ends.insert(deadline, id.clone());
                let last = Some(Seq::before_first()).max(self.highest_gone).unwrap_or_else(Seq::before_first);
                entry.insert(Session { last, queue: VecDeque::new(), ends, deadline })
            }
        };
        session.ends = ends;
        session.last = session.last.next();
        let frame = Frame {
            seq: session.last,
            kind: new.kind,
            captured: new.captured.unwrap_or_else(Timestamp::now),
            bytes: new.bytes,
        };
        let held = Held { frame, deadline };
        self.used_by_frames += held.cost();
        self.frame_ends.insert(deadline, id.clone());
        session.queue.push_back(held);
        (session.last, session.queue.len())
    }

    fn queued(&self, id: &SessionId) -> usize {
        self.sessions.get(id).map_or(0, |session| session.queue.len())
    }
}

fn first_before(ends: &BTreeMap<Deadline, SessionId>, now: Instant) -> Option<SessionId> {
    ends.first_key_value().filter(|(deadline, _)| deadline.0 <= now).map(|(_, id)| id.clone())
}

impl Shared {
    /// Does something under the lock, on a state from which everything that has ended is gone. What that freed, and
    /// what the work hands out, is dropped after the lock is released.
    fn with<T>(&self, work: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock is read under the lock, so that frames end in the order in which they were appended.
        let now = Instant::now();
        let ended = state.expire(now);
        let result = work(&mut state, now);
        drop(state);
        drop(ended);
        result
    }

    fn sweep(&self) {
        self.with(|_, _| ());
        self.listeners.forget_idle();
    }
}

impl MemoryStore {
    /// An empty store that holds at most `max_memory` bytes, bookkeeping counted. Its sweeper runs on the current
    /// Tokio runtime and ends with the store.
    #[must_use]
    pub fn new(limits: StoreLimits, max_memory: usize) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), listeners: Listeners::default(), limits, max_memory });
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
        let (pushed, freed) = self.shared.with(|state, now| {
            let dropped = state.make_room(session, frame.bytes.len(), limits, *max_memory)?;
            let (seq, queued) = state.append(session, frame, now + limits.ttl);
            Ok((Pushed { seq, queued, dropped: dropped.len() }, dropped))
        })?;
        drop(freed);
        listeners.tell(session);
        Ok(pushed)
    }

    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error> {
        Ok(self.shared.with(|state, _| {
            let frame = state.pop(session)?;
            Some(Taken { frame, left: state.queued(session) })
        }))
    }

    async fn queued(&self, session: &SessionId) -> Result<usize, Error> {
        Ok(self.shared.with(|state, _| state.queued(session)))
    }

    async fn stats(&self) -> Result<Vec<SessionStats>, Error> {
        let mut stats: Vec<_> = self.shared.with(|state, _| {
            let one = |(id, session): (&SessionId, &Session)| SessionStats {
                session: id.clone(),
                queued: session.queue.len(),
            };
            state.sessions.iter().map(one).collect()
        });
        stats.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        Ok(stats)
    }

    async fn remove(&self, session: &SessionId) -> Result<(), Error> {
        let freed = self.shared.with(|state, _| {
            let freed: Vec<_> = std::iter::from_fn(|| state.pop(session)).collect();
            state.forget(session);
            freed
        });
        drop(freed);
        Ok(())
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        Ok(self.shared.listeners.listen(session))
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
        let ends = Instant::now() + Duration::from_secs(60);
        for _ in 0..10_000 {
            state.append(&session, NewFrame { bytes: "x".into(), kind: ImageType::Jpeg, captured: None }, ends);
        }
        while state.pop(&session).is_some() {}
        assert!(state.sessions[&session].queue.capacity() <= MAX_SPARE_PLACES);
        assert_eq!(state.used_by_frames, 0);
    }
}
