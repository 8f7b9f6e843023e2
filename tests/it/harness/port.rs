//! Ports for programs that have to be told one.

use std::{
    iter,
    net::TcpListener,
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// A port that nobody listens on, and that no other test is given or takes by chance: each is told once, and they
/// are below those that the system chooses for connections and for listeners that leave it the choice.
pub fn free_port() -> u16 {
    const PORTS: Range<u32> = 16_384..32_768;
    // Where tests run in two processes at once, they begin at different ones.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(509)));
    iter::repeat_with(|| PORTS.start + NEXT.fetch_add(1, Relaxed) % PORTS.len() as u32)
        .take(PORTS.len())
        .map(|port| u16::try_from(port).unwrap())
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a port of 16,384 is free")
}
