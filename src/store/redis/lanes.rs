//! The connections that frames travel on, and what happens when one fails.
//!
//! A checkout from the pool costs a PING, which doubles the time of a small command. So each worker thread keeps one
//! connection of the pool, its *lane*, and all its requests share it, pipelined. Request and connection then live on the
//! same thread and never wake another. A lane that fails is given up as a whole: the pool makes a new connection for the
//! next request, at once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError, RedisResult,
    Value, aio::MultiplexedConnection,
};

use super::STORE_DEADLINE;
use crate::error::Error;

/// How often one round trip is tried at most when Redis says that nothing of it was done (`NOSCRIPT`, `TRYAGAIN`, `LATE`).
const MAX_ATTEMPTS: usize = 3;
/// The pause before such a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a new connection may take until it can be used. Longer than a call: where Redis is slow, the calls that wait
/// for it are answered with an error, and the next ones find it made.
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// How long a link may leave a round trip without an answer before it is given up. A call that comes to its end sooner
/// has spent its time elsewhere.
const LINK_PATIENCE: Duration = Duration::from_millis(700);
/// Connections of the pool beyond one a lane: they are for the moments in which a lane is being replaced.
const SPARE_CONNECTIONS: usize = 4;

/// Why a connection could not be made.
type Cause = Box<dyn std::error::Error + Send + Sync>;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// This thread's number, by which it finds its lane.
    static THREAD: usize = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
}

/// Every lane of one store.
pub(super) struct Lanes {
    pool: Pool,
    lanes: Vec<Lane>,
    /// The scripts' texts, loaded over every new connection.
    scripts: Vec<&'static str>,
    /// Counts lost connections. A link that is older than the latest loss is not trusted: an idle connection that
    /// Redis has closed is replaced before a request is lost on it.
    losses: Arc<AtomicU64>,
    reachable: AtomicBool,
}

#[derive(Default)]
struct Lane(Mutex<LaneState>);

#[derive(Default)]
struct LaneState {
    link: Option<Arc<Link>>,
    /// A new link being made. All who need it wait for the same one.
    opening: Option<Opening>,
}

/// Ends with the link, or with why there is none.
type Opening = Shared<BoxFuture<'static, Result<Arc<Link>, Arc<str>>>>;

impl Lane {
    /// Nobody is to use this link any more.
    fn give_up(&self, link: &Arc<Link>) {
        let mut state = self.0.lock();
        if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            state.link = None;
        }
    }
}

/// One open connection with what was learned when it was made.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Redis's clock at a moment of ours, in Unix milliseconds.
    redis_clock: (Instant, f64),
    losses: u64,
}

/// One call of the store: its round trips share a deadline, so that the caller has an answer in time however many
/// there are.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    lanes: &'a Arc<Lanes>,
    deadline: Instant,
}

impl Call<'_> {
    /// One round trip, tried again where Redis says that nothing was done.
    pub(super) async fn run<T, F>(&self, work: impl Fn(Attempt) -> F) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>>,
    {
        self.lanes.run(self.deadline, work).await
    }

    /// The same call with a later deadline.
    pub(super) fn with_more_time(self, more: Duration) -> Self {
        Self { deadline: self.deadline + more, ..self }
    }

    /// Waits for something else than Redis, a lock say.
    pub(super) async fn wait<T>(&self, until: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout_at(self.deadline.into(), until).await.map_err(Error::unavailable)
    }

    /// How many connections were lost so far. What was remembered of Redis before the latest loss may no longer hold.
    pub(super) fn losses(&self) -> u64 {
        self.lanes.losses()
    }
}

/// One try at a round trip: the connection, and until when it makes sense.
#[derive(Clone)]
pub(super) struct Attempt {
    link: Arc<Link>,
    deadline: Instant,
}

impl Attempt {
    /// The deadline by Redis's own clock, in Unix milliseconds. A script that starts later than this does nothing:
    /// its caller has been told that the call failed. So what waited in a stopped Redis is not done when it goes on.
    pub(super) fn latest(&self) -> String {
        format!("{:.3}", self.redis_time(self.deadline))
    }

    /// A moment of ours by Redis's clock, in Unix milliseconds: never later than it was, and sooner by a way back at most.
    pub(super) fn redis_time(&self, moment: Instant) -> f64 {
        let (at, redis_ms) = self.link.redis_clock;
        let after = moment.saturating_duration_since(at).as_secs_f64();
        redis_ms + (after - at.saturating_duration_since(moment).as_secs_f64()) * 1000.0
    }

    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.link.connection.clone()).await
    }

    /// The answers to two commands, each for itself.
    pub(super) async fn pair(&self, pipeline: &mut Pipeline) -> RedisResult<[RedisResult<Value>; 2]> {
        let answers: Vec<RedisResult<Value>> =
            pipeline.ignore_errors().query_async(&mut self.link.connection.clone()).await?;
        answers.try_into().map_err(|_| (redis::ErrorKind::UnexpectedReturnType, "expected two answers").into())
    }

    /// All answers, or the first error among them.
    pub(super) async fn pipeline<T: FromRedisValue>(&self, pipeline: &mut Pipeline) -> RedisResult<Vec<T>> {
        let answers: Vec<RedisResult<T>> =
            pipeline.ignore_errors().query_async(&mut self.link.connection.clone()).await?;
        answers.into_iter().collect()
    }
}

