//! [`Seats`]: one phone at a time pushes to a session; who comes later takes over, on whichever replica.
//!
//! In this process that is so from one picture to the next. Between replicas the vault tells who it is: a phone pushes only
//! if it was told so a moment ago, and who takes over from another replica waits for as long as the other may still push.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    error::Error,
    session::SessionId,
    store::{redis::STORE_DEADLINE, vault::Vault},
};

/// How long a phone relies on what the vault said.
const RELY: Duration = Duration::from_secs(1);
/// How long the vault remembers a phone of which it hears nothing.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long a phone of another replica may still push after the vault has named the next one: what it begins in time takes its
/// time.
const TAKEOVER_PAUSE: Duration = RELY.saturating_add(STORE_DEADLINE).saturating_add(Duration::from_millis(200));

/// Every session that a phone of this process pushes to, and which one.
pub(super) struct Seats {
    vault: Arc<dyn Vault>,
    seats: Mutex<HashMap<SessionId, Arc<Seat>>>,
}

#[derive(Default)]
struct Seat {
    holder: Mutex<Holder>,
    /// Held by who is pushing.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Holder {
    id: Uuid,
    /// Cancelled when another phone of this process takes over.
    taken_over: CancellationToken,
}

/// The right of one phone to push to its session, until another takes over. It ends when it is dropped.
pub(super) struct Claim {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
    session: SessionId,
    holder: Holder,
    /// When the vault last said that it is this one.
    told: Mutex<Instant>,
}

impl Seats {
    pub(super) fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault, seats: Mutex::default() }
    }

    /// Takes over a session. Nothing of who held it is pushed any more when this is done.
    ///
    /// # Errors
    /// [`Error::TakenOver`] where the next one has come already; the vault's.
    pub(super) async fn claim(self: &Arc<Self>, session: SessionId) -> Result<Claim, Error> {
        let holder = Holder { id: Uuid::new_v4(), taken_over: CancellationToken::new() };
        let (seat, before) = {
            let mut seats = self.seats.lock();
            let seat = seats.entry(session.clone()).or_default().clone();
            let before = std::mem::replace(&mut *seat.holder.lock(), holder.clone());
            before.taken_over.cancel();
            (seat, before)
        };
        let claim = Claim { seats: self.clone(), seat, session, holder, told: Instant::now().into() };
        let told = {
            // What the other was just pushing comes first.
            let _turn = claim.seat.turn.lock().await;
            if claim.holder.taken_over.is_cancelled() {
                return Err(Error::TakenOver);
            }
            self.vault.hold(&claim.session, claim.holder.id, REMEMBERED).await?
        };
        *claim.told.lock() = Instant::now();
        if told.is_some_and(|other| other != before.id) {
            sleep(TAKEOVER_PAUSE).await;
        }
        Ok(claim)
    }
}

impl Claim {
    /// The session.
    pub(super) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Done when another phone of this process has taken over.
    pub(super) async fn taken_over(&self) {
        self.holder.taken_over.cancelled().await;
    }

    /// Whether the session is still this phone's, if that was not asked just now.
    ///
    /// # Errors
    /// [`Error::TakenOver`]; the vault's.
    pub(super) async fn check(&self) -> Result<(), Error> {
        if self.holder.taken_over.is_cancelled() {
            return Err(Error::TakenOver);
        }
        let now = Instant::now();
        if now.duration_since(*self.told.lock()) < RELY {
            return Ok(());
        }
        match self.seats.vault.holder(&self.session, REMEMBERED).await? {
            Some(holder) if holder != self.holder.id => return Err(Error::TakenOver),
            Some(_) => {}
            // It was long out of reach, or has lost its memory.
            None => drop(self.seats.vault.hold(&self.session, self.holder.id, REMEMBERED).await?),
        }
        // From before it was asked: it may have changed its mind since.
        *self.told.lock() = now;
        Ok(())
    }

    /// Pushes, if the session is still this phone's.
    ///
    /// # Errors
    /// [`Error::TakenOver`], the vault's, or that of `push`.
    pub(super) async fn push<T>(&self, push: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let _turn = self.seat.turn.lock().await;
        self.check().await?;
        push.await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut seats = self.seats.seats.lock();
        // Who takes over says so while the seats are locked: whoever has not been told holds it still.
        if !self.holder.taken_over.is_cancelled() {
            seats.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::vault::MemoryVault;

    fn seats() -> Arc<Seats> {
        Arc::new(Seats::new(Arc::new(MemoryVault::default())))
    }

    #[actix_web::test]
    async fn who_comes_later_takes_over_and_a_seat_that_nobody_holds_is_forgotten() {
        let (seats, session) = (seats(), "ann".parse::<SessionId>().unwrap());
        let older = seats.claim(session.clone()).await.unwrap();
        assert!(older.push(async { Ok(()) }).await.is_ok());
        let newer = seats.claim(session.clone()).await.unwrap();
        older.taken_over().await;
        assert!(matches!(older.push(async { Ok(()) }).await, Err(Error::TakenOver)));
        drop(older);
        assert!(newer.push(async { Ok(()) }).await.is_ok());
        drop(newer);
        assert!(seats.seats.lock().is_empty());
    }

    #[actix_web::test]
    async fn taking_over_waits_for_what_is_just_being_pushed() {
        let (seats, session) = (seats(), "ann".parse::<SessionId>().unwrap());
        let older = seats.claim(session.clone()).await.unwrap();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let push = older.push(async { finished.await.map_err(Error::unavailable) });
        let take_over = seats.claim(session);
        tokio::pin!(push, take_over);
        assert!(futures_util::poll!(push.as_mut()).is_pending());
        assert!(futures_util::poll!(take_over.as_mut()).is_pending());
        finish.send(()).unwrap();
        assert!(push.await.is_ok());
        take_over.await.unwrap();
    }
}
