//! Operators' commands, on their way to the robot: the vehicle's own half of what docs/VEHICLES.md promises.
//!
//! Whatever happens to the link, to the server or to this process, a robot that was set in motion is told to stop within the
//! lease. What comes after a gap is never obeyed: the connection that it came over is given up.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use futures_util::StreamExt;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    pace::Backoff,
    server::{Server, Socket},
};

/// How many texts wait for a subscriber that is slow, before the oldest give way.
const MAX_WAITING_TEXTS: usize = 16;
/// Goes on while the machine is suspended.
const CLOCK: ClockId = if cfg!(target_os = "linux") { ClockId::Boottime } else { ClockId::Monotonic };

/// `geometry_msgs/Twist`: in metres and radians a second. What is left out is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Twist {
    /// Along x (forward), y (left) and z (up).
    #[serde(default)]
    pub linear: Vector,
    /// Around x, y and z (to the left).
    #[serde(default)]
    pub angular: Vector,
}

/// `geometry_msgs/Vector3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Vector {
    /// Forward.
    pub x: f64,
    /// To the left.
    pub y: f64,
    /// Up.
    pub z: f64,
}

impl Twist {
    /// From what the page `/drive/…` sends. `None` for all that is none: another command, a number beyond all numbers.
    #[must_use]
    pub fn read(command: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(command).ok()?;
        // A text without either would else be a command to stop, and a list would be taken for the fields in order.
        let is_twist = value.is_object()
            && ["linear", "angular"].iter().any(|field| value.get(field).is_some_and(serde_json::Value::is_object));
        if is_twist { serde_json::from_value(value).ok() } else { None }
    }

    /// The six numbers in the order in which ROS sends them.
    #[must_use]
    pub fn numbers(self) -> [f64; 6] {
        let Self { linear, angular } = self;
        [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
    }
}

/// Where commands come out. Publishers of topics listen here.
#[derive(Clone)]
pub struct Commands {
    /// The newest is what counts, and standing still is one.
    twist: watch::Sender<Twist>,
    texts: broadcast::Sender<Arc<str>>,
}

impl Commands {
    /// With nobody listening yet.
    #[must_use]
    pub fn new() -> Self {
        Self { twist: watch::Sender::new(Twist::default()), texts: broadcast::Sender::new(MAX_WAITING_TEXTS) }
    }

    /// What is commanded from now on.
    #[must_use]
    pub fn twists(&self) -> watch::Receiver<Twist> {
        self.twist.subscribe()
    }

    /// What is said from now on.
    #[must_use]
    pub fn texts(&self) -> broadcast::Receiver<Arc<str>> {
        self.texts.subscribe()
    }
}

/// What is known about how to obey.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whose operators are obeyed.
    pub session: String,
    /// How long the robot may go on after the last word.
    pub lease: Duration,
    /// The text that stands for stopping.
    pub stop: String,
}

/// A vehicle of the server's.
pub struct Vehicle {
    server: Server,
    terms: Terms,
    commands: Commands,
    /// Whether something was commanded since the last stop.
    is_moving: bool,
}

impl Vehicle {
    /// A vehicle that stands still.
    #[must_use]
    pub fn new(server: Server, terms: Terms, commands: Commands) -> Self {
        Self { server, terms, commands, is_moving: false }
    }

    /// Obeys until it is told to end, and stops the robot then.
    pub async fn run(mut self, end: CancellationToken) {
        let mut backoff = Backoff::new();
        let mut is_told = false;
        loop {
            let attempt = async {
                let Terms { session, lease, stop } = &self.terms;
                let socket = self.server.connect_vehicle(session, *lease, stop).await?;
                info!("operators of {session} are obeyed");
                (backoff, is_told) = (Backoff::new(), false);
                self.listen(socket).await
            };
            let ended = end.run_until_cancelled(attempt).await;
            self.stop("the link to the server is gone");
            match ended {
                None => return,
                Some(Err(error)) if !is_told => {
                    is_told = true;
                    warn!("nobody can drive: {error:#}");
                }
                Some(_) => {}
            }
            if end.run_until_cancelled(sleep(backoff.next())).await.is_none() {
                return;
            }
        }
    }

    /// Obeys what comes, for as long as it comes in time.
    async fn listen(&mut self, mut socket: Socket) -> anyhow::Result<()> {
        let mut heard = now();
        loop {
            let left = (heard + self.terms.lease).saturating_sub(now());
            let message = tokio::select! {
                message = socket.next() => message,
                () = sleep(left) => bail!("nothing was heard for {} ms", self.terms.lease.as_millis()),
            };
            let Some(message) = message else { bail!("the server has closed the connection") };
            // Whoever was held up, this process or the way: what has waited is not obeyed.
            if now() > heard + self.terms.lease {
                bail!("what was heard last is {} ms ago", (now() - heard).as_millis());
            }
            heard = now();
            match message? {
                Message::Text(text) => self.obey(text.as_str()),
                Message::Binary(bytes) => {
                    if let Ok(text) = std::str::from_utf8(&bytes) {
                        self.obey(text);
                    }
                }
                Message::Close(_) => bail!("the server has ended the connection"),
                // They are answered when the next message is read, which is at once.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn obey(&mut self, command: &str) {
        if command == self.terms.stop {
            // Whoever set it in motion.
            self.is_moving = true;
            self.stop("the operator stopped, or fell silent");
            return;
        }
        if let Some(twist) = Twist::read(command) {
            self.commands.twist.send_replace(twist);
        }
        // Without a subscriber there is nobody to tell.
        let _ = self.commands.texts.send(command.into());
        self.is_moving = true;
    }

    fn stop(&mut self, why: &str) {
        if std::mem::take(&mut self.is_moving) {
            info!("stop: {why}");
            self.commands.twist.send_replace(Twist::default());
            let _ = self.commands.texts.send(self.terms.stop.as_str().into());
        }
    }
}

fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twist_is_what_the_page_sends_and_nothing_else_is() {
        let twist = Twist::read(r#"{"linear":{"x":0.5},"angular":{"z":-0.2}}"#);
        assert_eq!(twist.map(Twist::numbers), Some([0.5, 0.0, 0.0, 0.0, 0.0, -0.2]));
        let all = Twist::read(r#"{"linear":{"x":1,"y":2,"z":3},"angular":{"x":4,"y":5,"z":6},"more":1}"#);
        assert_eq!(all.map(Twist::numbers), Some([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(Twist::read(r#"{"angular":{"z":1}}"#).map(Twist::numbers), Some([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
        for other in [
            "",
            "F",
            "{}",
            "0.5",
            "null",
            "[[1,2,3],[4,5,6]]",
            r#"{"linear":1}"#,
            r#"{"linear":{"x":"fast"}}"#,
            r#"{"linear":{"x":1e999}}"#,
            r#"{"linear":{"x":NaN}}"#,
            r#"{"linear":[1,2,3]}"#,
            &"[".repeat(60_000),
        ] {
            assert_eq!(Twist::read(other), None, "{}", &other[..other.len().min(40)]);
        }
    }
}
