//! The store on Redis: frames outlive this process, and many replicas share the work.
//!
//! The data model is in `docs/ARCHITECTURE.md`; the keys are in `redis/keys.rs`, the scripts beside it. Frame bytes
//! never pass through Lua: a push sets the frame under a key of its own and a small script then gives it its number and
//! name; a take pops a number and the frame is read by name.

mod bus;
mod index;
mod keys;
mod lanes;
mod notices;
mod subscriber;
mod value;
mod vault;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult, Script,
    TlsCertificates, io::tcp::TcpSettings,
};
use uuid::Uuid;

use self::{
    bus::Hearers,
    index::{BATCH, Entry, Index},
    keys::Keys,
    lanes::{Attempt, Lanes},
    subscriber::Subscriber,
    value::{FrameValue, HEADER_BYTES, Header},
};
use super::{
    FrameStore, Listeners, Newest, Next, Notices, Pushed, RATE_LIFE, RATE_SAMPLE, Seen, SessionStats, StoreLimits,
    TAKEN_GRACE, Taken, VIEWERS_LIFE,
};
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
/// How many frames a cursor that has fallen behind looks for one by one before the queue begins: those taken of late.
const CURSOR_STEPS: u64 = 1000;
/// The longest wait for the acknowledgement of what was sent to Redis before its connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// See the [module](self).
pub struct RedisStore {
    lanes: Arc<Lanes>,
    notices: Subscriber<Listeners>,
    commands: Subscriber<Hearers>,
    index: Index,
    scripts: Scripts,
    limits: StoreLimits,
    ttl_ms: u64,
    /// Makes the keys of waiting frames unique: this store's own name and a counter.
    name: Uuid,
    pushes: AtomicU64,
    expired: AtomicU64,
}

struct Scripts {
    push: Script,
    take: Script,
    newest: Script,
    after: Script,
    count: Script,
    remove: Script,
    viewers: Script,
    drive: Script,
    leave: Script,
    vehicle: Script,
}

/// A script's text, with what all of them share before it.
macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("redis/prelude.lua"), "\n", include_str!($file))
    };
}

impl RedisStore {
    /// A store on the Redis behind `url`, for a process whose requests run on `threads` threads. It connects when it
    /// is first used, so Redis may come later than the server. Where it is a `rediss://` URL, Redis's certificate is checked
    /// against those in `ca` (PEM), or the system's where that is `None`.
    ///
    /// # Errors
    /// When the URL is not a Redis URL, or the certificates cannot be used.
    pub fn new(url: &str, ca: Option<&[u8]>, limits: StoreLimits, threads: usize) -> RedisResult<Self> {
        let info = trusting(connection_info(url)?, ca)?;
        let texts = [
            script!("redis/push.lua"),
            script!("redis/take.lua"),
            script!("redis/newest.lua"),
            script!("redis/after.lua"),
            script!("redis/count.lua"),
            script!("redis/remove.lua"),
            script!("redis/viewers.lua"),
            script!("redis/index.lua"),
            script!("redis/drive.lua"),
            script!("redis/leave.lua"),
            script!("redis/vehicle.lua"),
        ];
        let [push, take, newest, after, count, remove, viewers, index, drive, leave, vehicle] = texts.map(Script::new);
        Ok(Self {
            lanes: Arc::new(Lanes::new(info.clone(), threads, texts.to_vec())?),
            notices: Subscriber::new(info.clone(), Arc::default())?,
            commands: Subscriber::new(info, Arc::default())?,
            index: Index::new(index, limits),
            scripts: Scripts { push, take, newest, after, count, remove, viewers, drive, leave, vehicle },
            ttl_ms: limits.ttl.as_millis() as u64,
            limits,
            name: Uuid::new_v4(),
            pushes: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        })
    }

    /// Notes how many frames a script has found expired.
    fn count_expired(&self, frames: u64) {
        self.expired.fetch_add(frames, Ordering::Relaxed);
    }

    /// How a session stands, as [`Standing`].
    fn count(&self, keys: Keys<'_>) -> Cmd {
        let mut count = evalsha(&self.scripts.count, &[keys.counter(), keys.queue(), keys.frames(), keys.viewers()]);
        count.arg(RATE_LIFE.as_millis() as u64);
        count
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
        let (number, left, expired) = redis::from_redis_value::<(Option<u64>, usize, u64)>(popped?)?;
        self.count_expired(expired);
        let Some(number) = number else { return Ok(None) };
        let peeked = peeked.ok().and_then(|it| redis::from_redis_value::<(u64, Option<Vec<u8>>)>(it).ok());
        let value = match peeked {
            Some((oldest, Some(value))) if oldest == number => Some(value),
            _ => attempt.command(redis::cmd("GET").arg(keys.frame(number))).await?,
        };
        Ok(Some(Popped { seq: Seq(number), left, value }))
    }
}

