//! The connection to one publisher of one topic.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use dxr::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::{
    header::Header,
    xmlrpc::{self, Caller},
};
use crate::{
    message::{Kind, Layout, MAX_MESSAGE},
    newest::{Arrived, Newest},
    pace::{Backoff, Complaint},
};

/// How long it may take to connect, and to exchange headers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When a publisher that says nothing is asked whether it is still there, and how often: pictures may come seldom.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How much room is made at once for a message that says that it is long, in bytes.
const STEP: usize = 1 << 20;

/// A connection to a publisher, which is made anew until this is dropped.
pub struct Connection {
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    is_up: AtomicBool,
    /// Whether the master does not know the publisher any more.
    is_forgotten: AtomicBool,
}

impl Connection {
    /// Reads what a publisher sends on a topic.
    #[must_use]
    pub fn new(caller: Caller, topic: String, publisher: String, newest: Arc<Newest>) -> Self {
        let state = Arc::new(State::default());
        let task = tokio::spawn(keep(Arc::clone(&state), caller, topic, publisher, newest));
        Self { state, _task: AbortOnDropHandle::new(task) }
    }

    /// Whether messages can come.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state.is_up.load(Relaxed)
    }

    /// The master knows the publisher, or does not. A connection that is up stays up either way: a master that has started
    /// anew knows nobody, while robots drive on.
    pub fn set_known(&self, is_known: bool) {
        self.state.is_forgotten.store(!is_known, Relaxed);
    }

    /// Whether it can be dropped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_forgotten.load(Relaxed) && !self.is_up()
    }
}

async fn keep(state: Arc<State>, caller: Caller, topic: String, publisher: String, newest: Arc<Newest>) {
    let mut backoff = Backoff::new();
    let mut complaint = Complaint::default();
    loop {
        let mut has_heard = false;
        let ended = read_all(&state, &caller, &topic, &publisher, &newest, &mut has_heard).await;
        state.is_up.store(false, Relaxed);
        if let Err(error) = ended {
            if error.chain().any(is_goodbye) {
                debug!("{topic} from {publisher}: {error:#}");
            } else {
                complaint.say(&format!("{topic} from {publisher}"), &format!("{error:#}"));
            }
        }
        if has_heard {
            backoff = Backoff::new();
        }
        // For as long as it is held: who was forgotten may come back.
        sleep(backoff.next()).await;
    }
}

/// A publisher that ends is nothing to complain about, and a master remembers those that were killed.
fn is_goodbye(cause: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let kind = cause.downcast_ref().map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof))
}

async fn read_all(
    state: &State,
    caller: &Caller,
    topic: &str,
    publisher: &str,
    newest: &Newest,
    has_heard: &mut bool,
) -> anyhow::Result<()> {
    let (mut connection, kind) =
        timeout(CONNECT_TIMEOUT, connect(caller, topic, publisher)).await.context("connecting took too long")??;
    info!("{topic} comes from {publisher}");
    state.is_up.store(true, Relaxed);
    loop {
        let mut bytes = newest.buffer();
        read_message(&mut connection, &mut bytes).await?;
        *has_heard = true;
        newest.put(Arrived { kind, layout: Layout::Packed, bytes, at: Instant::now() });
    }
}

async fn connect(caller: &Caller, topic: &str, publisher: &str) -> anyhow::Result<(TcpStream, Kind)> {
    let protocols = Value::Array(vec![Value::Array(vec![Value::String("TCPROS".into())])]);
    let chosen = caller.call(publisher, "requestTopic", vec![Value::String(topic.into()), protocols]).await?;
    let [_, host, Value::Integer(port)] = xmlrpc::list(&chosen) else { bail!("it does not publish over TCPROS") };
    let host = xmlrpc::text(host).context("it tells no host")?;
    let port = u16::try_from(*port).context("it tells no port")?;
    let mut connection = TcpStream::connect((host, port)).await.with_context(|| format!("{host}:{port}"))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&connection).set_tcp_keepalive(&keepalive)?;
    // Whatever it publishes, it tells; that is known better than what the master was told.
    let fields = [
        ("callerid", caller.name()),
        ("topic", topic),
        ("type", "*"),
        ("md5sum", "*"),
        ("message_definition", ""),
        ("tcp_nodelay", "1"),
    ];
    Header::new(&fields).write(&mut connection).await?;
    let header = Header::read(&mut connection).await?;
    if let Some(error) = header.get("error") {
        bail!("{error}");
    }
    let kind = match header.get("type") {
        Some("sensor_msgs/Image") => Kind::Image,
        Some("sensor_msgs/CompressedImage") => Kind::Compressed,
        other => bail!(
            "its type is {}, where sensor_msgs/Image and sensor_msgs/CompressedImage can be shown",
            other.unwrap_or("not told")
        ),
    };
    Ok((connection, kind))
}

/// Reads a message into an empty buffer. What its length claims takes no room before it is there.
async fn read_message(connection: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    let length = connection.read_u32_le().await? as usize;
    if length > MAX_MESSAGE {
        bail!(
            "a message says that it has {length} bytes, where {MAX_MESSAGE} are the limit; the connection is made anew"
        );
    }
    let mut rest = connection.take(length as u64);
    while bytes.len() < length {
        if bytes.len() == bytes.capacity() {
            // In growing steps, as buffers grow, but no more than it is long.
            bytes.reserve_exact((length - bytes.len()).min(bytes.len().max(STEP)));
        }
        if rest.read_buf(bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_read_whole_and_a_claim_takes_no_room() {
        let mut sent = (3_000_000_u32).to_le_bytes().to_vec();
        sent.extend((0..3_000_000).map(|it| it as u8));
        sent.extend(2_u32.to_le_bytes());
        sent.extend([1, 2]);
        let mut connection = &sent[..];
        let mut bytes = Vec::new();
        read_message(&mut connection, &mut bytes).await.unwrap();
        assert!(bytes.len() == 3_000_000 && bytes == sent[4..3_000_004]);
        bytes.clear();
        read_message(&mut connection, &mut bytes).await.unwrap();
        assert_eq!(bytes, [1, 2]);

        let mut bytes = Vec::new();
        let error = read_message(&mut &b"\xFF\xFF\xFF\xFFabc"[..], &mut bytes).await.unwrap_err();
        assert!(error.to_string().contains("4294967295 bytes") && bytes.capacity() == 0, "{error}");
        assert!(read_message(&mut &b"\0\0\0\x04abc"[..], &mut bytes).await.is_err());
        assert!(bytes.capacity() <= STEP);
    }
}
