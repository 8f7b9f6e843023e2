//! The product, tested through real sockets, real processes and a real Redis: one executable, a module per feature.
//!
//! What needs time or load is scaled by `PROOF`: `make proof` runs the same code, larger.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is all test code: what cannot go on fails, in helpers as in tests"
)]

mod access;
mod acme;
mod androidcam;
mod bad_input;
mod browser;
mod caps;
mod command_line;
mod control;
mod cors;
mod cross_site;
mod cursor;
mod edge;
mod expiry;
mod harness;
mod layers;
mod links;
mod live;
mod live_programs;
mod live_replicas;
mod login_browser;
mod login_programs;
mod logins;
mod memory;
mod metrics;
mod openapi;
mod outages;
mod pages;
mod programs;
mod proxy;
mod push_stream;
mod queue;
mod readers;
mod readme;
mod redis_url;
mod replicas;
mod ros;
mod secrets;
mod sessions;
mod shutdown;
mod snapshot;
mod store;
mod tester;
mod tls;
mod users;
mod websockets;
