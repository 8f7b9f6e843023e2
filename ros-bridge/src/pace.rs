//! How often: of tries, of pictures, and of complaints.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, so that a link that is back is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// The same complaint comes once in this time.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Pauses between tries, each twice as long as the one before.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// How long to wait after another failure.
    pub fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Holds pictures to a rate, over time exactly.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    interval: Duration,
    due: Instant,
}

impl Rate {
    /// So many a second; as many as come where there is no limit.
    #[must_use]
    pub fn new(per_second: Option<f64>) -> Self {
        let interval = per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { interval, due: Instant::now() }
    }

    /// When the next may come.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// One has come.
    pub fn one(&mut self) {
        // Not from now on: a picture that is late would make all later ones late.
        self.due = (self.due + self.interval).max(Instant::now());
    }
}

/// What goes wrong with each picture is not said with each.
#[derive(Debug, Default)]
pub struct Complaint {
    said: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    /// Says it, unless that was done a short while ago.
    pub fn say(&mut self, about: &str, what: &str) {
        if self.said.is_some_and(|said| said.elapsed() < COMPLAINT_PAUSE) {
            self.unsaid += 1;
            return;
        }
        match std::mem::take(&mut self.unsaid) {
            0 => warn!("{about}: {what}"),
            more => warn!("{about}: {what} (and {more} more since it was last said)"),
        }
        self.said = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3000, 3000, 3000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_time_even_if_pictures_come_at_odd_times() {
        let mut rate = Rate::new(Some(10.0));
        let mut passed = 0;
        let end = Instant::now() + Duration::from_secs(10);
        // A camera of 30 Hz.
        while Instant::now() < end {
            if Instant::now() >= rate.due() {
                rate.one();
                passed += 1;
            }
            tokio::time::advance(Duration::from_millis(33)).await;
        }
        assert!((90..=101).contains(&passed), "{passed}");
    }
}
