//! `/ws/control/{session}?role=vehicle`: it receives commands, as they were sent, and nothing else.

use std::sync::Arc;

use actix_http::ws::CloseCode;

use super::{
    Relay,
    line::{Event, Line},
    vehicle::{Order, Vehicle},
};
use crate::websocket::WebSocket;

/// Serves a vehicle until it has gone.
pub(super) async fn serve(relay: Arc<Relay>, mut vehicle: Vehicle, socket: WebSocket) {
    let lease = vehicle.lease();
    // While a pong is overdue by this, nothing is sent that might arrive too late.
    let half = lease.min(relay.ttl()) / 2;
    let mut line = Line::new(socket, vehicle.heartbeat(), [half, lease]);
    let mut answered = 0;
    loop {
        let overdue = line.pings().overdue();
        if overdue >= lease {
            tracing::debug!(?overdue, "a vehicle has not answered a ping for its lease: its connection is reset");
            return line.reset();
        }
        if line.pings().answered() != answered
            && let Some(round_trip) = line.pings().round_trip()
        {
            answered = line.pings().answered();
            vehicle.noticed(round_trip);
        }
        let may_be_commanded = overdue < half && line.is_idle();
        tokio::select! {
            // A pong that is here is looked at before anything is judged by its absence.
            biased;
            event = line.next() => match event {
                Event::Said(words) if words.is_text => vehicle.says(&String::from_utf8_lossy(&words.bytes)),
                // It is told nothing but commands.
                Event::Said(_) | Event::TooLarge | Event::Look => {}
                Event::End => return line.end().await,
            },
            order = vehicle.next(may_be_commanded) => match order {
                Order::Command(words) | Order::Stop(words) => line.say(&words),
                Order::End => return line.close(CloseCode::Away, "the server ends").await,
            },
        }
    }
}
