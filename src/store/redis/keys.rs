//! Every key in Redis, built in one place.
//!
//! All keys of a session carry its id as their hash tag, so a session lives on one node of a Redis Cluster and one
//! script may touch all of it. Session ids hold neither `{` nor `}`, so the tag is always the whole id.

use uuid::Uuid;

use crate::session::SessionId;

/// In how many sorted sets the index of sessions is spread, so that a cluster spreads the work.
pub(super) const INDEX_SHARDS: usize = 16;

const PREFIX: &str = "is:{";
const LIVE_SUFFIX: &str = "}:live";
const CONTROL_SUFFIX: &str = "}:control";

/// The keys of one session.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(pub(super) &'a SessionId);

impl Keys<'_> {
    /// String: the number of the newest frame, and six more that tell when the session began and how fast it goes
    /// (`prelude.lua`). It exists exactly as long as the session does.
    pub(super) fn counter(self) -> String {
        self.key("}:seq")
    }

    /// List: the numbers of the frames that wait, oldest first.
    pub(super) fn queue(self) -> String {
        self.key("}:queue")
    }

    /// What the key of every frame starts with; its number follows.
    pub(super) fn frames(self) -> String {
        self.key("}:f:")
    }

    /// The pattern of every frame's key.
    pub(super) fn every_frame(self) -> String {
        self.key("}:f:*")
    }

    /// String: one frame.
    pub(super) fn frame(self, number: u64) -> String {
        format!("{PREFIX}{}}}:f:{number}", self.0)
    }

    /// String: a frame that has no number yet.
    pub(super) fn waiting(self, unique: &str) -> String {
        format!("{PREFIX}{}}}:in:{unique}", self.0)
    }

    /// Channel: every number as it is given.
    pub(super) fn live(self) -> String {
        self.key(LIVE_SUFFIX)
    }

    /// Channel: what operators say to vehicles, and what they are told.
    pub(super) fn control(self) -> String {
        self.key(CONTROL_SUFFIX)
    }

    /// String: who holds the wheel.
    pub(super) fn wheel(self) -> String {
        self.key("}:wheel")
    }

    /// Hash: by vehicle, what operators are told of it and until when that holds.
    pub(super) fn vehicles(self) -> String {
        self.key("}:vehicles")
    }

    /// String: which producer pushes to it, where only one at a time does.
    pub(super) fn holder(self) -> String {
        self.key("}:holder")
    }

    /// Hash: by replica, how many viewers it has and until when that holds.
    pub(super) fn viewers(self) -> String {
        self.key("}:viewers")
    }

    /// Sorted set: where the session stands in the index.
    pub(super) fn index_shard(self) -> String {
        // FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/): replicas of every version must agree on the shard.
        let hash = self
            .0
            .as_str()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        index_shard(hash as usize % INDEX_SHARDS)
    }

    fn key(self, suffix: &str) -> String {
        let id = self.0.as_str();
        let mut key = String::with_capacity(PREFIX.len() + id.len() + suffix.len());
        key.push_str(PREFIX);
        key.push_str(id);
        key.push_str(suffix);
        key
    }
}

/// Sorted set: session ids, scored by the latest time at which the session can still exist, in Unix milliseconds.
pub(super) fn index_shard(number: usize) -> String {
    format!("is:sessions:{{{number}}}")
}

/// String: what links and logins are signed with. It never expires.
pub(super) const SECRET: &str = "is:secret";

/// String: this login has been ended. It expires when the login would have.
pub(super) fn ended_login(login: Uuid) -> String {
    format!("is:ended:{}", login.simple())
}

/// The session whose pushes a channel tells of.
pub(super) fn session_of_live(channel: &[u8]) -> Option<SessionId> {
    session_of(channel, LIVE_SUFFIX)
}

/// The session whose commands a channel carries.
pub(super) fn session_of_control(channel: &[u8]) -> Option<SessionId> {
    session_of(channel, CONTROL_SUFFIX)
}

fn session_of(channel: &[u8], suffix: &str) -> Option<SessionId> {
    std::str::from_utf8(channel).ok()?.strip_prefix(PREFIX)?.strip_suffix(suffix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_leads_back_to_its_session() {
        let session: SessionId = "front-door@home".parse().unwrap();
        let keys = Keys(&session);
        assert_eq!(session_of_live(keys.live().as_bytes()).as_ref(), Some(&session));
        assert_eq!(session_of_control(keys.control().as_bytes()).as_ref(), Some(&session));
        assert_eq!((session_of_live(b"something else"), session_of_live(keys.control().as_bytes())), (None, None));
    }
}
