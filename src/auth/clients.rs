//! What one client, a user or an address, does at once, and how much of it is let.

use std::{
    collections::HashMap,
    num::{NonZero, NonZeroU32},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use parking_lot::Mutex;

use super::Network;
use crate::{config::ClientLimits, error::Error, session::SessionId};

/// Clients that are remembered at most. Whoever is forgotten begins anew.
const REMEMBERED: NonZero<usize> = NonZero::new(16_384).unwrap();

/// Logins of one user that may follow each other at once, and how many a minute after that. What was ended of them has to be
/// remembered for as long as it would have lasted.
const LOGINS_AT_ONCE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// See [`LOGINS_AT_ONCE`].
const LOGINS_A_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Sessions of one client among which those that have ended are not looked for.
const FEW_SESSIONS: usize = 64;

/// Who counts as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A user, from wherever.
    User(String),
    /// An address, where nobody has logged in.
    Address(Network),
}

/// Every client of this server.
pub(super) struct Clients {
    limits: ClientLimits,
    /// How long a session counts after its last push: `EXPIRE`.
    session_life: Duration,
    clients: Mutex<LruCache<Name, Arc<Client>>>,
}

/// What one client does.
pub struct Client {
    limits: ClientLimits,
    session_life: Duration,
    pushes: Option<DefaultDirectRateLimiter>,
    logins: DefaultDirectRateLimiter,
    viewers: AtomicUsize,
    sessions: Mutex<Sessions>,
}

/// The sessions that one client pushes to.
#[derive(Default)]
struct Sessions {
    /// When each was last pushed to.
    last: HashMap<SessionId, Instant>,
    /// When those that have ended were last looked for.
    cleared: Option<Instant>,
}

impl Sessions {
    /// Forgets those that have ended, if that was not just done.
    fn clear(&mut self, life: Duration) {
        let pause = life.min(Duration::from_secs(1));
        if self.cleared.is_none_or(|cleared| cleared.elapsed() >= pause) {
            self.last.retain(|_, last| last.elapsed() < life);
            self.cleared = Some(Instant::now());
        }
    }
}

/// One session that a client watches. Dropping it makes room for another.
pub struct Watching(Arc<Client>);

impl Clients {
    pub(super) fn new(limits: ClientLimits, session_life: Duration) -> Self {
        Self { limits, session_life, clients: LruCache::new(REMEMBERED).into() }
    }

    pub(super) fn get(&self, name: Name) -> Arc<Client> {
        let new = || {
            let pushes =
                NonZeroU32::new(self.limits.push_rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
            let logins = RateLimiter::direct(Quota::per_minute(LOGINS_A_MINUTE).allow_burst(LOGINS_AT_ONCE));
            let (viewers, sessions) = (AtomicUsize::new(0), Mutex::default());
            Arc::new(Client { limits: self.limits, session_life: self.session_life, pushes, logins, viewers, sessions })
        };
        self.clients.lock().get_or_insert(name, new).clone()
    }
}

impl Client {
    /// Whether one more picture may be pushed to the session.
    ///
    /// # Errors
    /// [`Error::ClientLimit`].
    pub fn may_push(&self, session: &SessionId) -> Result<(), Error> {
        let limit = self.limits.sessions;
        if limit > 0 {
            let mut sessions = self.sessions.lock();
            if sessions.last.len() >= limit && !sessions.last.contains_key(session) {
                sessions.clear(self.session_life);
                if sessions.last.len() >= limit {
                    let what = "too many sessions pushed to at once";
                    return Err(Error::ClientLimit { what, limit, variable: "MAX_CLIENT_SESSIONS" });
                }
            }
        }
        if self.pushes.as_ref().is_some_and(|pushes| pushes.check().is_err()) {
            let (what, limit) = ("too many pictures pushed a second", self.limits.push_rate as usize);
            return Err(Error::ClientLimit { what, limit, variable: "MAX_CLIENT_PUSH_RATE" });
        }
        Ok(())
    }

    /// A picture was pushed to the session.
    pub fn pushed(&self, session: &SessionId) {
        if self.limits.sessions == 0 {
            return;
        }
        let mut sessions = self.sessions.lock();
        match sessions.last.get_mut(session) {
            Some(last) => *last = Instant::now(),
            None => {
                if sessions.last.len() >= FEW_SESSIONS {
                    sessions.clear(self.session_life);
                }
                sessions.last.insert(session.clone(), Instant::now());
            }
        }
    }

    /// Whether the user may log in once more.
    ///
    /// # Errors
    /// [`Error::TooManyLogins`].
    pub fn may_log_in(&self) -> Result<(), Error> {
        self.logins.check().map_err(|_| Error::TooManyLogins { retry_after: Duration::from_secs(6) })
    }

    /// Watches one session more.
    ///
    /// # Errors
    /// [`Error::ClientLimit`].
    pub fn watch(self: &Arc<Self>) -> Result<Watching, Error> {
        let limit = self.limits.viewers;
        // What is taken too much is given back by the drop.
        let watching = Watching(self.clone());
        if self.viewers.fetch_add(1, Ordering::Relaxed) >= limit && limit > 0 {
            return Err(Error::ClientLimit { what: "too many viewers at once", limit, variable: "MAX_CLIENT_VIEWERS" });
        }
        Ok(watching)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_limits_of_its_own_and_zero_is_none() {
        let limits = |number: usize| ClientLimits { push_rate: number as u32, viewers: number, sessions: number };
        let clients = Clients::new(limits(2), Duration::from_millis(50));
        let client = |name: &str| clients.get(Name::User(name.to_owned()));
        let session = |name: &str| name.parse::<SessionId>().unwrap();
        let (ann, code) = (client("ann"), |result: Result<(), Error>| result.err().map(|error| error.code()));

        let watching = [ann.watch().unwrap(), client("ann").watch().unwrap()];
        assert!(ann.watch().is_err() && client("bob").watch().is_ok());
        drop(watching);
        assert!(ann.watch().is_ok());

        for name in ["a", "b"] {
            ann.may_push(&session(name)).unwrap();
            ann.pushed(&session(name));
        }
        assert_eq!(code(ann.may_push(&session("c"))), Some("client_limit"), "sessions");
        assert_eq!(code(ann.may_push(&session("a"))), Some("client_limit"), "pushes a second");
        assert_eq!(code(client("bob").may_push(&session("a"))), None);
        let all = Clients::new(limits(0), Duration::from_secs(1)).get(Name::User("ann".into()));
        for number in 0..100 {
            all.may_push(&session(&number.to_string())).unwrap();
            all.pushed(&session(&number.to_string()));
            std::mem::forget(all.watch().unwrap());
        }
    }

    #[test]
    fn a_session_that_has_ended_makes_room() {
        let limits = ClientLimits { push_rate: 0, viewers: 0, sessions: 1 };
        let client = Clients::new(limits, Duration::ZERO).get(Name::User("ann".into()));
        client.pushed(&"a".parse().unwrap());
        assert!(client.may_push(&"b".parse().unwrap()).is_ok());
    }
}
