//! The index of sessions: who may exist. Whether a session does exist, its own counter tells.
//!
//! An entry is written before a session's first push and then at most once in [`REFRESH`], with a score that is later
//! than the session's end by [`SLACK`]. So the index may for a moment list a session that has ended; it lacks one only
//! where it was removed in the midst of a push and Redis then failed, until the next push.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Script;

use super::{
    keys::{INDEX_SHARDS, Keys, index_shard},
    lanes::Call,
};
use crate::{error::Error, session::SessionId, store::StoreLimits};

/// How long an entry is taken to be fresh enough after it was written.
const REFRESH: Duration = Duration::from_secs(1);
/// How much later than the session an entry ends: [`REFRESH`] and as much again for slow commands.
const SLACK: Duration = Duration::from_secs(2);
/// Sessions whose counters are asked for in one round trip.
pub(super) const BATCH: usize = 512;

pub(super) struct Index {
    script: Script,
    limits: StoreLimits,
    /// When this process last wrote a session's entry, and how many connections had been lost by then: a Redis that
    /// was away may have come back empty.
    written: Mutex<HashMap<SessionId, Written>>,
    /// New sessions are admitted side by side while there is room for all of them; where it gets tight, one at a time,
    /// so that those of this process cannot slip past the limit together.
    admission: tokio::sync::RwLock<()>,
    /// How many are being admitted side by side.
    tickets: AtomicUsize,
}

/// The place of one session among those being admitted.
struct Ticket<'a>(&'a AtomicUsize);

impl<'a> Ticket<'a> {
    /// Tells how many are out, this one included.
    fn draw(tickets: &'a AtomicUsize) -> (Self, usize) {
        let before = tickets.fetch_add(1, Ordering::SeqCst);
        (Self(tickets), before + 1)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy)]
struct Written {
    at: Instant,
    losses: u64,
}

