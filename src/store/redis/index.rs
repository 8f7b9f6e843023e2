//! The index of sessions: who may exist. Whether a session does exist, its own counter tells.
//!
//! An entry is written before a session's first push and then at most once in [`REFRESH`], with a score that is later
//! than the session's end by [`SLACK`]. So the index never lacks a session; it may for a moment list one that has ended.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::Script;

use super::{
    keys::{INDEX_SHARDS, Keys, index_shard},
    lanes::Lanes,
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
    /// One new session at a time, so that those of this process cannot slip past the limit together.
    admission: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct Written {
    at: Instant,
    losses: u64,
}

impl Index {
    pub(super) fn new(script: Script, limits: StoreLimits) -> Self {
        Self { script, limits, written: Mutex::default(), admission: tokio::sync::Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<SessionId, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the session is listed before a frame of it is pushed.
    pub(super) async fn announce(&self, lanes: &Lanes, session: &SessionId) -> Result<(), Error> {
        let known = self
            .written()
            .get(session)
            .filter(|written| written.losses == lanes.losses())
            .map(|written| written.at.elapsed());
        match known {
            Some(age) if age < REFRESH => Ok(()),
            Some(age) if age < self.limits.ttl => self.write(lanes, session).await,
            _ => {
                let _one_at_a_time = self.admission.lock().await;
                self.admit(lanes, session).await?;
                self.write(lanes, session).await
            }
        }
    }

    /// Writes the session's entry whatever the limit, for a session that has frames already.
    pub(super) async fn write(&self, lanes: &Lanes, session: &SessionId) -> Result<(), Error> {
        let losses = lanes.losses();
        let shard = Keys(session).index_shard();
        let life = (self.limits.ttl + SLACK).as_millis() as u64;
        lanes
            .run(|attempt| {
                let mut call = redis::cmd("EVALSHA");
                call.arg(self.script.get_hash()).arg(1).arg(&shard).arg("add").arg(session.as_str()).arg(life);
                async move { attempt.command::<i64>(&call).await }
            })
            .await?;
        let mut written = self.written();
        // Entries of sessions that have ended are of no use; they are thrown out when they may be the half.
        if written.len() >= 2 * self.limits.max_sessions.min(100_000) {
            written.retain(|_, entry| entry.at.elapsed() < self.limits.ttl);
        }
        written.insert(session.clone(), Written { at: Instant::now(), losses });
        Ok(())
    }

    /// Refuses a session that is one too many. Between replicas the limit may be overstepped by one for each.
    async fn admit(&self, lanes: &Lanes, session: &SessionId) -> Result<(), Error> {
        if self.has_room(lanes, session).await? {
            return Ok(());
        }
        // Some of those counted may have ended within the slack.
        let ending: Vec<SessionId> = self.sessions(lanes, &["ending", &SLACK.as_millis().to_string()]).await?;
        let mut gone = redis::pipe();
        for batch in ending.chunks(BATCH) {
            let exist = lanes
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
        if !gone.is_empty() {
            lanes
                .run(|attempt| {
                    let mut gone = gone.clone();
                    async move { attempt.pipeline::<i64>(&mut gone).await }
                })
                .await?;
            if self.has_room(lanes, session).await? {
                return Ok(());
            }
        }
        Err(Error::TooManySessions { limit: self.limits.max_sessions })
    }

    /// Whether the session is listed already or there is room for one more.
    async fn has_room(&self, lanes: &Lanes, session: &SessionId) -> Result<bool, Error> {
        let answers = lanes
            .run(|attempt| {
                let mut pipeline = redis::pipe();
                pipeline.cmd("ZSCORE").arg(Keys(session).index_shard()).arg(session.as_str());
                self.ask_shards(&mut pipeline, &["size"]);
                async move { attempt.pipeline::<Option<f64>>(&mut pipeline).await }
            })
            .await?;
        let listed = answers.first().is_some_and(Option::is_some);
        let sessions: f64 = answers.into_iter().skip(1).flatten().sum();
        Ok(listed || sessions < self.limits.max_sessions as f64)
    }

    /// The sessions that may exist.
    pub(super) async fn candidates(&self, lanes: &Lanes) -> Result<Vec<SessionId>, Error> {
        self.sessions(lanes, &["list"]).await
    }

    async fn sessions(&self, lanes: &Lanes, question: &[&str]) -> Result<Vec<SessionId>, Error> {
        let shards = lanes
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
    pub(super) async fn forget(&self, lanes: &Lanes, session: &SessionId) -> Result<(), Error> {
        self.written().remove(session);
        let mut call = redis::cmd("ZREM");
        call.arg(Keys(session).index_shard()).arg(session.as_str());
        let call = &call;
        lanes.run(|attempt| async move { attempt.command::<i64>(call).await }).await.map(drop)
    }
}
