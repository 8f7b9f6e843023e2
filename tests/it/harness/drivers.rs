//! Operators and vehicles over WebSockets, as real ones are: they read all the time, and so answer pings.

use std::{fmt::Display, sync::LazyLock, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest},
};
use tokio_util::task::AbortOnDropHandle;

use super::{SOON, Server};

/// What stops the vehicles of the tests.
pub const STOP: &str = "STOP";
/// How much later than the lease's end a stop may come.
pub const STOP_SLACK: Duration = Duration::from_millis(50);

/// They answer pings in time whatever else a test does meanwhile.
static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("drivers").enable_all().build().unwrap()
});

/// One end of `/ws/control`.
pub struct Peer {
    outgoing: mpsc::UnboundedSender<Message>,
    incoming: mpsc::UnboundedReceiver<(Instant, Message)>,
    /// It goes without a word when this is dropped.
    _task: AbortOnDropHandle<()>,
}

impl Peer {
    /// Connects to an address of a server, or of a link to it.
    pub async fn connect(host: impl Display, path: &str) -> Self {
        Self::try_connect(format!("ws://{host}{path}")).await.unwrap()
    }

    pub async fn try_connect(request: impl IntoClientRequest + Unpin) -> Result<Self, Box<Error>> {
        let request = request.into_client_request().unwrap();
        let opening = THREADS.spawn(connect_async_with_config(request, None, true));
        let opened = timeout(SOON, opening).await.expect("it opens in time").unwrap();
        let (mut socket, _) = opened.map_err(Box::new)?;
        let (outgoing, mut to_send) = mpsc::unbounded_channel();
        let (received, incoming) = mpsc::unbounded_channel();
        let task = THREADS.spawn(async move {
            loop {
                tokio::select! {
                    message = to_send.recv() => match message {
                        Some(message) => if socket.send(message).await.is_err() { return },
                        None => return,
                    },
                    message = socket.next() => match message {
                        Some(Ok(message)) => drop(received.send((Instant::now(), message))),
                        _ => return,
                    },
                }
            }
        });
        Ok(Self { outgoing, incoming, _task: AbortOnDropHandle::new(task) })
    }

    /// An operator of a session.
    pub async fn operator(server: &Server, session: &str) -> Self {
        Self::connect(server.address(), &format!("/ws/control/{session}?role=operator")).await
    }

    /// A vehicle that is stopped by [`STOP`].
    pub async fn vehicle(server: &Server, session: &str, lease: Duration) -> Self {
        Self::connect(server.address(), &vehicle_path(session, lease)).await
    }

    pub fn send(&self, message: impl Into<Message>) {
        // It may have gone.
        let _ = self.outgoing.send(message.into());
    }

    /// Sends an operator's ping.
    pub fn ping(&self) {
        self.send("");
    }

    /// What comes next, but for pings: when, and what.
    pub async fn next(&mut self) -> (Instant, Message) {
        self.next_within(SOON).await.expect("something comes in time")
    }

    /// The same, if it comes in time. The end of the connection is nothing.
    pub async fn next_within(&mut self, time: Duration) -> Option<(Instant, Message)> {
        let next = async {
            loop {
                let (at, message) = self.incoming.recv().await?;
                if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                    return Some((at, message));
                }
            }
        };
        timeout(time, next).await.ok().flatten()
    }

    /// Waits until it has gone, or is told to go.
    pub async fn ended_within(&mut self, time: Duration) -> Vec<Message> {
        let mut messages = Vec::new();
        let end = async {
            while let Some((_, message)) = self.incoming.recv().await {
                messages.push(message);
            }
        };
        timeout(time, end).await.expect("the connection ends in time");
        messages
    }

    /// The next message, which is this text; when it came.
    pub async fn hears(&mut self, text: &str) -> Instant {
        let (at, message) = self.next().await;
        assert_eq!(message, Message::text(text));
        at
    }

    /// Nothing comes for so long.
    pub async fn hears_nothing_for(&mut self, time: Duration) {
        let message = self.next_within(time).await;
        assert_eq!(message.map(|(_, message)| message), None);
    }

    /// The next message of this type that is as wanted.
    pub async fn told(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut others = Vec::new();
        let find = async {
            loop {
                let (_, message) = self.next().await;
                let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
                if message["type"] == kind && wanted(&message) {
                    return message;
                }
                others.push(message);
            }
        };
        timeout(SOON, find).await.unwrap_or_else(|_| panic!("no {kind} as wanted: {others:?}"))
    }

    /// The next status that is as wanted.
    pub async fn status(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.told("status", wanted).await
    }

    /// It is told of something by this code.
    pub async fn is_told(&mut self, code: &str) -> Value {
        self.told("told", |message| message["code"] == code).await
    }
}

/// Where a vehicle connects that is stopped by [`STOP`].
pub fn vehicle_path(session: &str, lease: Duration) -> String {
    format!("/ws/control/{session}?role=vehicle&lease={}&stop={STOP}", lease.as_millis())
}
