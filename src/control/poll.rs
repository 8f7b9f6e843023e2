//! Vehicles that ask for one command after the other. Each listens on for a while between two of its polls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Relay, Terms,
    vehicle::{Order, Vehicle},
};
use crate::{auth::Visitor, error::Error, session::SessionId};

/// How long it listens on without polling at least; where its lease is longer, for that.
const LISTENS_ON: Duration = Duration::from_secs(2);

/// Every vehicle that polls this server.
#[derive(Default)]
pub(super) struct Polled(Mutex<HashMap<Poller, Arc<Seat>>>);

/// Which vehicle it is that polls: where it is, what it is called, and its terms.
type Poller = (SessionId, String, String, Terms);

struct Seat {
    /// Held by the poll that is answered.
    vehicle: tokio::sync::Mutex<Vehicle>,
    /// That of the latest poll, cancelled when another one comes.
    turn: Mutex<CancellationToken>,
}

/// One poll, until it is answered or its client has gone.
struct Turn {
    relay: Arc<Relay>,
    poller: Poller,
    seat: Arc<Seat>,
    token: CancellationToken,
    listens_on: Duration,
}

impl Turn {
    async fn begin(relay: Arc<Relay>, poller: Poller) -> Result<Self, Error> {
        let token = CancellationToken::new();
        // Under the lock of all seats: one that is just being forgotten is not found, or not forgotten.
        let sit = |seat: &Arc<Seat>| {
            std::mem::replace(&mut *seat.turn.lock(), token.clone()).cancel();
            seat.clone()
        };
        let known = relay.polled.0.lock().get(&poller).map(sit);
        let seat = match known {
            Some(seat) => seat,
            None => {
                let (session, _, name, terms) = &poller;
                let vehicle = relay.vehicle(session.clone(), name, terms.clone()).await?.into();
                let seat = Arc::new(Seat { vehicle, turn: Mutex::default() });
                sit(relay.polled.0.lock().entry(poller.clone()).or_insert(seat))
            }
        };
        let listens_on = poller.3.lease.max(LISTENS_ON);
        Ok(Self { relay, poller, seat, token, listens_on })
    }

    /// Its next order, if one comes in time.
    async fn order(&self, wait: Duration) -> Result<Option<Order>, Error> {
        let order = async {
            let mut vehicle = self.seat.vehicle.lock().await;
            timeout(wait, vehicle.next(true)).await.ok()
        };
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(Error::PollReplaced),
            order = order => Ok(order),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (relay, poller, seat) = (self.relay.clone(), self.poller.clone(), self.seat.clone());
        let (token, listens_on) = (self.token.clone(), self.listens_on);
        self.relay.spawn(async move {
            tokio::select! {
                () = sleep(listens_on) => {}
                // It has polled again.
                () = token.cancelled() => return Ok(()),
            }
            let mut polled = relay.polled.0.lock();
            if !token.is_cancelled() && polled.get(&poller).is_some_and(|it| Arc::ptr_eq(it, &seat)) {
                polled.remove(&poller);
            }
            Ok(())
        });
    }
}

/// Answers one poll.
pub(super) async fn poll(
    relay: Arc<Relay>,
    session: SessionId,
    visitor: &Visitor,
    name: String,
    terms: Terms,
    wait: Duration,
) -> Result<HttpResponse, Error> {
    let turn = Turn::begin(relay, (session, visitor.fingerprint(), name, terms)).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    Ok(match turn.order(wait).await? {
        Some(Order::Command(words) | Order::Stop(words)) => {
            let kind = if words.is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            response.content_type(kind).body(words.bytes)
        }
        Some(Order::End) | None => {
            HttpResponse::NoContent().insert_header((header::CACHE_CONTROL, "no-store")).finish()
        }
    })
}
