//! The index of sessions: who may exist. Whether a session does exist, its own counter tells.
//!
//! A session is listed before its first push, provisionally: an entry whose push fails is soon gone. The push then
//! confirms it. From then on the entry is written before a push, at most once in [`REFRESH`], with a score that is later
//! than the session's end by [`SLACK`]. So the index may for a moment list a session that has ended. It lacks one only
//! where Redis failed between a push and its confirmation, or in the midst of a removal, until the next push.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Script};

use super::{
    keys::{INDEX_SHARDS, Keys, index_shard},
    lanes::Call,
};
use crate::{error::Error, session::SessionId, store::StoreLimits};

/// How long an entry is taken to be fresh enough after it was written.
const REFRESH: Duration = Duration::from_secs(1);
/// How much later than the session an entry ends: [`REFRESH`] and as much again for slow commands.
const SLACK: Duration = Duration::from_secs(2);
/// How long an entry lives that no push has confirmed: the longest call, and [`SLACK`], so that those who look for
/// sessions that have ended do not take it for one.
const PROVISIONAL: Duration = Duration::from_secs(3);
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

impl Written {
    /// To be asked for before the entry is sent: Redis counts its life from when it comes.
    fn now(call: &Call<'_>) -> Self {
        Self { at: Instant::now(), losses: call.losses() }
    }
}

