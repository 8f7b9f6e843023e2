//! The command line.

use std::{fs, num::NonZero, path::PathBuf};

use clap::{Parser, ValueEnum};

use crate::{
    CONTROL_VIEWERS, HEALTHY, OTHER_FILES, PAIRS, REPLICA_VIEWERS, Result, STALLED, program::find, target::find_nchan,
};

const INSTALL: &str = "apt-get install -y nginx-light libnginx-mod-nchan redis-server mosquitto mosquitto-clients";
const SERVER: &str = match option_env!("CARGO_BIN_EXE_image-streamer") {
    Some(built) => built,
    None => "target/release/image-streamer",
};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    Viewers,
    Pairs,
    Stalled,
    Replicas,
    Control,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Side {
    Server,
    Bare,
    Nchan,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Bare => "bare",
            Self::Nchan => "nchan",
        }
    }
}

/// Many who watch: how many frames reach the viewers, how late, and what it costs.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench viewers --")]
pub(crate) struct Options {
    /// What to run.
    #[arg(default_values = ["viewers", "pairs", "stalled", "control"])]
    scenarios: Vec<Scenario>,
    /// How many viewers the scenario `viewers` has, in turn.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "200,1000")]
    pub(crate) viewers: Vec<NonZero<usize>>,
    /// How long each measurement is.
    #[arg(long, value_name = "S", default_value = "10")]
    pub(crate) seconds: NonZero<u64>,
    /// Measurements of each side in `viewers` and `control`; ratios are those of the medians.
    #[arg(long, value_name = "R", default_value = "1")]
    pub(crate) rounds: NonZero<usize>,
    /// Sides of `viewers`.
    #[arg(long, value_name = "SIDE", value_delimiter = ',', default_value = "server,bare,nchan")]
    pub(crate) sides: Vec<Side>,
    /// Runs `replicas` too, and `control` also between two servers on a Redis.
    #[arg(long)]
    pub(crate) redis: bool,
    /// The server [default: as built].
    #[arg(long, value_name = "FILE", default_value = SERVER, hide_default_value = true)]
    pub(crate) server: PathBuf,
    /// The server's WORKERS, and the bare writer's threads [default: as many as the server chooses].
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZero<usize>>,
    /// Keeps the figures.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Is the bare writer, with so many threads.
    #[arg(long, hide = true)]
    pub(crate) bare: Option<NonZero<usize>>,
    /// Is the WebSocket relay beside this server's.
    #[arg(long, hide = true)]
    pub(crate) echo: bool,
    /// Every bench is told so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn runs(&self, scenario: Scenario) -> bool {
        self.scenarios.contains(&scenario) || self.redis && scenario == Scenario::Replicas
    }

    /// Names everything that is missing at once.
    pub(crate) fn check(&self) -> Result {
        let mut missing = Vec::new();
        let [viewers, pairs, stalled, replicas, control] =
            [Scenario::Viewers, Scenario::Pairs, Scenario::Stalled, Scenario::Replicas, Scenario::Control]
                .map(|it| self.runs(it));
        let side = |side| viewers && self.sides.contains(&side);
        if side(Side::Nchan) && find_nchan().is_none() {
            missing.push(format!("nginx with ngx_nchan_module.so. To install:\n{INSTALL}"));
        }
        if control {
            let lacking = ["mosquitto", "mosquitto_pub", "mosquitto_sub"].into_iter().filter(|it| find(it).is_none());
            missing.extend(lacking.map(|it| format!("{it}. To install:\n{INSTALL}")));
        }
        if replicas && find("redis-server").is_none() {
            missing.push(format!("redis-server. To install:\n{INSTALL}"));
        }
        if (side(Side::Server) || pairs || stalled || replicas || control) && !self.server.is_file() {
            missing.push(format!("{}. To build:\ncargo build --release", self.server.display()));
        }
        let crowd = self.viewers.iter().map(|it| it.get()).max().filter(|_| viewers);
        let connections = [
            crowd,
            pairs.then_some(2 * PAIRS),
            stalled.then_some(HEALTHY + STALLED),
            replicas.then_some(REPLICA_VIEWERS),
            control.then_some(CONTROL_VIEWERS),
        ];
        let needed = connections.into_iter().flatten().max().unwrap_or_default() + OTHER_FILES;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let limit = limits.lines().find_map(|it| it.strip_prefix("Max open files")?.split_whitespace().next());
        if limit.and_then(|it| it.parse().ok()).is_some_and(|limit: usize| limit < needed) {
            missing.push(format!("a limit of {needed} open files. To raise it:\nulimit -n {needed}"));
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("Missing: {}", missing.join("\nMissing: ")).into()) }
    }
}
