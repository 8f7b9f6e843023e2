//! The Socket.IO gateway.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Faults, Texts, Variable};
use crate::{error::Error, session::SessionId};

/// What stands for the user's name in `SOCKETIO_SESSION`.
const USERNAME: &str = "{username}";

pub(super) const VARIABLES: &[Variable] = &[
    (
        "SOCKETIO_PORT",
        "unset",
        "port for Socket.IO clients: AndroidCamStream's default is 8080; 0 takes a free one; unset: off",
    ),
    ("SOCKETIO_HOST", "as HOST", "address to listen on for them"),
    ("SOCKETIO_SESSION", "{username}", "session that a phone pushes to, with {username} where the user's name goes"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    socketio_port: Option<String>,
    socketio_host: Option<String>,
    socketio_session: Option<String>,
}

/// The Socket.IO gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketIo {
    /// `SOCKETIO_PORT`; 0 takes a free one, `None` is off.
    pub port: Option<u16>,
    /// `SOCKETIO_HOST`; where it is not set, what `HOST` or the command line says.
    pub ip: Option<IpAddr>,
    /// `SOCKETIO_SESSION`.
    pub session: SessionTemplate,
}

impl SocketIo {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let port = faults.read("SOCKETIO_PORT", env.socketio_port.as_ref(), None, "a port from 0 to 65535", |text| {
            text.parse().ok().map(Some)
        });
        let allowed = "an IP address, like 0.0.0.0, 127.0.0.1 or ::";
        let ip =
            faults.read("SOCKETIO_HOST", env.socketio_host.as_ref(), None, allowed, |text| text.parse().ok().map(Some));
        let allowed = "a session id with {username} where the user's name goes, like phone-{username}: \
                       letters, digits and . _ @ -, 128 at most";
        let default = SessionTemplate(USERNAME.into());
        let session = faults.read("SOCKETIO_SESSION", env.socketio_session.as_ref(), default, allowed, |text| {
            let template = SessionTemplate(text.to_owned());
            template.session("a").is_ok().then_some(template)
        });
        Self { port, ip, session }
    }
}

/// Which session a phone pushes to: `SOCKETIO_SESSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTemplate(String);

impl SessionTemplate {
    /// The session of a user.
    ///
    /// # Errors
    /// [`Error::BadSession`] where the name is none that a session could have, or what comes of it is too long.
    pub fn session(&self, username: &str) -> Result<SessionId, Error> {
        username.parse::<SessionId>()?;
        self.0.replace(USERNAME, username).parse()
    }
}
