//! `GET /ws/push/{session}`: each message is one picture.

use std::sync::Arc;

use actix_http::ws::CloseCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;

use super::{Receipt, push_one, to_the_end};
use crate::{
    auth::{Visitor, clients::Client},
    error::Error,
    hub::Hub,
    session::SessionId,
    telemetry::metrics::WayIn,
    websocket::{Input, WebSocket},
    wire::error_body::ErrorBody,
};

/// Pushes pictures over a WebSocket.
///
/// Each binary message is one picture, in one frame or several. It is answered by a text message:
/// `{"seq","viewers"}`, or `{"error":{"code","message"}}` where it was refused; the socket stays open.
#[utoipa::path(
    get, path = "/ws/push/{session}", tag = "live", operation_id = "pushWebSocket",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 101, description = "a WebSocket"),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 426, description = "no WebSocket handshake", body = ErrorBody),
        (status = 503, description = "busy", body = ErrorBody),
    ),
)]
pub async fn push(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    hub.incoming().check()?;
    let (hub, client) = (hub.into_inner(), visitor.client());
    WebSocket::open(&request, payload, hub.max_image_bytes(), move |socket| serve(socket, session, hub, client))
}

async fn serve(mut socket: WebSocket, session: SessionId, hub: Arc<Hub>, client: Arc<Client>) {
    // What has come of pictures that are not complete, and the one that is being pushed.
    let mut share = hub.incoming().share();
    loop {
        // Less than before: it cannot fail.
        let _ = share.resize(socket.held());
        let received = tokio::select! {
            received = socket.receive_within(|held| share.resize(held)) => received,
            () = hub.closing() => {
                socket.close(CloseCode::Away, "the server ends").await;
                return;
            }
        };
        let received = match received {
            Ok(received) => received,
            Err(busy) => {
                socket.send_error(&busy).await;
                socket.close(CloseCode::Again, "busy").await;
                return;
            }
        };
        let answer = match socket.digest(received).await {
            Input::Binary(picture) => match share.resize(picture.len()) {
                Ok(()) => to_the_end(push_picture(hub.clone(), client.clone(), session.clone(), picture)).await,
                Err(busy) => Err(busy),
            },
            Input::TooLarge => Err(Error::TooLarge { limit: hub.max_image_bytes() }),
            Input::Text(_) => Err(Error::BadMessage { expected: "a binary message that is one picture" }),
            Input::Nothing => continue,
            Input::End => return,
        };
        match answer {
            Ok(pushed) => socket.send_text(&serde_json::to_string(&pushed).unwrap_or_default()).await,
            Err(error) => socket.send_error(&error).await,
        }
    }
}

async fn push_picture(
    hub: Arc<Hub>,
    client: Arc<Client>,
    session: SessionId,
    picture: Bytes,
) -> Result<Receipt, Error> {
    Ok(push_one(&hub, &client, &session, picture, None, WayIn::WebSocket).await?.into())
}
