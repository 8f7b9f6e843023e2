//! [`Delivery`]: what one live viewer has got of one session, whatever the way.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    frame::Seq,
    hub::{Hub, live::LiveFrame},
    telemetry::metrics::WayOut,
};

/// Where the frames that slow viewers hold have reached their limit, who has not taken a frame for so long is dropped.
pub const SLOW: Duration = Duration::from_secs(2);

/// See the [module](self).
pub struct Delivery {
    way: WayOut,
    since: Instant,
    /// The time from one frame to the next at least, if the viewer has limited its rate.
    interval: Option<Duration>,
    due: Instant,
    /// The number of the frame that was sent last, and its place among all that were shown.
    sent: Option<(Seq, u64)>,
}

impl Delivery {
    /// To a viewer that comes now.
    #[must_use]
    pub fn new(way: WayOut, interval: Option<Duration>) -> Self {
        let now = Instant::now();
        Self { way, since: now, interval, due: now, sent: None }
    }

    /// When the viewer came.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Before this moment the viewer wants no new frame.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The number of the frame that was sent last.
    #[must_use]
    pub fn sent(&self) -> Option<Seq> {
        self.sent.map(|(seq, _)| seq)
    }

    /// A frame is about to be sent.
    pub fn begin(&mut self) {
        if let Some(interval) = self.interval {
            let now = Instant::now();
            // A frame that comes a little late does not slow the viewer down; a pause is not made up for.
            let late = now.saturating_duration_since(self.due);
            self.due = if late < interval { self.due } else { now } + interval;
        }
    }

    /// The socket has taken all of it.
    pub fn done(&mut self, hub: &Hub, live: &LiveFrame) {
        let metrics = hub.metrics();
        metrics.sent(self.way, live.frame.bytes.len());
        // The first one may have been waiting for this viewer.
        if live.received >= self.since {
            metrics.delivered(live.age());
        }
        if let (Some((_, before)), None) = (self.sent, self.interval) {
            metrics.skipped((live.place - before).saturating_sub(1));
        }
        self.sent = Some((live.frame.seq, live.place));
    }
}
