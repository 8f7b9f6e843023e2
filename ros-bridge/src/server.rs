//! The Image Streamer that pictures are pushed to, and whose operators are obeyed. It is spoken to as everybody does: by the
//! routes of docs/API.md.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::message::Stamp;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a push may take in all, on the slowest link on which a picture is worth something.
const PUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// From which silence of the network on it counts as gone, while something waits to be acknowledged.
const SILENT_NETWORK: Duration = Duration::from_secs(5);
/// How long a server may ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often one push is sent on: from HTTP to HTTPS, say.
const MAX_REDIRECTS: usize = 3;
/// How much of an error's answer is read, in bytes.
const MAX_ERROR_BODY: usize = 4096;
/// The longest command, as the server has it, in bytes.
const MAX_COMMAND: usize = 64 << 10;

/// Where a server is, and who one is there.
#[derive(Clone)]
pub struct Server {
    base: Url,
    authorization: Option<HeaderValue>,
    client: Client,
    tls: Arc<ClientConfig>,
}

/// Why a picture was not taken.
#[derive(Debug, Error)]
pub enum PushError {
    /// Nobody answered, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The server answers, but will not take a picture now.
    #[error("{message}")]
    NotNow {
        /// What it said.
        message: String,
        /// How long it is to be left alone.
        pause: Option<Duration>,
    },
    /// It takes pictures, but not this one.
    #[error("{0}")]
    Refused(String),
}

/// The body of an error (docs/API.md).
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
}

impl Server {
    /// # Errors
    /// When the address is none of an HTTP server, or the key is none that a header can carry.
    pub fn new(address: &str, key: Option<&str>) -> anyhow::Result<Self> {
        let mut base = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .with_context(|| format!("the server's address is {address:?}, where https://example.org is the form"))?;
        let decoded = |text: &str| percent_decoded(text).context("the name and the password in the server's address");
        let authorization = match key {
            Some(key) => Some(format!("Bearer {key}")),
            None if base.username().is_empty() => None,
            None => Some(basic(&decoded(base.username())?, &decoded(base.password().unwrap_or_default())?)),
        };
        // Neither is to be seen where the address is told.
        if base.set_username("").and_then(|()| base.set_password(None)).is_err() {
            bail!("the server's address {address:?} cannot have a name and a password");
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let authorization = authorization.map(|it| HeaderValue::from_str(&it)).transpose();
        let mut authorization = authorization.context("the key has characters that no header may have")?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let tls = if base.scheme() == "https" {
            ClientConfig::with_platform_verifier().context("the system's certificates")?
        } else {
            // A machine without certificates will do.
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(PUSH_TIMEOUT)
            .tcp_user_timeout(SILENT_NETWORK)
            .tcp_nodelay(true)
            .redirect(Policy::custom(|attempt| {
                // The others would make a GET of a push, and that takes a picture away.
                let keeps_the_method = matches!(attempt.status().as_u16(), 307 | 308);
                if keeps_the_method && attempt.previous().len() <= MAX_REDIRECTS {
                    attempt.follow()
                } else {
                    attempt.stop()
                }
            }))
            .user_agent(concat!("image-streamer-ros/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client")?;
        Ok(Self { base, authorization, client, tls: Arc::new(tls) })
    }

    /// Its address, without name and password.
    #[must_use]
    pub fn address(&self) -> &Url {
        &self.base
    }

    /// Pushes one picture.
    ///
    /// # Errors
    /// When it was not taken. It may have been if the answer did not come.
    pub async fn push(&self, session: &str, kind: &'static str, picture: Bytes, stamp: Stamp) -> Result<(), PushError> {
        let unreachable = |error: &dyn std::error::Error| PushError::Unreachable(causes(error));
        let url = self.base.join(&format!("image/{session}")).map_err(|error| unreachable(&error))?;
        let mut request = self.client.post(url).header(CONTENT_TYPE, kind).body(picture);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(stamp) = stamp {
            request = request.header("x-timestamp", format!("{}.{:09}", stamp.as_secs(), stamp.subsec_nanos()));
        }
        let answer = request.send().await.map_err(|error| unreachable(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            // The connection is used again once the answer has been read.
            read_some(answer).await;
            return Ok(());
        }
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let message = error_message(answer).await;
        Err(match status {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::BAD_REQUEST => {
                PushError::Refused(message)
            }
            _ => {
                let pause = pause.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
                PushError::NotNow { message, pause }
            }
        })
    }

    /// Connects as a vehicle.
    ///
    /// # Errors
    /// When the server cannot be reached in time, or does not want this vehicle.
    pub async fn connect_vehicle(&self, session: &str, lease: Duration, stop: &str) -> anyhow::Result<Socket> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.connect(session, lease, stop)).await.context("it took too long")?
    }

    async fn connect(&self, session: &str, lease: Duration, stop: &str) -> anyhow::Result<Socket> {
        let mut url = self.base.join(&format!("ws/control/{session}"))?;
        url.query_pairs_mut()
            .append_pair("role", "vehicle")
            .append_pair("vehicle", "ros")
            .append_pair("lease", &lease.as_millis().to_string())
            .append_pair("stop", stop);
        let host = url.host_str().context("the server's address has no host")?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().context("the server's address has no port")?;
        let is_encrypted = url.scheme() == "https";
        if url.set_scheme(if is_encrypted { "wss" } else { "ws" }).is_err() {
            bail!("{url} cannot be a WebSocket's address");
        }
        let mut request = url.as_str().into_client_request()?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = if is_encrypted {
            let name = ServerName::try_from(host).context("the server's name")?;
            Box::new(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?)
        } else {
            Box::new(stream)
        };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_COMMAND)).max_frame_size(Some(MAX_COMMAND));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                bail!("{}", message_of(answer.status().as_str(), &body[..body.len().min(MAX_ERROR_BODY)]))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What a WebSocket may run over.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// A vehicle's connection.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

async fn error_message(answer: Response) -> String {
    let status = answer.status();
    message_of(status.as_str(), &read_some(answer).await)
}

/// The beginning of a body.
async fn read_some(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - body.len())]),
            _ => break,
        }
    }
    body
}

fn message_of(status: &str, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => format!("{status}: {}", body.error.message),
        Err(_) => format!("the server answers {status}"),
    }
}

/// An error with what led to it: reqwest tells only the last of it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn percent_decoded(text: &str) -> anyhow::Result<String> {
    Ok(percent_encoding::percent_decode_str(text).decode_utf8()?.into_owned())
}

fn basic(name: &str, password: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(address: &str, key: Option<&str>) -> anyhow::Result<Server> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Server::new(address, key)
    }

    #[test]
    fn name_and_password_leave_the_address() {
        let server = server("https://ann%40home:a%20b@example.org/streams", None).unwrap();
        assert_eq!(server.address().as_str(), "https://example.org/streams/");
        // RFC 7617 on "ann@home:a b".
        assert_eq!(server.authorization.unwrap(), "Basic YW5uQGhvbWU6YSBi");
    }

    #[test]
    fn an_address_or_a_key_of_another_form_is_refused() {
        for address in ["", "localhost:3000", "ftp://localhost", "/image", "http://"] {
            assert!(server(address, None).is_err(), "{address}");
        }
        assert!(server("http://localhost", Some("a\nb")).is_err());
    }
}
