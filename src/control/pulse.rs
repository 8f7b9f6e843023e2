//! [`Pulse`]: whether this process runs, or was held up: stopped, swapped out, moved to another machine.
//!
//! What comes in meanwhile waits in the kernel, and seems to have just come when it is read.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// How often it beats.
const BEAT: Duration = Duration::from_millis(50);
/// How long what waited in the kernel may take to be read, once the process runs again.
const CATCHING_UP: Duration = Duration::from_millis(200);
/// A clock that goes on while the machine sleeps, where there is one.
const CLOCK: ClockId = if cfg!(target_os = "linux") { ClockId::Boottime } else { ClockId::Monotonic };

fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

pub(super) struct Pulse {
    beats: Arc<Mutex<Beats>>,
    /// Held up for less than this, it makes nothing too late.
    patience: Duration,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy)]
struct Beats {
    last: Duration,
    /// Until then what is read may have waited.
    catching_up: Duration,
}

impl Beats {
    fn beat(&mut self, now: Duration, patience: Duration) {
        if now.saturating_sub(self.last) > patience {
            self.catching_up = now + CATCHING_UP;
        }
        self.last = now;
    }

    fn was_held_up(&self, now: Duration, patience: Duration) -> bool {
        // Whoever reads may have been woken before the task that beats.
        now.saturating_sub(self.last) > patience || now < self.catching_up
    }
}

impl Pulse {
    pub(super) fn new(patience: Duration) -> Self {
        let patience = patience.max(BEAT * 2);
        let beats = Arc::new(Mutex::new(Beats { last: now(), catching_up: now() }));
        let beating = beats.clone();
        let task = tokio::spawn(async move {
            let mut beat = interval(BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                beating.lock().beat(now(), patience);
            }
        });
        Self { beats, patience, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn was_held_up(&self) -> bool {
        let beats = *self.beats.lock();
        beats.was_held_up(now(), self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_right_after_a_halt_may_have_waited_and_what_is_read_later_has_not() {
        let (start, patience) = (now(), Duration::from_millis(500));
        let at = |ms| start + Duration::from_millis(ms);
        let mut beats = Beats { last: start, catching_up: start };
        for ms in [50, 100, 400, 880] {
            beats.beat(at(ms), patience);
            assert!(!beats.was_held_up(at(ms + 400), patience));
        }
        // Before the first beat after it, and after that.
        assert!(beats.was_held_up(at(2000), patience));
        beats.beat(at(2000), patience);
        assert!(beats.was_held_up(at(2199), patience));
        assert!(!beats.was_held_up(at(2200), patience));
    }
}