impl Index {
    pub(super) fn new(script: Script, limits: StoreLimits) -> Self {
        Self {
            script,
            limits,
            written: Mutex::default(),
            admission: tokio::sync::RwLock::default(),
            tickets: AtomicUsize::new(0),
        }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<SessionId, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the session is listed before a frame of it is pushed.
    pub(super) async fn announce(&self, call: &Call<'_>, session: &SessionId) -> Result<(), Error> {
        let written = self.written().get(session).copied();
        match written.map(|written| (written.at.elapsed(), written.losses == call.losses())) {
            Some((age, true)) if age < REFRESH => Ok(()),
            Some((age, _)) if age < self.limits.ttl && self.write(call, session, "renew").await? => Ok(()),
            _ => self.admit(call, session).await,
        }
    }

    /// Lists a session whatever the limit: a frame of it has been pushed. It may have been removed since it was
    /// announced. Where this fails, the next push announces it again.
    pub(super) async fn relist(&self, call: &Call<'_>, session: &SessionId) {
        if self.write(call, session, "add").await.is_err() {
            self.written().remove(session);
        }
    }

    /// Writes the session's entry. Tells whether it is listed now.
    async fn write(&self, call: &Call<'_>, session: &SessionId, verb: &str) -> Result<bool, Error> {
        let losses = call.losses();
        let shard = Keys(session).index_shard();
        let life = (self.limits.ttl + SLACK).as_millis() as u64;
        let listed = call
            .run(|attempt| {
                let mut write = redis::cmd("EVALSHA");
                write.arg(self.script.get_hash()).arg(1).arg(&shard).arg(verb).arg(session.as_str()).arg(life);
                write.arg(attempt.latest());
                async move { attempt.command::<bool>(&write).await }
            })
            .await?;
        if listed {
            let mut written = self.written();
            // Entries of sessions that have ended are of no use; they are thrown out when they may be the half.
            if written.len() >= 2 * self.limits.max_sessions.min(100_000) {
                written.retain(|_, entry| entry.at.elapsed() < self.limits.ttl);
            }
            written.insert(session.clone(), Written { at: Instant::now(), losses });
        }
        Ok(listed)
    }

    /// Lists a session unless it is one too many. Between replicas the limit may be overstepped by one for each.
    async fn admit(&self, call: &Call<'_>, session: &SessionId) -> Result<(), Error> {
        // One that is listed already, by another replica or before this process began, need not queue with new ones.
        if self.write(call, session, "renew").await? {
            return Ok(());
        }
        let max = self.limits.max_sessions;
        let sessions = {
            let _shared = call.wait(self.admission.read()).await?;
            let (_ticket, together) = Ticket::draw(&self.tickets);
            let sessions = self.count(call).await?;
            // Whoever drew a ticket before is among `together` or has been counted, perhaps both.
            if sessions + together <= max {
                return self.write(call, session, "add").await.map(drop);
            }
            sessions
        };
        let full = || Error::TooManySessions { limit: max };
        // Where many are refused, not each of them gets to look closely.
        let _alone =
            call.wait(self.admission.write()).await.map_err(|late| if sessions < max { late } else { full() })?;
        if self.count(call).await? >= max && !(self.throw_out_ended(call).await? && self.count(call).await? < max) {
            // Another push may have listed it meanwhile.
            return if self.write(call, session, "renew").await? { Ok(()) } else { Err(full()) };
        }
        self.write(call, session, "add").await.map(drop)
    }

    /// Some sessions that are counted may have ended within the slack. Tells whether there were any.
    async fn throw_out_ended(&self, call: &Call<'_>) -> Result<bool, Error> {
        let ending: Vec<SessionId> = self.sessions(call, &["ending", &SLACK.as_millis().to_string()]).await?;
        let mut gone = redis::pipe();
        for batch in ending.chunks(BATCH) {
            let exist = call
                .run(|attempt| {
                    let mut pipeline = redis::pipe();
                    for session in batch {
                        pipeline.cmd("EXISTS").arg(Keys(session).counter());
                    }
                    async move { attempt.pipeline::<bool>(&mut pipeline).await }
                })
                .await?;
            for (session, _) in batch.iter().zip(exist).filter(|(_, exists)| !exists) {
                gone.cmd("ZREM").arg(Keys(session).index_shard()).arg(session.as_str());
            }
        }
        if gone.is_empty() {
            return Ok(false);
        }
        call.run(|attempt| {
            let mut gone = gone.clone();
            async move { attempt.pipeline::<i64>(&mut gone).await }
        })
        .await?;
        Ok(true)
    }

    /// How many sessions are listed.
    async fn count(&self, call: &Call<'_>) -> Result<usize, Error> {
        let sizes = call
            .run(|attempt| {
                let mut pipeline = redis::pipe();
                self.ask_shards(&mut pipeline, &["size"]);
                async move { attempt.pipeline::<usize>(&mut pipeline).await }
            })
            .await?;
        Ok(sizes.into_iter().sum())
    }

    /// The sessions that may exist.
    pub(super) async fn candidates(&self, call: &Call<'_>) -> Result<Vec<SessionId>, Error> {
        self.sessions(call, &["list"]).await
    }

    async fn sessions(&self, call: &Call<'_>, question: &[&str]) -> Result<Vec<SessionId>, Error> {
        let shards = call
            .run(|attempt| {
                let mut pipeline = redis::pipe();
                self.ask_shards(&mut pipeline, question);
                async move { attempt.pipeline::<Vec<String>>(&mut pipeline).await }
            })
            .await?;
        Ok(shards.into_iter().flatten().filter_map(|id| id.parse().ok()).collect())
    }

    fn ask_shards(&self, pipeline: &mut redis::Pipeline, question: &[&str]) {
        for shard in 0..INDEX_SHARDS {
            pipeline.cmd("EVALSHA").arg(self.script.get_hash()).arg(1).arg(index_shard(shard)).arg(question);
        }
    }

    /// Takes the session off the index. A push that comes later through any replica sees that it begins a session and
    /// lists it again.
    pub(super) async fn forget(&self, call: &Call<'_>, session: &SessionId) -> Result<(), Error> {
        self.written().remove(session);
        let mut remove = redis::cmd("ZREM");
        remove.arg(Keys(session).index_shard()).arg(session.as_str());
        let remove = &remove;
        call.run(|attempt| async move { attempt.command::<i64>(remove).await }).await.map(drop)
    }
}
