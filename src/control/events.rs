//! `GET /control/{session}`: the vehicle's side for small devices, as server-sent events or by long polls.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{
    Relay, Terms, Words, poll,
    vehicle::{Order, Vehicle},
};
use crate::{
    auth::Visitor,
    connection::{EndlessBody, Outlet},
    error::Error,
    session::SessionId,
    wire::{error_body::ErrorBody, query::Query},
};

/// What comes at once: the stamp that every message begins with, which is a comment, and no event. See [`stamp`].
const FIRST: Bytes = Bytes::from_static(b":0\n\n");
/// What comes after the stamp in every silence. From its absence a vehicle knows that the link is silent.
const HEARTBEAT: Bytes = Bytes::from_static(b"\n");

/// Listens to commands, as a vehicle.
///
/// Server-sent events: a text is the `data` of an event, and anything else, or a text with a carriage return, that of an event
/// `binary`, in base64. Each begins with a comment: milliseconds since the answer began. A comment alone comes in every quarter of the
/// lease without a command. With `wait` it is a long poll: the answer is
/// one command, or 204 where none has come by then; who polls again within 2 s (or the lease, if that is longer) misses none in
/// between, at this server.
#[utoipa::path(
    get, path = "/control/{session}", tag = "control", operation_id = "listenToCommands",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("lease" = Option<u32>, Query, description = "milliseconds after the latest command or operator's ping until it is stopped, 50 to 60000; 500 by default"),
        ("stop" = Option<String>, Query, description = "the text that stops it"),
        ("stop64" = Option<String>, Query, description = "the same for bytes, in base64"),
        ("vehicle" = Option<String>, Query, description = "its name; several that poll from one address need one each"),
        ("wait" = Option<f64>, Query, description = "a long poll: seconds, 0 to 60"),
    ),
    responses(
        (status = 200, description = "events; of a long poll the command", content((String = "text/event-stream"), (String = "text/plain"), (Vec<u8> = "application/octet-stream"))),
        (status = 204, description = "of a long poll: no command has come"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 409, description = "poll_replaced: the same vehicle has polled again", body = ErrorBody),
        (status = 503, description = "too many are there, or the store is away", body = ErrorBody),
    ),
)]
pub async fn listen(
    session: SessionId,
    visitor: Visitor,
    relay: web::Data<Relay>,
    request: HttpRequest,
) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let (terms, name, relay) = (Terms::read(&query)?, Terms::read_name(&query)?, relay.into_inner());
    if query.get("wait").is_some() {
        return poll::poll(relay, session, &visitor, name, terms, query.wait()?).await;
    }
    let outlet = Outlet::of(&request)?;
    let vehicle = relay.vehicle(session, &name, terms).await?;
    outlet.give_up_unacknowledged_after(vehicle.lease().min(relay.ttl()));
    let body = EndlessBody::new(FIRST, &outlet, serve(vehicle, outlet.clone()));
    let mut response = HttpResponse::Ok();
    let mut response = response
        .force_close()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .body(body);
    response.head_mut().no_chunking(true);
    Ok(response)
}

async fn serve(mut vehicle: Vehicle, outlet: Outlet) {
    let lease = vehicle.lease();
    let every = vehicle.heartbeat();
    let begun = Instant::now();
    let send = |message: Bytes| {
        outlet.send([stamp(begun), message, Bytes::new()]);
        Instant::now()
    };
    // When something was last handed to the network, and what stops the vehicle where that has not been taken yet.
    let (mut last, mut stop) = (Instant::now(), None::<Words>);
    loop {
        let is_idle = outlet.is_idle();
        if is_idle && let Some(stop) = stop.take() {
            last = send(event(&stop));
            continue;
        }
        tokio::select! {
            () = outlet.sent(), if !is_idle => {}
            order = vehicle.next(is_idle) => match order {
                Order::Command(words) => last = send(event(&words)),
                Order::Stop(words) => stop = Some(words),
                Order::End => return,
            },
            () = sleep_until(last + every), if is_idle => last = send(HEARTBEAT),
            // It takes nothing: what waits for it would come too late.
            () = sleep_until(last + lease), if !is_idle => return outlet.reset(),
        }
    }
}

/// What each message begins with: when it was sent, in milliseconds since the answer began. Since that was after it was asked for, a
/// message is no older than what has passed for the vehicle since it asked, less its stamp. So a vehicle sees a delay that grows little
/// by little, which the kernel's acknowledgements do not tell. An `EventSource` passes comments over.
fn stamp(begun: Instant) -> Bytes {
    format!(":{}\n", begun.elapsed().as_millis()).into()
}

/// A message as an event (<https://html.spec.whatwg.org/multipage/server-sent-events.html>). Lines end with a line feed; a carriage
/// return would be another end of line, and so cannot be sent as such.
fn event(words: &Words) -> Bytes {
    let text = std::str::from_utf8(&words.bytes).ok().filter(|text| words.is_text && !text.contains('\r'));
    let Some(text) = text else {
        return format!("event: binary\ndata: {}\n\n", BASE64_STANDARD.encode(&words.bytes)).into();
    };
    let mut event = String::with_capacity(text.len() + 8);
    for line in text.split('\n') {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_data_and_everything_else_is_base64() {
        let event = |is_text, bytes: &'static [u8]| {
            String::from_utf8(event(&Words { is_text, bytes: bytes.into() }).to_vec()).unwrap()
        };
        assert_eq!(event(true, b"go"), "data: go\n\n");
        assert_eq!(event(true, b" a\n\nb\n"), "data:  a\ndata: \ndata: b\ndata: \n\n");
        assert_eq!(event(true, b"a\r\nb"), "event: binary\ndata: YQ0KYg==\n\n");
        assert_eq!(event(false, b"go"), "event: binary\ndata: Z28=\n\n");
        assert_eq!(event(true, b"\xff"), "event: binary\ndata: /w==\n\n");
    }
}