impl Lanes {
    /// Lanes for `threads` threads. Nothing is connected yet.
    pub(super) fn new(info: ConnectionInfo, threads: usize, scripts: Vec<&'static str>) -> RedisResult<Self> {
        let losses = Arc::new(AtomicU64::new(0));
        let counter = losses.clone();
        let on_push = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
            if info.kind == PushKind::Disconnection {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        // The deadline of a call is around all of it; a second one inside would only be a second timer.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(OPEN_DEADLINE))
            .set_response_timeout(None)
            .set_push_sender(on_push);
        let pool = Pool::builder(Manager::new_with_config(info, config)?)
            .max_size(threads + SPARE_CONNECTIONS)
            .timeouts(Timeouts { wait: Some(OPEN_DEADLINE), create: Some(OPEN_DEADLINE), recycle: Some(OPEN_DEADLINE) })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| RedisError::from((redis::ErrorKind::InvalidClientConfig, "pool", error.to_string())))?;
        let lanes = (0..threads.max(1)).map(|_| Lane::default()).collect();
        Ok(Self { pool, lanes, scripts, losses, reachable: AtomicBool::new(true) })
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Begins a call of the store: everything that is done for it ends within [`STORE_DEADLINE`].
    pub(super) fn call(self: &Arc<Self>) -> Call<'_> {
        Call { lanes: self, deadline: Instant::now() + STORE_DEADLINE }
    }

    async fn run<T, F>(self: &Arc<Self>, deadline: Instant, work: impl Fn(Attempt) -> F) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let number = THREAD.with(|number| number % self.lanes.len());
        let lane = &self.lanes[number];
        // What the call waits on, and since when.
        let mut asked = None;
        let attempts = async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let link = self.link(number).await?;
                asked = Some((link.clone(), Instant::now()));
                let error = match work(Attempt { link: link.clone(), deadline }).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                if error.is_unrecoverable_error() {
                    lane.give_up(&link);
                }
                match error.code() {
                    Some("NOSCRIPT" | "LATE" | "TRYAGAIN") if attempt < MAX_ATTEMPTS => {
                        // A new link loads the scripts and reads the clock anew.
                        lane.give_up(&link);
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Some("OOM") => {
                        return Err(Error::StoreFull("Redis has reached its maxmemory; raise it, or shorten EXPIRE"));
                    }
                    _ => return Err(Error::unavailable(error)),
                }
            }
        };
        let result = match tokio::time::timeout_at(deadline.into(), attempts).await {
            Ok(result) => result,
            Err(elapsed) => {
                // What waits on a connection that does not answer would only wait longer.
                if let Some((link, since)) = &asked
                    && since.elapsed() >= LINK_PATIENCE
                {
                    lane.give_up(link);
                }
                Err(Error::unavailable(elapsed))
            }
        };
        self.note(result.as_ref().err());
        result
    }

    /// Logs the change from reachable to not and back, once each.
    fn note(&self, error: Option<&Error>) {
        match error {
            Some(Error::StoreUnavailable(cause)) => {
                if self.reachable.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%cause, "Redis cannot be reached; requests are answered with 503 until it can");
                }
            }
            _ => {
                // A load first: this line is on the path of every frame.
                if !self.reachable.load(Ordering::Relaxed) && !self.reachable.swap(true, Ordering::Relaxed) {
                    tracing::info!("Redis is back");
                }
            }
        }
    }

    async fn link(self: &Arc<Self>, number: usize) -> Result<Arc<Link>, Error> {
        let opening = {
            let mut state = self.lanes[number].0.lock();
            if let Some(link) = state.link.as_ref().filter(|link| link.losses == self.losses()) {
                return Ok(link.clone());
            }
            state.opening.get_or_insert_with(|| self.begin_opening(number)).clone()
        };
        opening.await.map_err(|cause| Error::unavailable(cause.to_string()))
    }

    /// Makes a lane's next link, in a task of its own because the call that needs it may end before it is made.
    fn begin_opening(self: &Arc<Self>, number: usize) -> Opening {
        let lanes = self.clone();
        let task = tokio::spawn(async move {
            let opened = tokio::time::timeout(OPEN_DEADLINE, lanes.open()).await;
            let opened = opened.map_err(Cause::from).flatten().map(Arc::new);
            let mut state = lanes.lanes[number].0.lock();
            state.opening = None;
            state.link = opened.as_ref().ok().cloned();
            opened.map_err(|cause| Arc::from(cause.to_string()))
        });
        async { task.await.unwrap_or_else(|ended| Err(Arc::from(ended.to_string()))) }.boxed().shared()
    }

    async fn open(&self) -> Result<Link, Cause> {
        let losses = self.losses();
        // Out of the pool for good: a connection that is given up must not come back to it.
        let mut connection = deadpool_redis::Connection::take(self.pool.get().await?);
        let mut setup = redis::pipe();
        for script in &self.scripts {
            setup.cmd("SCRIPT").arg("LOAD").arg(script).ignore();
        }
        setup.cmd("TIME");
        let ((seconds, micros),): ((f64, f64),) = setup.query_async(&mut connection).await?;
        // Our clock is read after the answer: the deadline in Redis's time comes out early by the way back, never late.
        Ok(Link { connection, redis_clock: (Instant::now(), seconds * 1000.0 + micros / 1000.0), losses })
    }
}
