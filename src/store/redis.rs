//! The store on Redis: frames outlive this process, and many replicas share the work.
//!
//! The data model is in `docs/ARCHITECTURE.md`; the keys are in `redis/keys.rs`, the scripts beside it. Frame bytes
//! never pass through Lua: a push sets the frame under a key of its own and a small script then gives it its number and
//! name; a take pops a number and the frame is read by name.

mod index;
mod keys;
mod lanes;
mod notices;
mod value;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{Cmd, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult, Script, io::tcp::TcpSettings};
use uuid::Uuid;

use self::{
    index::{BATCH, Entry, Index},
    keys::Keys,
    lanes::{Attempt, Lanes},
    notices::Notifier,
    value::FrameValue,
};
use super::{FrameStore, Notices, Pushed, SessionStats, StoreLimits, TAKEN_GRACE, Taken};
use crate::{
    error::Error,
    frame::{NewFrame, Seq},
    session::SessionId,
};

/// The longest that a call may take, connecting and retries included, so that a client has its answer within a second.
pub const STORE_DEADLINE: Duration = Duration::from_millis(800);
/// How much longer a call may take for every 512 sessions that it counts beyond the first: several times what a
/// Redis with nothing else to do needs.
pub const BATCH_TIME: Duration = Duration::from_millis(10);
/// The longest wait for the acknowledgement of what was sent to Redis before its connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// See the [module](self).
pub struct RedisStore {
    lanes: Arc<Lanes>,
    notifier: Notifier,
    index: Index,
    scripts: Scripts,
    limits: StoreLimits,
    ttl_ms: u64,
    /// Makes the keys of waiting frames unique: this store's own name and a counter.
    name: Uuid,
    pushes: AtomicU64,
}

struct Scripts {
    push: Script,
    take: Script,
    count: Script,
    remove: Script,
}

impl RedisStore {
    /// A store on the Redis behind `url`, for a process whose requests run on `threads` threads. It connects when it
    /// is first used, so Redis may come later than the server.
    ///
    /// # Errors
    /// When the URL is not a Redis URL.
    pub fn new(url: &str, limits: StoreLimits, threads: usize) -> RedisResult<Self> {
        let info = connection_info(url)?;
        let texts = [
            include_str!("redis/push.lua"),
            include_str!("redis/take.lua"),
            include_str!("redis/count.lua"),
            include_str!("redis/remove.lua"),
            include_str!("redis/index.lua"),
        ];
        let [push, take, count, remove, index] = texts.map(Script::new);
        Ok(Self {
            lanes: Arc::new(Lanes::new(info.clone(), threads, texts.to_vec())?),
            notifier: Notifier::new(info)?,
            index: Index::new(index, limits),
            scripts: Scripts { push, take, count, remove },
            ttl_ms: limits.ttl.as_millis() as u64,
            limits,
            name: Uuid::new_v4(),
            pushes: AtomicU64::new(0),
        })
    }

    /// Pops a number and reads its frame, in one round trip as a rule: the first command reads whatever frame is the
    /// oldest, the second pops it. Redis handles what one connection sends at once without a break, so both mean the
    /// same frame; where they do not (another taker came between, or the oldest has expired), or where the first is not
    /// to be had (a cluster refuses it), the popped frame is read by its number.
    async fn take_once(&self, attempt: Attempt, keys: Keys<'_>) -> RedisResult<Option<Popped>> {
        let mut peek = redis::cmd("SORT");
        peek.arg(keys.queue()).arg(&["BY", "nosort", "LIMIT", "0", "1", "GET", "#", "GET"]).arg(keys.every_frame());
        let mut pop = evalsha(&self.scripts.take, &[keys.counter(), keys.queue(), keys.frames()]);
        pop.arg(TAKEN_GRACE.as_millis() as u64).arg(attempt.latest());
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.add_command(peek).add_command(pop);
        let [peeked, popped] = attempt.pair(&mut pipeline).await?;
        let Some((number, left)) = redis::from_redis_value::<Option<(u64, usize)>>(popped?)? else { return Ok(None) };
        let peeked = peeked.ok().and_then(|it| redis::from_redis_value::<(u64, Option<Vec<u8>>)>(it).ok());
        let value = match peeked {
            Some((oldest, Some(value))) if oldest == number => Some(value),
            _ => attempt.command(redis::cmd("GET").arg(keys.frame(number))).await?,
        };
        Ok(Some(Popped { seq: Seq(number), left, value }))
    }
}

struct Popped {
    seq: Seq,
    left: usize,
    value: Option<Vec<u8>>,
}