/// How a session is listed when a frame of it is about to be pushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// For as long as the session lives.
    Confirmed,
    /// For [`PROVISIONAL`]: the push is to confirm it.
    Provisional,
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

    /// Sees to it that the session is listed before a frame of it is pushed.
    pub(super) async fn announce(&self, call: &Call<'_>, session: &SessionId) -> Result<Entry, Error> {
        let written = self.written.lock().get(session).copied();
        match written {
            Some(Written { at, losses }) if at.elapsed() < REFRESH && losses == call.losses() => Ok(Entry::Confirmed),
            _ => self.admit(call, session).await,
        }
    }

    /// Lists a session for its whole life, whatever the limit: a frame of it has been pushed. It may be new, or have been
    /// removed since it was announced. Where this fails, the next push announces it again.
    pub(super) async fn confirm(&self, call: &Call<'_>, session: &SessionId) {
        let written = Written::now(call);
        match self.add(call, session, self.life()).await {
            Ok(()) => self.remember(session, written),
            Err(_) => drop(self.written.lock().remove(session)),
        }
    }

    fn life(&self) -> Duration {
        self.limits.ttl + SLACK
    }

    fn remember(&self, session: &SessionId, entry: Written) {
        let mut written = self.written.lock();
        // Older entries spare nobody a round trip; they are thrown out when they may be the half.
        if written.len() >= 2 * self.limits.max_sessions.min(100_000) {
            written.retain(|_, entry| entry.at.elapsed() < REFRESH);
        }
        written.insert(session.clone(), entry);
    }

    /// One change to the session's entry, unless it comes too late.
    async fn write(&self, call: &Call<'_>, session: &SessionId, verb: &str, more: &[&str]) -> Result<u8, Error> {
        let shard = Keys(session).index_shard();
        call.run(|attempt| {
            let mut write = self.command(&shard, &[verb, session.as_str(), &attempt.latest()]);
            write.arg(more);
            async move { attempt.command(&write).await }
        })
        .await
    }

    /// Renews the entry, if there is one.
    async fn renew(&self, call: &Call<'_>, session: &SessionId) -> Result<Option<Entry>, Error> {
        let [life, provisional] = [self.life(), PROVISIONAL].map(|life| life.as_millis().to_string());
        let written = Written::now(call);
        match self.write(call, session, "renew", &[&life, &provisional]).await? {
            0 => Ok(None),
            1 => {
                self.remember(session, written);
                Ok(Some(Entry::Confirmed))
            }
            _ => Ok(Some(Entry::Provisional)),
        }
    }

    async fn add(&self, call: &Call<'_>, session: &SessionId, life: Duration) -> Result<(), Error> {
        self.write(call, session, "add", &[&life.as_millis().to_string()]).await.map(drop)
    }

    /// Lists a session unless it is one too many. Between replicas the limit may be overstepped by one for each.
    async fn admit(&self, call: &Call<'_>, session: &SessionId) -> Result<Entry, Error> {
        // One that is listed already need not queue with new ones.
        if let Some(entry) = self.renew(call, session).await? {
            return Ok(entry);
        }
        let max = self.limits.max_sessions;
        let sessions = {
            let _shared = call.wait(self.admission.read()).await?;
            let (_ticket, together) = Ticket::draw(&self.tickets);
            let sessions = self.count(call).await?;
            // Whoever drew a ticket before is among `together` or has been counted, perhaps both.
            if sessions + together <= max {
                self.add(call, session, PROVISIONAL).await?;
                return Ok(Entry::Provisional);
            }
            sessions
        };
        let full = || Error::TooManySessions { limit: max };
        // Where many are refused, not each of them gets to look closely.
        let _alone =
            call.wait(self.admission.write()).await.map_err(|late| if sessions < max { late } else { full() })?;
        if self.count(call).await? >= max && !(self.throw_out_ended(call).await? && self.count(call).await? < max) {
            // Another push may have listed it meanwhile.
            return self.renew(call, session).await?.ok_or_else(full);
        }
        self.add(call, session, PROVISIONAL).await?;
        Ok(Entry::Provisional)
    }

    /// Some sessions that are counted may have ended within the slack. Tells whether there were any.
    async fn throw_out_ended(&self, call: &Call<'_>) -> Result<bool, Error> {
        let shards: Vec<Vec<(String, f64)>> =
            self.ask_shards(call, &["ending", &SLACK.as_millis().to_string()]).await?;
        let ending: Vec<_> = shards
            .into_iter()
            .flatten()
            .filter_map(|(id, score)| Some((id.parse::<SessionId>().ok()?, score)))
            .collect();
        let mut gone = Vec::new();
        for batch in ending.chunks(BATCH) {
            let exist = call
                .run(|attempt| {
                    let mut pipeline = redis::pipe();
                    for (session, _) in batch {
                        pipeline.cmd("EXISTS").arg(Keys(session).counter());
                    }
                    async move { attempt.pipeline::<bool>(&mut pipeline).await }
                })
                .await?;
            gone.extend(batch.iter().zip(exist).filter(|(_, exists)| !exists).map(|(entry, _)| entry));
        }
        if gone.is_empty() {
            return Ok(false);
        }
        // A push may have begun the session again since: its entry then has another score and stays.
        call.run(|attempt| {
            let mut pipeline = redis::pipe();
            for (session, score) in &gone {
                let shard = Keys(session).index_shard();
                pipeline.add_command(self.command(&shard, &["drop", session.as_str(), &score.to_string()]));
            }
            async move { attempt.pipeline::<i64>(&mut pipeline).await }
        })
        .await?;
        Ok(true)
    }

    /// How many sessions are listed.
    pub(super) async fn count(&self, call: &Call<'_>) -> Result<usize, Error> {
        Ok(self.ask_shards::<usize>(call, &["size"]).await?.into_iter().sum())
    }

    /// The sessions that may exist.
    pub(super) async fn candidates(&self, call: &Call<'_>) -> Result<Vec<SessionId>, Error> {
        let shards: Vec<Vec<String>> = self.ask_shards(call, &["list"]).await?;
        Ok(shards.into_iter().flatten().filter_map(|id| id.parse().ok()).collect())
    }

    /// Every shard's answer.
    async fn ask_shards<T: FromRedisValue>(&self, call: &Call<'_>, question: &[&str]) -> Result<Vec<T>, Error> {
        call.run(|attempt| {
            let mut pipeline = redis::pipe();
            for shard in 0..INDEX_SHARDS {
                pipeline.add_command(self.command(&index_shard(shard), question));
            }
            async move { attempt.pipeline::<T>(&mut pipeline).await }
        })
        .await
    }

    fn command(&self, shard: &str, arguments: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(1).arg(shard).arg(arguments);
        command
    }

    /// Takes a session off the index that is about to be removed. A push that comes after its removal, through any
    /// replica, sees that it begins a session and lists it again.
    pub(super) async fn forget(&self, call: &Call<'_>, session: &SessionId) -> Result<(), Error> {
        self.written.lock().remove(session);
        self.write(call, session, "remove", &[]).await.map(drop)
    }
}
