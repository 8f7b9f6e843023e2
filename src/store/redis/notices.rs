//! One connection of this process that listens to the channels of the sessions somebody waits for.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    STORE_DEADLINE,
    keys::{Keys, session_of_channel},
};
use crate::{
    error::Error,
    frame::Seq,
    session::SessionId,
    store::{Listeners, Notice, Notices},
};

/// How often the connection is checked, made anew if it is lost, and rid of channels that nobody listens to.
const TICK: Duration = Duration::from_millis(250);
/// Requests to listen that wait at most.
const MAX_WAITING: usize = 1024;

type Answer = oneshot::Sender<Result<(), Arc<str>>>;

/// The process's ear. Its task ends with it.
pub(super) struct Notifier {
    listeners: Arc<Listeners>,
    requests: mpsc::Sender<(SessionId, Answer)>,
    task: JoinHandle<()>,
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Notifier {
    pub(super) fn new(info: ConnectionInfo) -> RedisResult<Self> {
        let listeners = Arc::new(Listeners::default());
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let ear = Ear {
            client: Client::open(info)?,
            listeners: listeners.clone(),
            lost: Arc::new(Notify::new()),
            connection: None,
            subscribed: HashSet::new(),
        };
        Ok(Self { listeners, requests, task: tokio::spawn(ear.listen(receiver)) })
    }

    pub(super) async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        let notices = self.listeners.listen(session);
        let (answer, answered) = oneshot::channel();
        let subscribed = async {
            self.requests.send((session.clone(), answer)).await.map_err(Error::unavailable)?;
            answered.await.map_err(Error::unavailable)?.map_err(|cause| Error::unavailable(&*cause))
        };
        tokio::time::timeout(STORE_DEADLINE, subscribed).await.map_err(Error::unavailable)??;
        Ok(notices)
    }
}

struct Ear {
    client: Client,
    listeners: Arc<Listeners>,
    /// Told when the connection is lost.
    lost: Arc<Notify>,
    connection: Option<MultiplexedConnection>,
    subscribed: HashSet<SessionId>,
}

impl Ear {
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
                    let idle = self.listeners.forget_idle();
                    // A failure shows on the next tick, and to whoever asks.
                    let _ = self.within_deadline(Self::keep_up, idle).await;
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
        self.listeners.tell_all();
    }

    async fn connection(&mut self) -> RedisResult<&mut MultiplexedConnection> {
        if self.connection.is_none() {
            let (listeners, lost) = (self.listeners.clone(), self.lost.clone());
            let on_push = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
                match (info.kind, &info.data[..]) {
                    (PushKind::Message, [Value::BulkString(channel), Value::BulkString(message)]) => {
                        if let Some(session) = session_of_channel(channel) {
                            listeners.tell(&session, read_notice(message));
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
        }
        self.connection.as_mut().ok_or_else(|| (redis::ErrorKind::Client, "no connection").into())
    }

    async fn subscribe(&mut self, mut sessions: HashSet<SessionId>) -> RedisResult<()> {
        self.restore().await?;
        sessions.retain(|session| !self.subscribed.contains(session));
        if !sessions.is_empty() {
            let channels: Vec<_> = sessions.iter().map(|session| Keys(session).channel()).collect();
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
        let sessions = self.listeners.sessions();
        if sessions.is_empty() {
            return Ok(());
        }
        let channels: Vec<_> = sessions.iter().map(|session| Keys(session).channel()).collect();
        self.connection().await?.subscribe(channels).await?;
        self.subscribed = sessions.into_iter().collect();
        self.listeners.tell_all();
        Ok(())
    }

    async fn keep_up(&mut self, idle: Vec<SessionId>) -> RedisResult<()> {
        self.restore().await?;
        if self.connection.is_none() {
            return Ok(());
        }
        let idle: Vec<_> = idle.into_iter().filter(|session| self.subscribed.remove(session)).collect();
        let connection = self.connection().await?;
        if !idle.is_empty() {
            let channels: Vec<_> = idle.iter().map(|session| Keys(session).channel()).collect();
            connection.unsubscribe(channels).await?;
        }
        redis::cmd("PING").exec_async(connection).await
    }
}

/// What is published: the number of a frame that was pushed, or nothing where a session was removed.
fn read_notice(message: &[u8]) -> Notice {
    let number = std::str::from_utf8(message).ok().and_then(|number| number.parse().ok());
    number.map_or(Notice::Look, |number| Notice::Pushed(Seq(number)))
}
