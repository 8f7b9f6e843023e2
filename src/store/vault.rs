//! [`Vault`]: what replicas share beside frames.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{error::Error, session::SessionId};

/// Ended logins that are remembered in memory at most. Users cannot log in so often that it is reached.
const MAX_ENDED: usize = 1_000_000;

/// What replicas share beside frames: the secret that they sign with, which logins have been ended, and who pushes to a session
/// that takes pictures of one producer at a time.
#[async_trait]
pub trait Vault: Send + Sync {
    /// The secret: `candidate` where there was none before.
    async fn secret(&self, candidate: &str) -> Result<String, Error>;

    /// Ends a login, which would run out by itself after `life`.
    async fn end_login(&self, login: Uuid, life: Duration) -> Result<(), Error>;

    /// Whether a login has been ended.
    async fn is_ended(&self, login: Uuid) -> Result<bool, Error>;

    /// Makes a producer the one that pushes to a session, for `life`: who was it before, on whichever replica.
    async fn hold(&self, session: &SessionId, holder: Uuid, life: Duration) -> Result<Option<Uuid>, Error>;

    /// Who that is, from now on for `life`.
    async fn holder(&self, session: &SessionId, life: Duration) -> Result<Option<Uuid>, Error>;
}

/// A vault for one process.
#[derive(Default)]
pub struct MemoryVault {
    ended: Mutex<HashMap<Uuid, Instant>>,
}

#[async_trait]
impl Vault for MemoryVault {
    async fn secret(&self, candidate: &str) -> Result<String, Error> {
        Ok(candidate.to_owned())
    }

    async fn end_login(&self, login: Uuid, life: Duration) -> Result<(), Error> {
        let mut ended = self.ended.lock();
        if ended.len() >= MAX_ENDED {
            let now = Instant::now();
            ended.retain(|_, until| *until > now);
        }
        if ended.len() >= MAX_ENDED {
            return Err(Error::StoreFull("too many logins have been ended; wait until they run out"));
        }
        ended.insert(login, Instant::now() + life);
        Ok(())
    }

    async fn is_ended(&self, login: Uuid) -> Result<bool, Error> {
        Ok(self.ended.lock().contains_key(&login))
    }

    /// There is no other replica.
    async fn hold(&self, _: &SessionId, _: Uuid, _: Duration) -> Result<Option<Uuid>, Error> {
        Ok(None)
    }

    async fn holder(&self, _: &SessionId, _: Duration) -> Result<Option<Uuid>, Error> {
        Ok(None)
    }
}
