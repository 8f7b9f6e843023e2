//! [`Subscriber`]: one connection of this process that listens to a channel of each session that somebody waits for.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::STORE_DEADLINE;
use crate::{error::Error, session::SessionId};

/// How often the connection is checked, made anew if it is lost, and rid of channels that nobody listens to.
const TICK: Duration = Duration::from_millis(250);
/// Requests to listen that wait at most.
const MAX_WAITING: usize = 1024;

/// Who listens, and what becomes of what is heard.
pub(super) trait Audience: Send + Sync + 'static {
    /// A session's channel.
    fn channel(session: &SessionId) -> String;

    /// The session that a channel tells of.
    fn session_of(channel: &[u8]) -> Option<SessionId>;

    /// The sessions that somebody listens to.
    fn sessions(&self) -> Vec<SessionId>;

    /// A message has come.
    fn hear(&self, session: &SessionId, message: &[u8]);

    /// Something may have been missed.
    fn missed(&self);

    /// Redis's clock was at `redis_ms`, in Unix milliseconds, not before `asked`.
    fn learn_clock(&self, _asked: Instant, _redis_ms: f64) {}
}

type Answer = oneshot::Sender<Result<(), Arc<str>>>;

/// An audience's ear. Its task ends with it.
pub(super) struct Subscriber<A> {
    audience: Arc<A>,
    requests: mpsc::Sender<(SessionId, Answer)>,
    task: JoinHandle<()>,
}

impl<A> Drop for Subscriber<A> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<A: Audience> Subscriber<A> {
    pub(super) fn new(info: ConnectionInfo, audience: Arc<A>) -> RedisResult<Self> {
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let ear = Ear {
            client: Client::open(info)?,
            audience: audience.clone(),
            lost: Arc::new(Notify::new()),
            connection: None,
            subscribed: HashSet::new(),
        };
        Ok(Self { audience, requests, task: tokio::spawn(ear.listen(receiver)) })
    }

    /// Who listens.
    pub(super) fn audience(&self) -> &Arc<A> {
        &self.audience
    }

    /// Hears what is said of a session once this has returned, for as long as the audience names it.
    pub(super) async fn subscribe(&self, session: &SessionId) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let subscribed = async {
            self.requests.send((session.clone(), answer)).await.map_err(Error::unavailable)?;
            answered.await.map_err(Error::unavailable)?.map_err(|cause| Error::unavailable(&*cause))
        };
        tokio::time::timeout(STORE_DEADLINE, subscribed).await.map_err(Error::unavailable)?
    }
}

struct Ear<A> {
    client: Client,
    audience: Arc<A>,
    /// Told when the connection is lost.
    lost: Arc<Notify>,
    connection: Option<MultiplexedConnection>,
    subscribed: HashSet<SessionId>,
}

impl<A: Audience> Ear<A> {
    async fn listen(mut self, mut requests: mpsc::Receiver<(SessionId, Answer)>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lost = self.lost.clone();
        let mut waiting: Vec<(SessionId, Answer)> = Vec::new();
        loop {
            tokio::select! {
                // All that wait share one round trip: after a restart everybody asks at once.
                count = requests.recv_many(&mut waiting, MAX_WAITING) => {
                    if count == 0 {
                        return;
                    }
                    // Whoever asked may have gone.
                    waiting.retain(|(_, answer)| !answer.is_closed());
                    let (sessions, answers): (HashSet<_>, Vec<_>) = waiting.drain(..).unzip();
                    let result = self.within_deadline(Self::subscribe, sessions).await;
                    for answer in answers {
                        let _ = answer.send(result.clone());
                    }
                }
                () = lost.notified() => self.forget_connection(),
                _ = tick.tick() => {
                    let wanted = self.audience.sessions().into_iter().collect();
                    // A failure shows on the next tick, and to whoever asks.
                    let _ = self.within_deadline(Self::keep_up, wanted).await;
                }
            }
        }
    }

    /// Does something with the connection, which is given up if that fails or takes too long.
    async fn within_deadline<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self, T) -> RedisResult<()>,
        with: T,
    ) -> Result<(), Arc<str>> {
        let result = match tokio::time::timeout(STORE_DEADLINE, work(self, with)).await {
            Ok(result) => result.map_err(|error| error.to_string().into()),
            Err(elapsed) => Err(elapsed.to_string().into()),
        };
        if result.is_err() && self.connection.is_some() {
            self.forget_connection();
        }
        result
    }

    /// Whoever waits tries by other means, once, and so learns that Redis is away.
    fn forget_connection(&mut self) {
        self.connection = None;
        self.subscribed.clear();
        self.audience.missed();
    }

    async fn connection(&mut self) -> RedisResult<&mut MultiplexedConnection> {
        if self.connection.is_none() {
            let (audience, lost) = (self.audience.clone(), self.lost.clone());
            let on_push = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
                match (info.kind, &info.data[..]) {
                    (PushKind::Message, [Value::BulkString(channel), Value::BulkString(message)]) => {
                        if let Some(session) = A::session_of(channel) {
                            audience.hear(&session, message);
                        }
                    }
                    (PushKind::Disconnection, _) => lost.notify_one(),
                    _ => {}
                }
                Ok(())
            };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(STORE_DEADLINE))
                .set_response_timeout(None)
                .set_push_sender(on_push);
            self.connection = Some(self.client.get_multiplexed_async_connection_with_config(&config).await?);
            self.subscribed.clear();
            self.read_clock().await?;
        }
        self.connection.as_mut().ok_or_else(|| (redis::ErrorKind::Client, "no connection").into())
    }

    /// Checks the connection, and learns the time on the way.
    async fn read_clock(&mut self) -> RedisResult<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let asked = Instant::now();
        let (seconds, micros): (f64, f64) = redis::cmd("TIME").query_async(connection).await?;
        self.audience.learn_clock(asked, seconds * 1000.0 + micros / 1000.0);
        Ok(())
    }

    async fn subscribe(&mut self, mut sessions: HashSet<SessionId>) -> RedisResult<()> {
        self.restore().await?;
        sessions.retain(|session| !self.subscribed.contains(session));
        if !sessions.is_empty() {
            let channels: Vec<_> = sessions.iter().map(A::channel).collect();
            self.connection().await?.subscribe(channels).await?;
            self.subscribed.extend(sessions);
        }
        Ok(())
    }

    /// Connects and subscribes to what is listened to, if that is not so already; then wakes everybody, because
    /// something may have been missed.
    async fn restore(&mut self) -> RedisResult<()> {
        if self.connection.is_some() {
            return Ok(());
        }
        let sessions = self.audience.sessions();
        if sessions.is_empty() {
            return Ok(());
        }
        let channels: Vec<_> = sessions.iter().map(A::channel).collect();
        self.connection().await?.subscribe(channels).await?;
        self.subscribed = sessions.into_iter().collect();
        self.audience.missed();
        Ok(())
    }

    async fn keep_up(&mut self, wanted: HashSet<SessionId>) -> RedisResult<()> {
        self.restore().await?;
        let idle: Vec<_> = self.subscribed.difference(&wanted).cloned().collect();
        if self.connection.is_none() {
            return Ok(());
        }
        if !idle.is_empty() {
            let channels: Vec<_> = idle.iter().map(A::channel).collect();
            self.connection().await?.unsubscribe(channels).await?;
            self.subscribed.retain(|session| wanted.contains(session));
        }
        self.read_clock().await
    }
}
