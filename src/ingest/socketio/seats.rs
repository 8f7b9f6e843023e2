//! [`Seats`]: one phone at a time pushes to a session; who comes later takes over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{error::Error, session::SessionId};

/// Every session that a phone pushes to, and which one.
#[derive(Default)]
pub(super) struct Seats(Mutex<HashMap<SessionId, Arc<Seat>>>);

struct Seat {
    /// Cancelled when another takes over.
    holder: Mutex<CancellationToken>,
    /// Held by who is pushing.
    turn: tokio::sync::Mutex<()>,
}

/// The right of one phone to push to its session, until another takes over. It ends when it is dropped.
pub(super) struct Claim {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
    session: SessionId,
    taken_over: CancellationToken,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    /// Takes over a session. Nothing of who held it is pushed any more when this is done.
    pub(super) async fn claim(self: &Arc<Self>, session: SessionId) -> Claim {
        let taken_over = CancellationToken::new();
        let seat = {
            let mut seats = locked(&self.0);
            let new = || Seat { holder: CancellationToken::new().into(), turn: tokio::sync::Mutex::default() };
            let seat = seats.entry(session.clone()).or_insert_with(|| Arc::new(new())).clone();
            std::mem::replace(&mut *locked(&seat.holder), taken_over.clone()).cancel();
            seat
        };
        // What it was just pushing comes first.
        drop(seat.turn.lock().await);
        Claim { seats: self.clone(), seat, session, taken_over }
    }
}

impl Claim {
    /// The session.
    pub(super) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Done when another has taken over.
    pub(super) async fn taken_over(&self) {
        self.taken_over.cancelled().await;
    }

    /// Pushes, if the session is still this phone's.
    ///
    /// # Errors
    /// [`Error::TakenOver`], or that of `push`.
    pub(super) async fn push<T>(&self, push: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let _turn = self.seat.turn.lock().await;
        if self.taken_over.is_cancelled() {
            return Err(Error::TakenOver);
        }
        push.await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut seats = locked(&self.seats.0);
        // Who takes over says so while the seats are locked: whoever has not been told holds it still.
        if !self.taken_over.is_cancelled() {
            seats.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn who_comes_later_takes_over_and_a_seat_that_nobody_holds_is_forgotten() {
        let (seats, session) = (Arc::new(Seats::default()), "ann".parse::<SessionId>().unwrap());
        let older = seats.claim(session.clone()).await;
        assert!(older.push(async { Ok(()) }).await.is_ok());
        let newer = seats.claim(session.clone()).await;
        older.taken_over().await;
        assert!(matches!(older.push(async { Ok(()) }).await, Err(Error::TakenOver)));
        drop(older);
        assert!(newer.push(async { Ok(()) }).await.is_ok());
        drop(newer);
        assert!(locked(&seats.0).is_empty());
    }

    #[actix_web::test]
    async fn taking_over_waits_for_what_is_just_being_pushed() {
        let (seats, session) = (Arc::new(Seats::default()), "ann".parse::<SessionId>().unwrap());
        let older = seats.claim(session.clone()).await;
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let push = older.push(async { finished.await.map_err(Error::unavailable) });
        let take_over = seats.claim(session);
        tokio::pin!(push, take_over);
        assert!(futures_util::poll!(push.as_mut()).is_pending());
        assert!(futures_util::poll!(take_over.as_mut()).is_pending());
        finish.send(()).unwrap();
        assert!(push.await.is_ok());
        take_over.await;
    }
}
