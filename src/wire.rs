//! Codecs without sockets: they turn what is on the wire into values.

pub mod accept;
pub mod engineio;
pub mod error_body;
pub mod header;
pub mod mjpeg;
pub mod pictures;
pub mod query;
pub mod vicer;
pub mod websocket;
