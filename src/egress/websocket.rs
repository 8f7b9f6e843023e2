//! `GET /ws/view`: the frames of any number of sessions over one WebSocket.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_http::ws::{CloseCode, OpCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, future::OptionFuture};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{StreamMap, wrappers::WatchStream};

use super::delivery::{Delivery, SLOW};
use crate::{
    auth::{Right, Visitor, clients::Watching},
    error::Error,
    hub::{
        Hub,
        live::{Head, LiveFrame, State, Viewer},
    },
    session::SessionId,
    telemetry::metrics::WayOut,
    websocket::{Input, WebSocket},
    wire::{self, error_body::ErrorBody, query::Query, websocket},
};

/// Sessions that one socket watches at most: more cameras than fit on any wall.
pub const MAX_SUBSCRIPTIONS: usize = 256;
/// The longest message from a viewer, in bytes: all those sessions by name, and room to spare.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What a viewer may send.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Command {
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
}

/// Watches sessions over a WebSocket.
///
/// Each binary message is a frame: one byte with the length of the session id, the id, the frame's number (u64), when it was
/// taken in seconds since 1970 (f64), both big-endian, then the picture. A text message tells that the state of a session
/// has changed: `{"session","state","ageMs"}`, where the state is `live`, `stale` (no frame for STALE_AFTER) or `empty`.
/// With `?clock=1` a frame's time is followed by when it is sent, in ms since 1970 by this server's clock (u64), and by how
/// long before that it was received, in ms (u32): so a page can tell how late it is and compare no two clocks.
/// The viewer changes what it watches by `{"subscribe":["a"]}` and `{"unsubscribe":["a"]}`; what is wrong with that is
/// answered as `{"error":{"code","message"}}`.
#[utoipa::path(
    get, path = "/ws/view", tag = "live", operation_id = "viewWebSocket",
    params(
        ("sessions" = Option<String>, Query, description = "session ids with commas between, 256 at most"),
        ("fps" = Option<f64>, Query, description = "frames a second of each session at most, 0.1 to 60"),
        ("clock" = Option<u8>, Query, description = "1: frames tell when they are sent and how old they are"),
    ),
    responses(
        (status = 101, description = "a WebSocket"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 426, description = "no WebSocket handshake", body = ErrorBody),
        (status = 503, description = "busy", body = ErrorBody),
    ),
)]
pub async fn view(
    visitor: Visitor,
    hub: web::Data<Hub>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    let query = Query::read(request.query_string());
    let interval = query.interval()?;
    let clock = query.parse("clock", "0 or 1", wire::query::flag)?.unwrap_or(false);
    let sessions = query.get("sessions").unwrap_or_default().split(',').filter(|id| !id.is_empty());
    let sessions = sessions.map(str::parse).collect::<Result<Vec<SessionId>, Error>>()?;
    sessions.iter().try_for_each(|session| visitor.may(Right::View, session))?;
    hub.viewing().check()?;
    let hub = hub.into_inner();
    WebSocket::open(&request, payload, MAX_MESSAGE_BYTES, move |socket| async move {
        let mut wall =
            Wall { hub, visitor, socket, interval, clock, changes: StreamMap::new(), watched: HashMap::new() };
        if let Err(error) = wall.subscribe(sessions) {
            wall.socket.send_error(&error).await;
        }
        wall.show().await;
    })
}

/// What a page is told when a session's state changes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateMessage<'a> {
    session: &'a str,
    state: Standing,
    age_ms: Option<u64>,
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Live,
    Stale,
    Empty,
}

/// One session on the wall.
struct Watched {
    _watching: Watching,
    viewer: Viewer,
    told: Option<Standing>,
    delivery: Delivery,
}

/// The viewer was dropped: there is no room for what slow viewers hold.
struct TooSlow;

/// A socket and what it watches.
struct Wall {
    hub: Arc<Hub>,
    visitor: Visitor,
    socket: WebSocket,
    interval: Option<Duration>,
    /// Whether frames tell when they are sent.
    clock: bool,
    changes: StreamMap<SessionId, WatchStream<State>>,
    watched: HashMap<SessionId, Watched>,
}

impl Wall {
    fn subscribe(&mut self, sessions: Vec<SessionId>) -> Result<(), Error> {
        for session in sessions {
            if self.watched.contains_key(&session) {
                continue;
            }
            if self.watched.len() >= MAX_SUBSCRIPTIONS {
                return Err(Error::TooManySubscriptions { limit: MAX_SUBSCRIPTIONS });
            }
            self.visitor.may(Right::View, &session)?;
            let (watching, viewer) = (self.visitor.client().watch()?, self.hub.watch(&session)?);
            let delivery = Delivery::new(WayOut::WebSocket, self.interval);
            self.changes.insert(session.clone(), WatchStream::new(viewer.states()));
            self.watched.insert(session, Watched { _watching: watching, viewer, told: None, delivery });
        }
        Ok(())
    }

    fn unsubscribe(&mut self, session: &SessionId) {
        self.changes.remove(session);
        self.watched.remove(session);
    }

