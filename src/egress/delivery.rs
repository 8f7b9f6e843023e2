//! [`Delivery`]: what one live viewer has got of one session, whatever the way.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    frame::Seq,
    hub::{Hub, live::LiveFrame},
    telemetry::metrics::WayOut,
};

/// How long a viewer waits before it looks again whether there is room for frames on their way to slow viewers.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// See the [module](self).
pub(super) struct Delivery {
    way: WayOut,
    since: Instant,
    /// The time from one frame to the next at least, if the viewer has limited its rate.
    interval: Option<Duration>,
    due: Instant,
    sent: Option<Seq>,
}

impl Delivery {
    /// To a viewer that comes now.
    pub(super) fn new(way: WayOut, interval: Option<Duration>) -> Self {
        let now = Instant::now();
        Self { way, since: now, interval, due: now, sent: None }
    }

    /// When the viewer came.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Before this moment the viewer wants no new frame.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The number of the frame that was sent last.
    pub(super) fn sent(&self) -> Option<Seq> {
        self.sent
    }

    /// A frame is about to be sent.
    pub(super) fn begin(&mut self) {
        if let Some(interval) = self.interval {
            // Frames that come a little late do not slow the viewer down; a pause is not made up for.
            self.due = (self.due + interval).max(Instant::now());
        }
    }

    /// The socket has taken all of it.
    pub(super) fn done(&mut self, hub: &Hub, live: &LiveFrame) {
        let metrics = hub.metrics();
        metrics.sent(self.way, live.frame.bytes.len());
        // The first one may have been waiting for this viewer.
        if live.received >= self.since {
            metrics.delivered(live.age());
        }
        if let (Some(before), None) = (self.sent, self.interval) {
            metrics.skipped(live.frame.seq.0.saturating_sub(before.0 + 1));
        }
        self.sent = Some(live.frame.seq);
    }
}