/// Reads a URL and adds what every connection needs. RESP3 tells of a lost connection at once.
pub(crate) fn connection_info(url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(TCP_USER_TIMEOUT);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

fn evalsha(script: &Script, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len()).arg(keys);
    command
}

#[async_trait]
impl FrameStore for RedisStore {
    async fn push(&self, session: &SessionId, frame: NewFrame) -> Result<Pushed, Error> {
        let call = self.lanes.call();
        let entry = self.index.announce(&call, session).await?;
        let keys = Keys(session);
        let value = FrameValue::new(&frame, self.ttl_ms);
        let number = self.pushes.fetch_add(1, Ordering::Relaxed);
        let waiting = keys.waiting(&format!("{}-{number}", self.name.simple()));
        let script_keys = [keys.counter(), keys.queue(), waiting, keys.frames(), keys.channel()];
        let (value, script_keys, size) = (&value, &script_keys, frame.bytes.len());
        let (seq, queued, dropped, begins) = call
            .run(|attempt| async move {
                // Room for the frame and the words around it, so that the frame is copied into it once.
                let mut set = Cmd::with_capacity(5, size + 256);
                set.arg("SET").arg(&script_keys[2]).arg(value).arg("PX").arg(self.ttl_ms);
                let mut number = evalsha(&self.scripts.push, script_keys);
                number
                    .arg(self.ttl_ms)
                    .arg(self.limits.max_queue)
                    .arg(TAKEN_GRACE.as_millis() as u64)
                    .arg(attempt.latest());
                let mut pipeline = redis::Pipeline::with_capacity(2);
                pipeline.add_command(set).add_command(number);
                let answers = attempt.pipeline::<redis::Value>(&mut pipeline).await?;
                let numbered = answers.into_iter().next_back().unwrap_or(redis::Value::Nil);
                Ok(redis::from_redis_value::<(u64, usize, usize, bool)>(numbered)?)
            })
            .await?;
        if begins || entry == Entry::Provisional {
            // The frame is there: whatever comes of this, the push has succeeded.
            self.index.confirm(&call, session).await;
        }
        Ok(Pushed { seq: Seq(seq), queued, dropped })
    }

    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error> {
        let call = self.lanes.call();
        loop {
            let Some(popped) = call.run(|attempt| self.take_once(attempt, Keys(session))).await? else {
                return Ok(None);
            };
            // A frame that Redis has evicted, or that this version cannot read, is passed over: the queue got shorter.
            if let Some(frame) = popped.value.and_then(|value| value::decode(popped.seq, value)) {
                return Ok(Some(Taken { frame, left: popped.left }));
            }
        }
    }

    async fn queued(&self, session: &SessionId) -> Result<usize, Error> {
        let keys = Keys(session);
        let count = &evalsha(&self.scripts.count, &[keys.counter(), keys.queue(), keys.frames()]);
        let (_, queued) =
            self.lanes.call().run(|attempt| async move { attempt.command::<(bool, usize)>(count).await }).await?;
        Ok(queued)
    }

    async fn stats(&self) -> Result<Vec<SessionStats>, Error> {
        let call = self.lanes.call();
        let mut sessions = self.index.candidates(&call).await?;
        sessions.sort_unstable();
        // There may be very many.
        let call = call.with_more_time(BATCH_TIME * (sessions.len() / BATCH) as u32);
        let mut stats = Vec::with_capacity(sessions.len());
        for batch in sessions.chunks(BATCH) {
            let counts = call
                .run(|attempt| {
                    let mut pipeline = redis::pipe();
                    for keys in batch.iter().map(Keys) {
                        pipeline
                            .add_command(evalsha(&self.scripts.count, &[keys.counter(), keys.queue(), keys.frames()]));
                    }
                    async move { attempt.pipeline::<(bool, usize)>(&mut pipeline).await }
                })
                .await?;
            let existing = batch.iter().zip(counts).filter(|(_, (exists, _))| *exists);
            stats.extend(existing.map(|(session, (_, queued))| SessionStats { session: session.clone(), queued }));
        }
        Ok(stats)
    }

    async fn remove(&self, session: &SessionId) -> Result<(), Error> {
        let keys = Keys(session);
        let call = self.lanes.call();
        // In this order a push between the two is removed with the session, and one after them lists it again.
        self.index.forget(&call, session).await?;
        call.run(|attempt| {
            let mut remove = evalsha(&self.scripts.remove, &[keys.counter(), keys.queue(), keys.frames()]);
            remove.arg(attempt.latest());
            async move { attempt.command::<()>(&remove).await }
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.lanes.call().run(|attempt| async move { attempt.command::<()>(&redis::cmd("PING")).await }).await
    }

    async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        self.notifier.notices(session).await
    }
}
