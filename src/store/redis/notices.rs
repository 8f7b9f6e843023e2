//! What is told of pushes: the audience of the channels `is:{S}:live`.

use super::{
    keys::{Keys, session_of_live},
    subscriber::Audience,
};
use crate::{
    frame::Seq,
    session::SessionId,
    store::{Listeners, Notice},
};

impl Audience for Listeners {
    fn channel(session: &SessionId) -> String {
        Keys(session).live()
    }

    fn session_of(channel: &[u8]) -> Option<SessionId> {
        session_of_live(channel)
    }

    fn sessions(&self) -> Vec<SessionId> {
        self.listened_to()
    }

    fn hear(&self, session: &SessionId, message: &[u8]) {
        self.tell(session, read_notice(message));
    }

    fn missed(&self) {
        self.tell_all();
    }
}

/// What is published: the number of a frame that was pushed, or nothing where a session was removed.
fn read_notice(message: &[u8]) -> Notice {
    let number = std::str::from_utf8(message).ok().and_then(|number| number.parse().ok());
    number.map_or(Notice::Look, |number| Notice::Pushed(Seq(number)))
}
