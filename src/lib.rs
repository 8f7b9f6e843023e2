//! Image Streamer: a relay for streams of still images.
//!
//! Producers push pictures to a session over plain HTTP; consumers take them back in order, viewers watch them live. This crate is the server as
//! a library, so that tests, benches and the `image-streamer` binary all use the same one.
//!
//! The map of the house, from the street to the cellar; a module uses those below it and never those above
//! (`tests/it/layers.rs` holds it to that):
//!
//! | module | what it is |
//! |---|---|
//! | [`androidcam`], [`demo`], [`healthcheck`], [`user_command`] | what the binary's other commands do |
//! | [`app`] | opens the store, binds the listener, winds everything up |
//! | [`gateway`], [`vicer`] | the ports for Socket.IO clients and for VICER's |
//! | [`redirect`], [`tls`] | plain HTTP sent to HTTPS; certificate and handshakes |
//! | [`http`] | every route on one page, errors as answers |
//! | [`ingest`], [`egress`], [`control`], [`api`], [`account`], [`acme`] | the handlers: ways in, ways out, everything else |
//! | [`ui`], [`edge`] | what people see; how a request has come |
//! | [`hub`] | what all ways in and out share |
//! | [`auth`] | who may do what |
//! | [`telemetry`] | logging and metrics |
//! | [`config`] | what can be set |
//! | [`store`] | where frames wait: the contract, in memory, on Redis |
//! | [`websocket`] | what the WebSocket routes share |
//! | [`connection`] | a client's connection below the HTTP layer |
//! | [`port`] | a port with threads of its own |
//! | [`reload`] | what is read from files, again when they change |
//! | [`session`], [`frame`], [`error`], [`placeholder`], [`wire`] | the words everything is said in |

pub mod account;
pub mod acme;
pub mod androidcam;
pub mod api;
pub mod app;
pub mod auth;
pub mod config;
pub mod connection;
pub mod control;
pub mod demo;
pub mod edge;
pub mod egress;
pub mod error;
pub mod frame;
pub mod gateway;
pub mod healthcheck;
pub mod http;
pub mod hub;
pub mod ingest;
pub mod placeholder;
pub mod port;
pub mod redirect;
pub mod reload;
pub mod session;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod ui;
pub mod user_command;
pub mod vicer;
pub mod websocket;
pub mod wire;
