//! How to log.

use serde::Deserialize;

use super::{Faults, Texts, Variable};

pub(super) const VARIABLES: &[Variable] = &[
    ("LOG_FORMAT", "text", "text or json"),
    ("RUST_LOG", "info", "what is logged: error, warn, info, debug, trace, or module=level, with commas between"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    log_format: Option<String>,
    rust_log: Option<String>,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Log {
    /// `LOG_FORMAT`.
    pub format: LogFormat,
    /// `RUST_LOG`.
    pub filter: String,
}

/// `LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Log {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let format =
            faults.read("LOG_FORMAT", env.log_format.as_ref(), LogFormat::Text, "text or json", |text| match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            });
        let allowed = "error, warn, info, debug, trace, or module=level, with commas between";
        let filter = faults.read("RUST_LOG", env.rust_log.as_ref(), "info".to_owned(), allowed, |text| {
            text.parse::<tracing_subscriber::EnvFilter>().is_ok().then(|| text.to_owned())
        });
        Self { format, filter }
    }
}
