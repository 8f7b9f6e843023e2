//! Where to listen, and with how many threads.

use std::{net::IpAddr, num::NonZero, thread};

use serde::Deserialize;

use super::{Faults, Texts, Variable};

/// The largest WORKERS: no machine that this runs on has more use for them.
const MAX_WORKERS: usize = 256;
pub(super) const VARIABLES: &[Variable] = &[
    ("HOST", "0.0.0.0", "address to listen on (also -i, --ip)"),
    ("PORT", "3000", "port to listen on; 0 takes a free one (also -p, --port)"),
    ("WORKERS", "unset", "threads that serve requests, 1 to 256; unset: one less than there are cores"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    host: Option<String>,
    port: Option<String>,
    workers: Option<String>,
}

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `HOST`.
    pub ip: IpAddr,
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `WORKERS`: threads that serve requests.
    pub workers: usize,
}

impl Listen {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let any = IpAddr::from([0, 0, 0, 0]);
        let ip = faults.read("HOST", env.host.as_ref(), any, "an IP address, like 0.0.0.0, 127.0.0.1 or ::", |text| {
            text.parse().ok()
        });
        let port = faults.read("PORT", env.port.as_ref(), 3000, "a port from 0 to 65535", |text| text.parse().ok());
        let workers = faults.read(
            "WORKERS",
            env.workers.as_ref(),
            default_workers(),
            &format!("whole threads from 1 to {MAX_WORKERS}"),
            |text| text.parse().ok().filter(|workers| (1..=MAX_WORKERS).contains(workers)),
        );
        Self { ip, port, workers }
    }
}

/// One core is left to what every frame needs besides this process: the kernel's network work, Redis, a proxy. Threads
/// that compete with those for cores only make them and each other slower (`docs/BENCHMARKS.md`).
fn default_workers() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).clamp(1, MAX_WORKERS)
}
