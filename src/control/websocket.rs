//! `GET /ws/control/{session}`: operators and vehicles over WebSockets.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    MAX_COMMAND_BYTES, Relay, Terms,
    operator::{self, Operating, Wish},
    vehicle_socket,
};
use crate::{
    auth::{Right, Visitor},
    error::Error,
    session::SessionId,
    websocket::WebSocket,
    wire::{error_body::ErrorBody, query::Query},
};

/// What whoever connects is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Operator,
    Vehicle,
}

/// Commands a vehicle, or is one.
///
/// As `role=operator`: each message, text or binary, is one command, and comes to every vehicle as it is and in order. An empty one is
/// a ping: it renews the leases and is not handed on. What comes back is JSON with a `type`: `status`, `telemetry` and `told`. One
/// operator at a time holds the wheel: the first, or who takes it over.
///
/// As `role=vehicle`: what comes is commands and nothing else. A text that a vehicle sends is shown to operators. It must answer
/// pings: it is sent no command while a pong is overdue by half its lease, and its connection is reset when one is overdue by a whole.
#[utoipa::path(
    get, path = "/ws/control/{session}", tag = "control", operation_id = "controlWebSocket",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("role" = Option<String>, Query, description = "operator (by default; needs the right command) or vehicle (needs publish or command)"),
        ("take" = Option<u8>, Query, description = "of an operator. 1: takes the wheel over from who holds it; 0: does not even take a free one before the first command"),
        ("lease" = Option<u32>, Query, description = "of a vehicle: milliseconds after the latest command or operator's ping until it is stopped, 50 to 60000; 500 by default"),
        ("stop" = Option<String>, Query, description = "of a vehicle: the text that stops it"),
        ("stop64" = Option<String>, Query, description = "the same for bytes, in base64"),
        ("vehicle" = Option<String>, Query, description = "of a vehicle: its name, as operators see it"),
    ),
    responses(
        (status = 101, description = "a WebSocket"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 426, description = "no WebSocket handshake", body = ErrorBody),
        (status = 503, description = "too many are there, or the store is away", body = ErrorBody),
    ),
)]
pub async fn control(
    session: SessionId,
    visitor: Visitor,
    relay: web::Data<Relay>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let role = query.parse("role", "operator or vehicle", |text| match text {
        "operator" => Some(Role::Operator),
        "vehicle" => Some(Role::Vehicle),
        _ => None,
    })?;
    let relay = relay.into_inner();
    match role.unwrap_or(Role::Operator) {
        Role::Operator => {
            visitor.may(Right::Command, &session)?;
            let wish = query.parse("take", "0 or 1", Wish::read)?.unwrap_or(Wish::IfFree);
            WebSocket::check(&request)?;
            let operating = Operating::begin(relay, session, visitor, wish).await?;
            WebSocket::open(&request, payload, MAX_COMMAND_BYTES, move |socket| operator::serve(operating, socket))
        }
        Role::Vehicle => {
            let (terms, name) = (Terms::read(&query)?, Terms::read_name(&query)?);
            WebSocket::check(&request)?;
            let vehicle = relay.vehicle(session, &name, terms).await?;
            WebSocket::open(&request, payload, MAX_COMMAND_BYTES, move |socket| {
                vehicle_socket::serve(relay, vehicle, socket)
            })
        }
    }
}
