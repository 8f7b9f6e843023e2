//! [`Metrics`]: what Prometheus is told. No label ever holds a session id: there may be very many, and they are secrets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    core::Collector,
};

/// How a frame came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayIn {
    /// The body of a request.
    Body,
    /// A form.
    Form,
    /// One of many in an endless request.
    Stream,
    /// A message of a WebSocket.
    WebSocket,
    /// An event of a Socket.IO client.
    SocketIo,
    /// VICER's camera app, or another program on its port.
    Vicer,
}

impl WayIn {
    const ALL: [(Self, &str); 6] = [
        (Self::Body, "body"),
        (Self::Form, "form"),
        (Self::Stream, "stream"),
        (Self::WebSocket, "websocket"),
        (Self::SocketIo, "socketio"),
        (Self::Vicer, "vicer"),
    ];
}

/// How a frame went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Taken off the queue.
    Queue,
    /// Asked for as the newest.
    Snapshot,
    /// Read with a cursor.
    Cursor,
    /// A part of an MJPEG stream.
    Mjpeg,
    /// A message of a WebSocket.
    WebSocket,
    /// To a viewer of VICER's.
    Vicer,
}

impl WayOut {
    const ALL: [(Self, &str); 6] = [
        (Self::Queue, "queue"),
        (Self::Snapshot, "snapshot"),
        (Self::Cursor, "cursor"),
        (Self::Mjpeg, "mjpeg"),
        (Self::WebSocket, "websocket"),
        (Self::Vicer, "vicer"),
    ];
}

/// Upper bounds in seconds of the time from receipt to delivery: a picture a second late is not live any more.
const DELIVERY_BOUNDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Upper bounds in seconds of a call of the store; the last one but the time that it may take at most.
const STORE_BOUNDS: [f64; 11] = [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Frames and bytes that went one way.
struct Traffic {
    frames: IntCounter,
    bytes: IntCounter,
}

/// What is counted of commands.
#[derive(Clone)]
pub struct ControlMetrics {
    commands: IntCounter,
    dropped: IntCounterVec,
    stops: IntCounterVec,
    /// Vehicles that are connected to this server.
    pub vehicles: IntGauge,
    /// Operators that are.
    pub operators: IntGauge,
}

/// Why a command was not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It was too old.
    Late,
    /// Its operator does not hold the wheel.
    NotDriving,
    /// Nobody listened.
    NoVehicle,
    /// There were too many.
    Flood,
    /// The vehicle was stopped before it got there.
    Stopped,
    /// The store was away.
    Store,
}

/// Why a vehicle was sent its stop message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its lease has run out.
    Lease,
    /// Its operator has left.
    Left,
    /// This server ends.
    Shutdown,
}

impl ControlMetrics {
    /// Counts commands that a vehicle was sent.
    pub fn handed_on(&self) {
        self.commands.inc();
    }

    /// Counts commands that were not handed on.
    pub fn dropped(&self, commands: u64, why: Dropped) {
        let reason = match why {
            Dropped::Late => "late",
            Dropped::NotDriving => "not_driving",
            Dropped::NoVehicle => "no_vehicle",
            Dropped::Flood => "flood",
            Dropped::Stopped => "stopped",
            Dropped::Store => "store",
        };
        self.dropped.with_label_values(&[reason]).inc_by(commands);
    }

    /// Counts a stop message.
    pub fn stopped(&self, why: Stopped) {
        let reason = match why {
            Stopped::Lease => "lease",
            Stopped::Left => "left",
            Stopped::Shutdown => "shutdown",
        };
        self.stops.with_label_values(&[reason]).inc();
    }
}