/// Frames that can be taken, frames found expired, the newest number if the session exists, its age in ms, frames a second,
/// viewers.
type Standing = (usize, u64, Option<u64>, u64, f64, usize);

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

/// The same with other certificates to check Redis's against. Over a connection in plain there is nothing to check.
fn trusting(info: ConnectionInfo, ca: Option<&[u8]>) -> RedisResult<ConnectionInfo> {
    let (Some(ca), ConnectionAddr::TcpTls { .. }) = (ca, info.addr()) else { return Ok(info) };
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) };
    Ok(Client::build_with_tls(info, certificates)?.get_connection_info().clone())
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
        let script_keys = [keys.counter(), keys.queue(), waiting, keys.frames(), keys.live(), keys.viewers()];
        let (value, script_keys, size) = (&value, &script_keys, frame.bytes.len());
        let (seq, queued, dropped, begins, viewers, expired) = call
            .run(|attempt| async move {
                // Room for the frame and the words around it, so that the frame is copied into it once.
                let mut set = Cmd::with_capacity(5, size + 256);
                set.arg("SET").arg(&script_keys[2]).arg(value).arg("PX").arg(self.ttl_ms);
                let mut number = evalsha(&self.scripts.push, script_keys);
                number
                    .arg(self.ttl_ms)
                    .arg(self.limits.max_queue)
                    .arg(TAKEN_GRACE.as_millis() as u64)
                    .arg(attempt.latest())
                    .arg(RATE_SAMPLE.as_millis() as u64)
                    .arg(RATE_LIFE.as_millis() as u64);
                let mut pipeline = redis::Pipeline::with_capacity(2);
                pipeline.add_command(set).add_command(number);
                let answers = attempt.pipeline::<redis::Value>(&mut pipeline).await?;
                let numbered = answers.into_iter().next_back().unwrap_or(redis::Value::Nil);
                Ok(redis::from_redis_value::<(u64, usize, usize, bool, usize, u64)>(numbered)?)
            })
            .await?;
        self.count_expired(expired);
        if begins || entry == Entry::Provisional {
            // The frame is there: whatever comes of this, the push has succeeded.
            self.index.confirm(&call, session).await;
        }
        Ok(Pushed { seq: Seq(seq), queued, dropped, viewers })
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

    async fn newest(&self, session: &SessionId, known: Option<Seq>) -> Result<Option<Newest>, Error> {
        let (call, keys) = (self.lanes.call(), Keys(session));
        let mut find = evalsha(&self.scripts.newest, &[keys.counter(), keys.frames()]);
        let find = &*find.arg(HEADER_BYTES);
        call.run(|attempt| async move {
            loop {
                let found = attempt.command::<Option<(u64, u64, Vec<u8>)>>(find).await?;
                let Some((number, left_ms, header)) = found else { return Ok(None) };
                // One that this version cannot read is as good as none.
                let Some(header) = Header::read(&header) else { return Ok(None) };
                let (seq, age) = (Seq(number), header.age(Duration::from_millis(left_ms)));
                let newest = |frame| Newest { seq, received: header.received, age, frame };
                if known == Some(seq) {
                    return Ok(Some(newest(None)));
                }
                let value: Option<Vec<u8>> = attempt.command(redis::cmd("GET").arg(keys.frame(number))).await?;
                // Gone between the two: then there is a newer one, or none.
                if let Some(frame) = value.and_then(|value| value::decode(seq, value)) {
                    return Ok(Some(newest(Some(frame))));
                }
            }
        })
        .await
    }

    async fn get(&self, session: &SessionId, seq: Seq) -> Result<Option<Seen>, Error> {
        let key = &Keys(session).frame(seq.0);
        self.lanes
            .call()
            .run(|attempt| async move {
                let mut pipeline = redis::Pipeline::with_capacity(2);
                pipeline.cmd("GET").arg(key).cmd("PTTL").arg(key);
                let [value, left_ms] = attempt.pair(&mut pipeline).await?;
                let value: Option<Vec<u8>> = redis::from_redis_value(value?)?;
                let left = Duration::from_millis(redis::from_redis_value::<i64>(left_ms?)?.max(0) as u64);
                let Some(value) = value else { return Ok(None) };
                // What is left of a frame that was taken says nothing of its age; who asks has just been told of it.
                let age = Header::read(&value).filter(|_| left > TAKEN_GRACE).map_or(Duration::ZERO, |it| it.age(left));
                Ok(value::decode(seq, value).map(|frame| Seen { frame, age }))
            })
            .await
    }

    async fn after(&self, session: &SessionId, seq: Seq) -> Result<Option<Next>, Error> {
        let (call, keys) = (self.lanes.call(), Keys(session));
        let number = seq.0.saturating_add(1);
        let next: Option<Vec<u8>> =
            call.run(|attempt| async move { attempt.command(redis::cmd("GET").arg(keys.frame(number))).await }).await?;
        if let Some(frame) = next.and_then(|value| value::decode(Seq(number), value)) {
            return Ok(Some(Next { frame, missed: 0 }));
        }
        let (mut after, mut passed_over) = (seq.0, 0);
        loop {
            let mut find = evalsha(&self.scripts.after, &[keys.counter(), keys.queue(), keys.frames()]);
            let find = &*find.arg(after).arg(CURSOR_STEPS);
            let (number, missed, expired) =
                call.run(|attempt| async move { attempt.command::<(Option<u64>, u64, u64)>(find).await }).await?;
            self.count_expired(expired);
            let Some(number) = number else { return Ok(None) };
            let value: Option<Vec<u8>> = call
                .run(|attempt| async move { attempt.command(redis::cmd("GET").arg(keys.frame(number))).await })
                .await?;
            if let Some(frame) = value.and_then(|value| value::decode(Seq(number), value)) {
                return Ok(Some(Next { frame, missed: passed_over + missed }));
            }
            // Gone between the two, or nothing that this version can read.
            (after, passed_over) = (number, passed_over + missed + 1);
        }
    }

    async fn queued(&self, session: &SessionId) -> Result<usize, Error> {
        let count = &self.count(Keys(session));
        let (queued, expired, ..) =
            self.lanes.call().run(|attempt| async move { attempt.command::<Standing>(count).await }).await?;
        self.count_expired(expired);
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
            let standings = call
                .run(|attempt| {
                    let mut pipeline = redis::pipe();
                    for session in batch {
                        pipeline.add_command(self.count(Keys(session)));
                    }
                    async move { attempt.pipeline::<Standing>(&mut pipeline).await }
                })
                .await?;
            for (session, (queued, expired, newest, age_ms, fps, viewers)) in batch.iter().zip(standings) {
                self.count_expired(expired);
                // The index may list one that has just ended.
                let Some(newest) = newest else { continue };
                let (seq, age) = (Seq(newest), Duration::from_millis(age_ms));
                stats.push(SessionStats { session: session.clone(), queued, seq, age, fps, viewers });
            }
        }
        Ok(stats)
    }

    async fn remove(&self, session: &SessionId) -> Result<(), Error> {
        let keys = Keys(session);
        let call = self.lanes.call();
        // In this order a push between the two is removed with the session, and one after them lists it again.
        self.index.forget(&call, session).await?;
        call.run(|attempt| {
            let mut remove = evalsha(&self.scripts.remove, &[keys.counter(), keys.queue(), keys.frames(), keys.live()]);
            remove.arg(attempt.latest()).arg(CURSOR_STEPS);
            async move { attempt.command::<()>(&remove).await }
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.lanes.call().run(|attempt| async move { attempt.command::<()>(&redis::cmd("PING")).await }).await
    }

    async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        let notices = self.notices.audience().listen(session);
        self.notices.subscribe(session).await?;
        Ok(notices)
    }

    async fn note_viewers(&self, viewers: &[(SessionId, usize)]) -> Result<(), Error> {
        let call = self.lanes.call().with_more_time(BATCH_TIME * (viewers.len() / BATCH) as u32);
        let replica = &self.name.simple().to_string();
        for batch in viewers.chunks(BATCH) {
            call.run(|attempt| {
                let mut pipeline = redis::pipe();
                for (session, count) in batch {
                    let mut note = evalsha(&self.scripts.viewers, &[Keys(session).viewers()]);
                    note.arg(replica).arg(*count).arg(VIEWERS_LIFE.as_millis() as u64);
                    pipeline.add_command(note);
                }
                async move { attempt.pipeline::<()>(&mut pipeline).await }
            })
            .await?;
        }
        Ok(())
    }

    async fn sessions(&self) -> Result<usize, Error> {
        self.index.count(&self.lanes.call()).await
    }

    fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }
}
