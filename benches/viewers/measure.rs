//! What is measured, and how it is told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Bench, Pace, Result, WARM_UP,
    audience::{Audience, Receipt},
    crew::Crew,
    microseconds,
    program::{cpu_seconds, memory},
    target::Target,
};

/// What a frame, or a command, may take to arrive after the last one was sent.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

impl Bench {
    /// Counts at each audience the frames posted from now on, for the time that was asked for. CPU time and memory are
    /// those of all targets. The crew then stops, unless it is to go on.
    pub(crate) async fn measure(
        &self,
        targets: &[&Target],
        crew: &mut Crew,
        goes_on: bool,
        audiences: &[(&'static str, &Audience)],
    ) -> Result<Vec<Sample>> {
        let processes: Vec<u32> = targets.iter().flat_map(|target| target.process.family()).collect();
        let used = || [cpu_seconds(&processes), cpu_seconds(&[std::process::id()])];
        let (first, begun, used_before) = (crew.posted(), microseconds(self.clock), used());
        sleep(Duration::from_secs(self.options.seconds.get())).await;
        if !goes_on {
            crew.stop().await?;
        }
        let last = crew.posted();
        let posted: u64 = first.iter().zip(&last).map(|(first, last)| u64::from(last - first)).sum();
        let counts = |it: &&Receipt| {
            let session = it.stamp.session as usize;
            it.stamp.number > first[session] && it.stamp.number <= last[session]
        };
        // As many viewers of every session.
        let due = |audience: &Audience| posted * audience.viewers as u64 / last.len() as u64;
        let came = |audience: &Audience| audience.log.receipts.lock().unwrap().iter().filter(counts).count() as u64;
        let deadline = Instant::now() + DRAIN;
        while Instant::now() < deadline && audiences.iter().any(|(_, it)| came(it) < due(it)) {
            sleep(Duration::from_millis(50)).await;
        }
        let seconds = (microseconds(self.clock) - begun) as f64 / 1e6;
        let [cpu, own_cpu] = used();
        let cpu = (cpu - used_before[0]) / audiences.iter().map(|(_, it)| came(it)).sum::<u64>() as f64 * 1e3;
        let client = (own_cpu - used_before[1]) / seconds;
        let [rss, peak] = ["VmRSS", "VmHWM"].map(|it| memory(&processes, it));
        let refused = f64::from(crew.refused());
        let sample = |&(side, audience): &(&'static str, &Audience)| {
            let receipts = audience.log.receipts.lock().unwrap();
            let counted = || receipts.iter().filter(counts);
            let mut delays: Vec<u64> = counted().map(|it| it.received.saturating_sub(it.stamp.sent)).collect();
            delays.sort_unstable();
            let [p50, p99, max] = quantiles(&delays, [0.5, 0.99, 1.0]);
            let end = counted().map(|it| it.received).max().unwrap_or(begun + 1);
            let (due, delivered) = (due(audience) as f64, delays.len() as f64);
            let (share, lost, rate) = (delivered / due * 1e2, due - delivered, delivered / (end - begun) as f64 * 1e6);
            let faults = audience.log.faults.lock().unwrap();
            if let Some(fault) = faults.first() {
                println!("{side}: {} faults of viewers; the first: {fault}", faults.len());
            }
            let (posted, faults) = (posted as f64, faults.len() as f64);
            let figures =
                [posted, delivered, share, lost, rate, p50, p99, max, cpu, rss, peak, client, refused, faults];
            Sample { side, columns: &FRAME_COLUMNS, figures: figures.to_vec() }
        };
        Ok(audiences.iter().map(sample).collect())
    }

    /// The usual case: frames for as many sessions as the first target's, counted once all is warm, until the end.
    pub(crate) async fn run_crew(
        &self,
        targets: &[&Target],
        (sessions, pace): (usize, Pace),
        audiences: &[(&'static str, &Audience)],
    ) -> Result<Vec<Sample>> {
        let mut crew = Crew::start(self.clock, targets[0], sessions, pace);
        sleep(WARM_UP).await;
        self.measure(targets, &mut crew, false, audiences).await
    }
}

/// What a sample tells: the column's name, its width and decimals, and the name in the JSON with the unit.
pub(crate) type Column = (&'static str, usize, usize, &'static str);

/// Of frames.
pub(crate) const FRAME_COLUMNS: [Column; 14] = [
    ("posted", 8, 0, "frames_posted"),
    ("delivered", 10, 0, "deliveries"),
    ("of due", 8, 2, "delivered_percent"),
    ("lost", 8, 0, "deliveries_lost"),
    // Up to the last of them.
    ("a second", 9, 0, "deliveries_per_second"),
    ("p50 ms", 9, 2, "delay_p50_ms"),
    ("p99 ms", 9, 2, "delay_p99_ms"),
    ("max ms", 9, 2, "delay_max_ms"),
    ("CPU s/1000", 11, 4, "cpu_seconds_per_1000_deliveries"),
    ("RSS MB", 8, 1, "rss_mb"),
    ("peak MB", 8, 1, "peak_rss_mb"),
    // Used by this process.
    ("client", 7, 2, "client_cores"),
    ("refused", 8, 0, "posts_refused"),
    ("faults", 7, 0, "viewer_faults"),
];

pub(crate) struct Sample {
    pub(crate) side: &'static str,
    pub(crate) columns: &'static [Column],
    /// One for each column.
    pub(crate) figures: Vec<f64>,
}

impl Sample {
    pub(crate) fn header(columns: &[Column]) {
        let names = columns.iter().map(|(name, width, ..)| format!("{name:>width$}"));
        println!("{:14}{}", "", names.collect::<String>());
    }

    pub(crate) fn print(&self) {
        let cell = |(&(_, width, decimals, _), figure): (&_, &f64)| format!("{figure:>width$.decimals$}");
        println!("{:14}{}", self.side, self.columns.iter().zip(&self.figures).map(cell).collect::<String>());
    }

    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.figures[self.columns.iter().position(|it| it.3 == name).expect("a figure of that name")]
    }

    pub(crate) fn json(&self) -> Value {
        let figures = self.columns.iter().zip(&self.figures).map(|(it, figure)| (it.3.to_owned(), json!(figure)));
        figures.chain([("side".to_owned(), json!(self.side))]).collect()
    }
}

/// The delays that these shares of all are not above, in milliseconds. What they are of is in order, in microseconds.
pub(crate) fn quantiles<const N: usize>(delays: &[u64], shares: [f64; N]) -> [f64; N] {
    shares.map(|share| {
        let at = (delays.len() as f64 * share).ceil() as usize;
        delays.get(at.max(1) - 1).map_or(f64::NAN, |&it| it as f64 / 1e3)
    })
}

/// The ratios of the medians of one side to those of its peers, where there are any of both.
pub(crate) fn compare(
    samples: &[Sample],
    side: &str,
    peers: impl Iterator<Item = &'static str>,
    figures: &[&str],
) -> serde_json::Map<String, Value> {
    let has = |side: &str| samples.iter().any(|it| it.side == side);
    let mut found = serde_json::Map::new();
    for peer in peers.filter(|peer| *peer != side && has(side) && has(peer)) {
        let ratios = figures.iter().map(|&it| (it, median(samples, side, it) / median(samples, peer, it)));
        let told = ratios.clone().map(|(name, it)| format!("{name} {it:.2}"));
        println!("{side}/{peer}: {}", told.collect::<Vec<_>>().join(", "));
        found.insert(format!("{side}/{peer}"), ratios.map(|(name, it)| (name.to_owned(), json!(it))).collect());
    }
    found
}

/// The middle one of the figures of one side.
fn median(samples: &[Sample], side: &str, name: &str) -> f64 {
    let mut figures: Vec<f64> = samples.iter().filter(|it| it.side == side).map(|it| it.figure(name)).collect();
    figures.sort_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(figures.len() / 2), at(figures.len().saturating_sub(1) / 2))
}
