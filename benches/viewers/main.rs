//! Many who watch: how many frames reach the viewers, how late, and what it costs, beside others in the same run.
//!
//!     cargo bench --bench viewers                                # viewers, pairs, stalled and control
//!     cargo bench --bench viewers -- viewers --viewers 200       # one of them, with another crowd
//!     cargo bench --bench viewers -- --redis --json FILE         # and those with Redis; keeps the figures
//!
//! * `viewers`: one session, 10 frames a second of 50 KiB, N viewers of its MJPEG stream; beside it nchan with N
//!   websocket subscribers of one channel, and the bare writer: this program as a child process, which takes the frames
//!   by the same posts and does nothing but write the same parts to every socket.
//! * `pairs`: 500 sessions, each with one producer (5 frames a second of 20 KiB) and one viewer.
//! * `stalled`: 50 viewers as above, first alone, then beside 200 more that never read; only the 50 are counted.
//! * `replicas`: two servers on a Redis of their own; frames are posted to A, half the viewers are at A and half at B.
//! * `control`: 50 commands a second from an operator to a vehicle, while a camera and 50 viewers keep a server busy (one
//!   session, 30 frames a second of 100 KiB). They go through this server's relay; through a WebSocket relay that does
//!   nothing else (this program as a child process); through MQTT (mosquitto, from `mosquitto_pub -l` to
//!   `mosquitto_sub`, QoS 0); and through `cat | cat`. The server and its load go on whoever is measured. With `--redis`
//!   also between two servers on a Redis of their own: operator and viewers are at A, vehicle and camera at B.
//!
//! How it is measured: every picture carries its number and the time at which its post began. A frame is delivered when
//! a viewer has its last byte, and late by the time since that post began. Frames count that are posted after all
//! viewers are connected and a second has passed; what has not arrived 2 s after the last of them is lost. A frame that
//! comes twice counts once. Who is behind gets the newest frame from this server and from the bare writer, while nchan
//! leaves nothing out and becomes later instead.
//!
//! A command is late by the time from just before the operator begins to send it until the vehicle has read it. Operator
//! and vehicle have a thread of their own in this process, so that they do not wait for the viewers. Commands count from
//! 1 s after the first has arrived; what has not arrived 2 s after the last is lost. There are 20 ms from one to the next
//! on average, and never the same: else they would meet the frames always at the same five places, good or bad.
//! The 99.9th percentile says something where 1,000 were sent (`--seconds 20`). The figure of MQTT includes two pipes and
//! two small programs that the others do without. What these cost alone is about that of `cat | cat`, which has one pipe
//! more.
//!
//! CPU time is that of the process with all its threads and children, in user and kernel mode; on the loopback interface
//! it includes what the kernel does to deliver what was written. Memory is resident (`VmRSS`) at the end and at most
//! (`VmHWM`); what nginx's workers share counts once for each. All producers and viewers are in this process, on one
//! thread, and share the cores with what is measured: the viewers look at the first bytes of a picture and let the kernel
//! discard the rest. The column `client` tells how many cores this process used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot be set up stops")]

mod audience;
mod bare;
mod control;
mod crew;
mod drive;
mod echo;
mod measure;
mod options;
mod picture;
mod program;
mod scenarios;
mod target;

use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::{runtime, select, signal::unix};

use crate::options::Options;

const KIB: usize = 1 << 10;
const FRAMES: Pace = Pace { bytes: 50 * KIB, period: Duration::from_millis(100) };
const PAIRS: usize = 500;
const PAIR_FRAMES: Pace = Pace { bytes: 20 * KIB, period: Duration::from_millis(200) };
const HEALTHY: usize = 50;
const STALLED: usize = 200;
const REPLICA_VIEWERS: usize = 200;
const CONTROL_FRAMES: Pace = Pace { bytes: 100 * KIB, period: Duration::from_micros(33_333) };
const CONTROL_VIEWERS: usize = 50;
/// Between the first post and the first frame that counts; of commands too.
const WARM_UP: Duration = Duration::from_secs(1);
/// A post, or the first answer to a viewer.
const ANSWER: Duration = Duration::from_secs(10);
/// Files that a process opens beside its connections.
const OTHER_FILES: usize = 100;

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How large frames are and how far apart.
#[derive(Clone, Copy)]
struct Pace {
    bytes: usize,
    period: Duration,
}

struct Bench {
    options: Options,
    clock: Instant,
}

fn microseconds(since: Instant) -> u64 {
    since.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
}

async fn interrupted() -> Result {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Err("interrupted; everything that was started has been ended".into())
}

fn run() -> Result {
    let options = Options::parse();
    if let Some(threads) = options.bare {
        return bare::run(threads);
    }
    if options.echo {
        return echo::run();
    }
    options.check()?;
    let bench = Bench { options, clock: Instant::now() };
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        select! { it = bench.run() => it, it = interrupted() => it }
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
