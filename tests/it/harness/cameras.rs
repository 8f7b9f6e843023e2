//! Cameras that push, each to a session of its own, whatever becomes of the server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::future::join_all;
use image_streamer::placeholder::{self, Format, Size};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{SOON, users::PASSWORD};

/// How many pictures a camera shows in turn.
const PICTURES: usize = 4;

/// A frame that the server has taken.
#[derive(Debug, Clone, Copy)]
pub struct Pushed {
    seq: u64,
    /// Between these the server has received it, in milliseconds of the epoch.
    pub asked_ms: f64,
    pub answered_ms: f64,
}

/// Every frame that the server has taken, by session and number.
pub type History = BTreeMap<String, BTreeMap<u64, Pushed>>;

/// Pushes to sessions until it is stopped or dropped.
pub struct Cameras {
    history: Arc<Mutex<History>>,
    stopping: watch::Sender<bool>,
    pushing: JoinHandle<()>,
}

impl Cameras {
    /// Pushes to each session once in every such time. `root` is the address of the wall without the slash at its end.
    pub fn start(root: &str, user: Option<&str>, sessions: &[String], every: Duration) -> Self {
        let (history, (stopping, stopped)) = (Arc::default(), watch::channel(false));
        let cameras = sessions.iter().map(|session| Camera::new(root, user, session)).collect();
        let pushing = tokio::spawn(push(cameras, every, Arc::clone(&history), stopped));
        Self { history, stopping, pushing }
    }

    pub fn history(&self) -> History {
        self.history.lock().unwrap().clone()
    }

    /// Ends it when what is on the way has been answered.
    pub async fn stop(mut self) -> History {
        self.stopping.send_replace(true);
        (&mut self.pushing).await.unwrap();
        self.history()
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        self.pushing.abort();
    }
}

struct Camera {
    session: String,
    request: RequestBuilder,
    pictures: Vec<Bytes>,
}

impl Camera {
    fn new(root: &str, user: Option<&str>, session: &str) -> Self {
        let client = Client::builder().no_proxy().timeout(SOON).build().unwrap();
        let request = client.post(format!("{root}/image/{session}")).header("accept", "application/json");
        let request = match user {
            Some(user) => request.basic_auth(user, Some(PASSWORD)),
            None => request,
        };
        Self { session: session.to_owned(), request, pictures: pictures(session) }
    }

    /// Pushes one of its pictures; nothing where the server is away.
    async fn push(&self, number: usize) -> Option<Pushed> {
        let picture = self.pictures[number % PICTURES].clone();
        let request = self.request.try_clone().expect("it has no body yet").body(picture);
        let asked_ms = now_ms();
        let answer = request.send().await.ok()?.error_for_status().ok()?.json::<Value>().await.ok()?;
        Some(Pushed { seq: answer["seq"].as_u64()?, asked_ms, answered_ms: now_ms() })
    }
}

/// Pictures that differ, and tell by their label whose they are.
pub fn pictures(session: &str) -> Vec<Bytes> {
    let size = Size::new(320, 240).unwrap();
    (0..PICTURES)
        .map(|number| placeholder::draw(session, &"•".repeat(number + 1), size, Format::Jpeg).unwrap())
        .collect()
}

/// Milliseconds of the epoch, as `Date.now()` of a page has them.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

async fn push(cameras: Vec<Camera>, every: Duration, history: Arc<Mutex<History>>, stopped: watch::Receiver<bool>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        if *stopped.borrow() {
            return;
        }
        let pushes = cameras.iter().map(|camera| camera.push(number));
        for (camera, pushed) in cameras.iter().zip(join_all(pushes).await) {
            if let Some(pushed) = pushed {
                let mut history = history.lock().unwrap();
                history.entry(camera.session.clone()).or_default().insert(pushed.seq, pushed);
            }
        }
    }
}