/// Every metric of one server.
pub struct Metrics {
    registry: Registry,
    incoming: [Traffic; WayIn::ALL.len()],
    outgoing: [Traffic; WayOut::ALL.len()],
    expired: IntCounter,
    /// How many of those have been counted.
    expired_counted: AtomicU64,
    displaced: IntCounter,
    skipped: IntCounter,
    viewers: IntGauge,
    phones: IntGauge,
    refused: IntCounterVec,
    control: ControlMetrics,
    sessions: IntGauge,
    delivery: Histogram,
    store_seconds: HistogramVec,
    store_errors: IntCounterVec,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, label: &str| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
        };
        let frames_in = counters("image_streamer_frames_in_total", "Frames that were accepted, by way.", "way")?;
        let bytes_in = counters("image_streamer_bytes_in_total", "Bytes of accepted frames, by way.", "way")?;
        let frames_out = counters("image_streamer_frames_out_total", "Frames that were sent, by way.", "way")?;
        let bytes_out = counters("image_streamer_bytes_out_total", "Bytes of sent frames, by way.", "way")?;
        let dropped = counters(
            "image_streamer_frames_dropped_total",
            "Frames that nobody took before they expired or a cap displaced them, and that viewers were too slow for.",
            "reason",
        )?;
        let traffic = |frames: &IntCounterVec, bytes: &IntCounterVec, way: &str| Traffic {
            frames: frames.with_label_values(&[way]),
            bytes: bytes.with_label_values(&[way]),
        };
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let delivery = HistogramOpts::new(
            "image_streamer_delivery_seconds",
            "Seconds from the receipt of a frame until a live viewer's socket has taken all of it.",
        );
        let store = HistogramOpts::new("image_streamer_store_seconds", "Seconds that a call of the store takes.");
        Ok(Self {
            incoming: WayIn::ALL.map(|(_, way)| traffic(&frames_in, &bytes_in, way)),
            outgoing: WayOut::ALL.map(|(_, way)| traffic(&frames_out, &bytes_out, way)),
            expired: dropped.with_label_values(&["expired"]),
            expired_counted: AtomicU64::new(0),
            displaced: dropped.with_label_values(&["cap"]),
            skipped: dropped.with_label_values(&["slow_viewer"]),
            viewers: gauge("image_streamer_viewers", "Live viewers of this server.")?,
            phones: gauge("image_streamer_socketio_clients", "Socket.IO clients that are connected to this server.")?,
            refused: counters(
                "image_streamer_socketio_refused_total",
                "Pictures of Socket.IO clients that were refused, by the error's code.",
                "code",
            )?,
            control: ControlMetrics {
                commands: registered(
                    &registry,
                    IntCounter::new("image_streamer_commands_total", "Commands that vehicles were sent.")?,
                )?,
                dropped: counters(
                    "image_streamer_commands_dropped_total",
                    "Commands that were not handed on, by reason; one for each vehicle where they got as far.",
                    "reason",
                )?,
                stops: counters(
                    "image_streamer_stops_total",
                    "Stop messages that vehicles were sent, by reason.",
                    "reason",
                )?,
                vehicles: gauge("image_streamer_vehicles", "Vehicles that are connected to this server.")?,
                operators: gauge("image_streamer_operators", "Operators that are connected to this server.")?,
            },
            sessions: gauge("image_streamer_sessions", "Sessions in the store.")?,
            delivery: registered(&registry, Histogram::with_opts(delivery.buckets(DELIVERY_BOUNDS.into()))?)?,
            store_seconds: registered(
                &registry,
                HistogramVec::new(store.buckets(STORE_BOUNDS.into()), &["operation"])?,
            )?,
            store_errors: counters(
                "image_streamer_store_errors_total",
                "Calls of the store that failed, by operation.",
                "operation",
            )?,
            registry,
        })
    }

    /// Counts a frame that was accepted, and those that it displaced.
    pub fn received(&self, way: WayIn, bytes: usize, displaced: usize) {
        let Traffic { frames, bytes: total } = &self.incoming[way as usize];
        frames.inc();
        total.inc_by(bytes as u64);
        self.displaced.inc_by(displaced as u64);
    }

    /// Counts a frame that was sent.
    pub fn sent(&self, way: WayOut, bytes: usize) {
        let Traffic { frames, bytes: total } = &self.outgoing[way as usize];
        frames.inc();
        total.inc_by(bytes as u64);
    }

    /// Notes how long ago a frame was received that a live viewer has just got.
    pub fn delivered(&self, after: Duration) {
        self.delivery.observe(after.as_secs_f64());
    }

    /// Counts frames that a viewer was too slow for.
    pub fn skipped(&self, frames: u64) {
        self.skipped.inc_by(frames);
    }

    /// The gauge of live viewers.
    pub fn viewers(&self) -> &IntGauge {
        &self.viewers
    }

    /// The gauge of connected Socket.IO clients.
    pub fn phones(&self) -> &IntGauge {
        &self.phones
    }

    /// Counts a Socket.IO client's picture that was refused, by its error's code.
    pub fn refused(&self, code: &'static str) {
        self.refused.with_label_values(&[code]).inc();
    }

    /// What is counted of commands.
    pub fn control(&self) -> &ControlMetrics {
        &self.control
    }

    /// The times and the errors of one operation of the store.
    pub fn operation(&self, name: &str) -> (Histogram, IntCounter) {
        (self.store_seconds.with_label_values(&[name]), self.store_errors.with_label_values(&[name]))
    }

    /// Everything in Prometheus's text format 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>). `sessions` is left out where it is not known.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self, sessions: Option<usize>, expired: u64) -> prometheus::Result<String> {
        let counted = self.expired_counted.fetch_max(expired, Ordering::Relaxed);
        self.expired.inc_by(expired.saturating_sub(counted));
        self.sessions.set(sessions.unwrap_or(0) as i64);
        let mut families = self.registry.gather();
        if sessions.is_none() {
            families.retain(|family| family.name() != "image_streamer_sessions");
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// Adds a metric to the registry.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_its_place() {
        assert!(WayIn::ALL.iter().enumerate().all(|(place, (way, _))| *way as usize == place));
        assert!(WayOut::ALL.iter().enumerate().all(|(place, (way, _))| *way as usize == place));
    }
}
