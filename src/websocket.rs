//! [`WebSocket`]: what the WebSocket routes share.
//!
//! It is polled as the body of the answer to the handshake, so it needs no task and no queue of its own: what is sent goes
//! through the connection's [`Outlet`] without being copied, and nothing is sent before the socket has taken what was before.

use std::time::Duration;

use actix_http::ws::{self, CloseCode, OpCode, ProtocolError};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    connection::{EndlessBody, Outlet},
    error::Error,
    wire::{
        error_body::ErrorBody,
        websocket::{self, Decoder, Message},
    },
};

/// How long a client may be silent before it is pinged. Proxies commonly close what is silent for a minute.
const PING_AFTER: Duration = Duration::from_secs(20);
/// A client that does not answer a ping within this is gone.
const PONG_WITHIN: Duration = Duration::from_secs(40);

/// One open WebSocket.
pub struct WebSocket {
    outlet: Outlet,
    payload: web::Payload,
    decoder: Decoder,
    /// Whether the client has been pinged since it last sent something.
    pinged: bool,
    /// When to ping it, or to give it up, unless it sends something.
    patience_ends: Instant,
}

/// What has come of waiting for a client.
pub enum Received {
    /// Its next message.
    Message(Message),
    /// It has been silent for a while.
    Silence,
    /// It has broken the protocol, in the way that this code tells.
    Fault(CloseCode),
    /// It has gone.
    End,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes.
    Binary(Bytes),
    /// A text.
    Text(String),
    /// Something over the limit, which was thrown away.
    TooLarge,
    /// Nothing: what came was about the connection.
    Nothing,
    /// To leave.
    End,
}

impl WebSocket {
    /// Answers a handshake. `run` is then given the open socket; when it is done, the connection ends.
    ///
    /// # Errors
    /// [`Error::NotWebSocket`] where the request is no handshake.
    pub fn open<F: Future<Output = ()> + 'static>(
        request: &HttpRequest,
        payload: web::Payload,
        max_message_bytes: usize,
        run: impl FnOnce(Self) -> F,
    ) -> Result<HttpResponse, Error> {
        let mut response = ws::handshake(request.head()).map_err(|reason| Error::NotWebSocket(reason.to_string()))?;
        let outlet = Outlet::of(request)?;
        let (decoder, patience_ends) = (Decoder::new(max_message_bytes), Instant::now() + PING_AFTER);
        let socket = Self { outlet: outlet.clone(), payload, decoder, pinged: false, patience_ends };
        let body = EndlessBody::new(Bytes::new(), &outlet, run(socket));
        let response = response.message_body(body).map_err(|_| Error::NoConnection)?;
        Ok(HttpResponse::from(response.map_into_boxed_body()))
    }

    /// Whether a request is a handshake: for who has something to do before it is answered.
    ///
    /// # Errors
    /// [`Error::NotWebSocket`] where it is none.
    pub fn check(request: &HttpRequest) -> Result<(), Error> {
        ws::handshake(request.head()).map(drop).map_err(|reason| Error::NotWebSocket(reason.to_string()))
    }

    /// Waits for the client. Nothing is lost when the wait is given up.
    pub async fn receive(&mut self) -> Received {
        self.receive_within(|_| Ok(())).await.unwrap_or(Received::End)
    }

    /// The same; `hold` is told how many bytes are held of messages that are not complete, whenever there are more.
    ///
    /// # Errors
    /// That of `hold`.
    pub async fn receive_within(
        &mut self,
        mut hold: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Received, Error> {
        loop {
            if let Some(received) = self.ready() {
                return Ok(received);
            }
            match timeout_at(self.patience_ends, self.payload.next()).await {
                Ok(Some(Ok(bytes))) => {
                    (self.pinged, self.patience_ends) = (false, Instant::now() + PING_AFTER);
                    self.decoder.feed(&bytes);
                    hold(self.decoder.held())?;
                }
                Ok(Some(Err(_)) | None) => return Ok(Received::End),
                Err(_) => return Ok(Received::Silence),
            }
        }
    }

    /// What has come already, if anything has.
    pub fn ready(&mut self) -> Option<Received> {
        match self.decoder.next_message() {
            Ok(message) => message.map(Received::Message),
            Err(ProtocolError::Overflow) => Some(Received::Fault(CloseCode::Size)),
            Err(_) => Some(Received::Fault(CloseCode::Protocol)),
        }
    }

    /// The connection's way out, for who does not want to wait until what was sent is taken.
    #[must_use]
    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// Bytes that are held of messages that are not complete.
    #[must_use]
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Answers what is about the connection only, and hands out the rest.
    pub async fn digest(&mut self, received: Received) -> Input {
        match received {
            Received::Message(Message::Binary(bytes)) => Input::Binary(bytes),
            Received::Message(Message::Text(text)) => Input::Text(text),
            Received::Message(Message::TooLarge) => Input::TooLarge,
            Received::Message(Message::Pong(_)) => Input::Nothing,
            Received::Message(Message::Ping(bytes)) => {
                self.send([websocket::message(OpCode::Pong, &bytes), Bytes::new(), Bytes::new()]).await;
                Input::Nothing
            }
            Received::Message(Message::Close) => {
                self.close(CloseCode::Normal, "").await;
                Input::End
            }
            Received::Silence if self.pinged => Input::End,
            Received::Silence => {
                self.send([websocket::message(OpCode::Ping, b""), Bytes::new(), Bytes::new()]).await;
                // From when it was sent: a slow client may have been busy with a large picture until then.
                (self.pinged, self.patience_ends) = (true, Instant::now() + PONG_WITHIN);
                Input::Nothing
            }
            Received::Fault(code) => {
                self.close(code, "").await;
                Input::End
            }
            Received::End => Input::End,
        }
    }

    /// Sends a text.
    pub async fn send_text(&mut self, text: &str) {
        self.send([websocket::message(OpCode::Text, text.as_bytes()), Bytes::new(), Bytes::new()]).await;
    }

    /// Sends an error in the form that every route has.
    pub async fn send_error(&mut self, error: &Error) {
        let body = ErrorBody::of(error);
        self.send_text(&serde_json::to_string(&body).unwrap_or_default()).await;
    }

    /// Sends a message that is complete already, in pieces.
    pub async fn send(&mut self, pieces: [Bytes; 3]) {
        self.outlet.send(pieces);
        self.outlet.sent().await;
    }

    /// The same; every so often it is asked whether to give up, and then the connection ends. Tells whether all was sent.
    pub async fn send_unless(&mut self, pieces: [Bytes; 3], every: Duration, give_up: impl Fn() -> bool) -> bool {
        self.outlet.send(pieces);
        self.outlet.sent_unless(every, give_up).await
    }

    /// Says goodbye.
    pub async fn close(&mut self, code: CloseCode, reason: &str) {
        self.send([websocket::close(code, reason), Bytes::new(), Bytes::new()]).await;
    }
}
