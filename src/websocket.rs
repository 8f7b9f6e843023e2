//! [`WebSocket`]: what the WebSocket routes share.
//!
//! It is polled as the body of the answer to the handshake, so it needs no task and no queue of its own: what is sent goes
//! through the connection's [`Outlet`] without being copied, and nothing is sent before the socket has taken what was before.

use std::time::Duration;

use actix_http::ws::{self, CloseCode, OpCode};
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
/// A client that has been silent for so long, pings and all, is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// One open WebSocket.
pub struct WebSocket {
    outlet: Outlet,
    payload: web::Payload,
    decoder: Decoder,
    /// When the client last sent something.
    heard: Instant,
    /// When to ping it, unless it does.
    ping_at: Instant,
}

/// What has come of waiting for a client.
pub enum Received {
    /// Its next message.
    Message(Message),
    /// It has been silent for a while.
    Silence,
    /// It has gone, or broken the protocol.
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
        let outlet = request.conn_data::<Outlet>().cloned().ok_or(Error::NoConnection)?;
        let now = Instant::now();
        let socket = Self {
            outlet: outlet.clone(),
            payload,
            decoder: Decoder::new(max_message_bytes),
            heard: now,
            ping_at: now + PING_AFTER,
        };
        let body = EndlessBody::new(Bytes::new(), &outlet, run(socket));
        let response = response.message_body(body).map_err(|_| Error::NoConnection)?;
        Ok(HttpResponse::from(response.map_into_boxed_body()))
    }

    /// Waits for the client. Nothing is lost when the wait is given up.
    pub async fn receive(&mut self) -> Received {
        self.receive_counting(|_| Ok(())).await.unwrap_or(Received::End)
    }

    /// The same; `count` is told of the size of everything that comes in before it is kept.
    ///
    /// # Errors
    /// That of `count`.
    pub async fn receive_counting(
        &mut self,
        mut count: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Received, Error> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Ok(Received::Message(message)),
                Ok(None) => {}
                Err(_) => return Ok(Received::End),
            }
            match timeout_at(self.ping_at, self.payload.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.heard = Instant::now();
                    self.ping_at = self.heard + PING_AFTER;
                    count(bytes.len())?;
                    self.decoder.feed(&bytes);
                }
                Ok(Some(Err(_)) | None) => return Ok(Received::End),
                Err(_) => return Ok(Received::Silence),
            }
        }
    }

    /// Answers what is about the connection only, and hands out the rest.
    pub async fn digest(&mut self, received: Received) -> Input {
        match received {
            Received::Message(Message::Binary(bytes)) => Input::Binary(bytes),
            Received::Message(Message::Text(text)) => Input::Text(text),
            Received::Message(Message::TooLarge) => Input::TooLarge,
            Received::Message(Message::Pong) => Input::Nothing,
            Received::Message(Message::Ping(bytes)) => {
                self.send([websocket::message(OpCode::Pong, &bytes), Bytes::new(), Bytes::new()]).await;
                Input::Nothing
            }
            Received::Message(Message::Close) => {
                self.close(CloseCode::Normal, "").await;
                Input::End
            }
            Received::Silence if self.heard.elapsed() >= GONE_AFTER => Input::End,
            Received::Silence => {
                self.ping_at = Instant::now() + PING_AFTER;
                self.send([websocket::message(OpCode::Ping, b""), Bytes::new(), Bytes::new()]).await;
                Input::Nothing
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
        let body = ErrorBody::new(error.code(), error.to_string());
        self.send_text(&serde_json::to_string(&body).unwrap_or_default()).await;
    }

    /// Sends a message that is complete already, in pieces.
    pub async fn send(&mut self, pieces: [Bytes; 3]) {
        self.outlet.send(pieces);
        self.outlet.sent().await;
    }

    /// Says goodbye.
    pub async fn close(&mut self, code: CloseCode, reason: &str) {
        self.send([websocket::close(code, reason), Bytes::new(), Bytes::new()]).await;
    }
}