    fn obey(&mut self, text: &str) -> Result<(), Error> {
        let expected = r#"{"subscribe":["a"]} or {"unsubscribe":["a"]}"#;
        let command: Command = serde_json::from_str(text).map_err(|_| Error::BadMessage { expected })?;
        let parse = |ids: Vec<String>| ids.iter().map(|id| id.parse()).collect::<Result<Vec<SessionId>, Error>>();
        let (subscribe, unsubscribe) = (parse(command.subscribe)?, parse(command.unsubscribe)?);
        for session in unsubscribe {
            self.unsubscribe(&session);
        }
        self.subscribe(subscribe)
    }

    async fn show(mut self) {
        // When a session is to be looked at although nothing has changed: it turns stale, or a frame becomes due.
        let mut wakes: HashMap<SessionId, Instant> = HashMap::new();
        loop {
            let first = wakes.iter().min_by_key(|(_, wake)| **wake).map(|(session, wake)| (session.clone(), *wake));
            let to_wake = first.map(async |(session, wake)| {
                sleep_until(wake).await;
                session
            });
            let session = tokio::select! {
                received = self.socket.receive() => {
                    match self.socket.digest(received).await {
                        Input::Text(text) => if let Err(error) = self.obey(&text) {
                            self.socket.send_error(&error).await;
                        },
                        Input::Binary(_) | Input::TooLarge => {
                            let error = Error::BadMessage { expected: "a text of at most 64 KiB" };
                            self.socket.send_error(&error).await;
                        }
                        Input::Nothing => {}
                        Input::End => return,
                    }
                    continue;
                }
                Some((session, _)) = self.changes.next(), if !self.changes.is_empty() => session,
                Some(session) = OptionFuture::from(to_wake) => session,
                () = self.hub.closing() => {
                    self.socket.close(CloseCode::Away, "the server ends").await;
                    return;
                }
            };
            match self.update(&session).await {
                Ok(Some(wake)) => drop(wakes.insert(session, wake)),
                Ok(None) => drop(wakes.remove(&session)),
                Err(TooSlow) => return,
            }
        }
    }

    /// Sends what has changed of a session. Tells when to look again at the latest.
    async fn update(&mut self, session: &SessionId) -> Result<Option<Instant>, TooSlow> {
        if !self.watched.contains_key(session) {
            return Ok(None);
        }
        if let Err(error) = self.visitor.may(Right::View, session) {
            self.unsubscribe(session);
            self.socket.send_error(&error).await;
            return Ok(None);
        }
        let Self { hub, socket, watched, clock, .. } = self;
        let Some(watched) = watched.get_mut(session) else { return Ok(None) };
        let state = watched.viewer.state();
        let now = Instant::now();
        let stale_at = state.frame.as_ref().map(|live| live.received + hub.stale_after());
        let standing = match stale_at {
            None if !state.known => return Ok(None),
            None => Standing::Empty,
            Some(stale_at) if stale_at <= now => Standing::Stale,
            Some(_) => Standing::Live,
        };
        if watched.told != Some(standing) {
            watched.told = Some(standing);
            let age_ms = state.frame.as_ref().map(|live| live.age().as_millis() as u64);
            let message = StateMessage { session: session.as_str(), state: standing, age_ms };
            socket.send_text(&serde_json::to_string(&message).unwrap_or_default()).await;
        }
        let Some(live) = state.frame else { return Ok(None) };
        let stale_at = stale_at.filter(|_| standing == Standing::Live);
        if watched.delivery.sent() == Some(live.frame.seq) {
            return Ok(stale_at);
        }
        if now < watched.delivery.due() {
            return Ok(stale_at.into_iter().chain([watched.delivery.due()]).min());
        }
        watched.delivery.begin();
        let head = match clock {
            true => message_head(session, &live, Some(SystemTime::now())),
            false => live.head(Head::Message, |_| message_head(session, &live, None)),
        };
        let pieces = [head, live.frame.bytes.clone(), Bytes::new()];
        if !socket.send_unless(pieces, SLOW, || hub.viewing().check().is_err()).await {
            return Err(TooSlow);
        }
        watched.delivery.done(hub, &live);
        Ok(stale_at)
    }
}

/// What stands before a picture, with the time of sending where that is asked for.
fn message_head(session: &SessionId, live: &LiveFrame, sent: Option<SystemTime>) -> Bytes {
    let (id, frame) = (session.as_str().as_bytes(), &live.frame);
    let clock_bytes = if sent.is_some() { 8 + 4 } else { 0 };
    let mut head = BytesMut::with_capacity(44 + id.len());
    websocket::head(OpCode::Binary, 1 + id.len() + 8 + 8 + clock_bytes + frame.bytes.len(), &mut head);
    head.put_u8(id.len() as u8);
    head.put_slice(id);
    head.put_u64(frame.seq.0);
    head.put_f64(frame.captured.seconds());
    if let Some(sent) = sent {
        head.put_u64(sent.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64);
        head.put_u32(live.age().as_millis().try_into().unwrap_or(u32::MAX));
    }
    head.freeze()
}
