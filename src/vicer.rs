//! VICER's two ports: its controllers and vehicles, its cameras and viewers, unchanged.
//!
//! None of them knows a login or a session: all are on `VICER_SESSION`. What they say is in [`crate::wire::vicer`].

mod control;
mod stream;

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub use self::{control::Control, stream::Stream};

/// How long the first message may take, by which a peer is told.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a peer may be silent before the kernel asks whether it is there, and how long it may then not answer, each of
/// [`KEEPALIVE_PROBES`] times: its wire has no words for that.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_PROBES: u32 = 3;
/// Reads that may follow each other at once, from a peer of which little is to come, and how many a second after that. Whoever sends
/// more is cut off.
const READS_AT_ONCE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// See [`READS_AT_ONCE`].
const READS_A_SECOND: NonZeroU32 = NonZeroU32::new(500).unwrap();

/// Notices peers that have gone without a word.
fn keep_alive(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    // It fails only where the peer has already gone.
    SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
}

/// Its end is a reset: the kernel forgets what it has not sent, so that nothing of it arrives later.
fn end_with_reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// How much is read of a peer of which little is to come.
fn reads() -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(READS_A_SECOND).allow_burst(READS_AT_ONCE))
}
