//! Between a topic and its way to the server: at most one message waits, and the newest wins.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::message::{Kind, Layout};

/// How many buffers are kept to be filled again: one is being filled, one waits, one is on its way.
const MAX_SPARE: usize = 2;

/// A message as it came, not yet taken apart.
#[derive(Debug)]
pub struct Arrived {
    /// What it carries.
    pub kind: Kind,
    /// How it is laid out.
    pub layout: Layout,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// When it came.
    pub at: Instant,
}

/// The two ends' common place. Buffers go round in it, so that a topic of large pictures asks for no memory per picture.
#[derive(Debug, Default)]
pub struct Newest {
    state: Mutex<State>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<Arrived>,
    spare: Vec<Vec<u8>>,
    arrived: u64,
    replaced: u64,
}

impl Newest {
    /// An empty place.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A buffer to fill; empty, but with the room of an earlier message.
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        self.state.lock().spare.pop().unwrap_or_default()
    }

    /// Puts a message in the place of the one that waits.
    pub fn put(&self, message: Arrived) {
        let mut state = self.state.lock();
        state.arrived += 1;
        if let Some(replaced) = state.waiting.replace(message) {
            state.replaced += 1;
            state.keep(replaced.bytes);
        }
        drop(state);
        self.arrival.notify_one();
    }

    /// Takes the newest message, once there is one. For one taker.
    pub async fn take(&self) -> Arrived {
        loop {
            if let Some(message) = self.state.lock().waiting.take() {
                return message;
            }
            self.arrival.notified().await;
        }
    }

    /// Gives a buffer back to be filled again.
    pub fn give_back(&self, buffer: Vec<u8>) {
        self.state.lock().keep(buffer);
    }

    /// How many messages have arrived, and how many of them gave way to a newer one before they were taken.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.arrived, state.replaced)
    }
}

impl State {
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8) -> Arrived {
        Arrived { kind: Kind::Image, layout: Layout::Packed, bytes: vec![number], at: Instant::now() }
    }

    #[tokio::test]
    async fn the_newest_wins_and_no_more_than_one_waits() {
        let newest = Newest::new();
        for number in 0..100 {
            newest.put(message(number));
        }
        assert_eq!(newest.take().await.bytes, [99]);
        assert_eq!(newest.counts(), (100, 99));
        assert!(newest.state.lock().waiting.is_none());
        assert_eq!(newest.state.lock().spare.len(), MAX_SPARE);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let newest = Newest::new();
        let taking = tokio::spawn({
            let newest = Arc::clone(&newest);
            async move { newest.take().await.bytes }
        });
        tokio::task::yield_now().await;
        newest.put(message(1));
        assert_eq!(taking.await.ok(), Some(vec![1]));
    }
}
