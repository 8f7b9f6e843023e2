//! Logging and metrics.

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// What is logged less of, unless `RUST_LOG` names it: rustls warns of every client that handshakes badly, and there are
/// cameras that always do.
const QUIET: &str = "rustls=error";

/// Sends the process's log to standard error. Does nothing where one has been set up before.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let set_up = match log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    if set_up.is_err() {
        tracing::debug!("a log is set up already");
    }
}
