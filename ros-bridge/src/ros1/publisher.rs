//! What is published: commands, to each subscriber over a connection of its own.

use std::{io, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, broadcast::error::RecvError},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::header::Header;
use crate::vehicle::{Commands, Twist};

/// How long a subscriber may take to introduce itself, in which nobody waits for it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a subscriber may take nothing before it is cut off: what it got later would be old.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);
/// The pause after a subscriber that could not be accepted: for a lack of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After which silence of the network a subscriber counts as gone while something is on its way to it, and when one to which
/// nothing is sent is asked.
const SILENT_NETWORK: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What the system holds for a subscriber, in bytes: what waits there grows old.
const SEND_BUFFER: usize = 4096;
/// How many subscribers there may be.
const MAX_SUBSCRIBERS: usize = 64;

/// A type of which messages are published. The sums are those that ROS checks (`rosmsg md5`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `geometry_msgs/Twist`.
    Twist,
    /// `std_msgs/String`.
    Text,
}

impl Type {
    /// Its name with its package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Twist => "geometry_msgs/Twist",
            Self::Text => "std_msgs/String",
        }
    }

    fn md5(self) -> &'static str {
        match self {
            Self::Twist => "9f195f881246fdfa2798d1d3eebca84a",
            Self::Text => "992ce8a1687cec8c8bd883ec73ca41d1",
        }
    }

    fn definition(self) -> &'static str {
        match self {
            Self::Twist => concat!(
                "Vector3 linear\nVector3 angular\n",
                "================================================================================\n",
                "MSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"
            ),
            Self::Text => "string data\n",
        }
    }
}

/// A topic that commands are published on.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Its name.
    pub topic: String,
    /// What it carries.
    pub kind: Type,
}

/// Serves subscribers of these topics for ever.
pub async fn serve(listener: TcpListener, node: String, publications: Vec<Publication>, commands: Commands) {
    let publications: Arc<[Publication]> = publications.into();
    // They end with this.
    let mut serving = JoinSet::new();
    let seats = Arc::new(Semaphore::new(MAX_SUBSCRIBERS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("a subscriber could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (node, publications, commands) = (node.clone(), Arc::clone(&publications), commands.clone());
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            let ended = publish(connection, &node, &publications, &commands).await;
            debug!("the subscriber at {peer} is gone: {ended:?}");
            drop(seat);
        });
    }
}

async fn publish(
    mut connection: TcpStream,
    node: &str,
    publications: &[Publication],
    commands: &Commands,
) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let socket = SockRef::from(&connection);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(2))?;
    socket.set_tcp_user_timeout(Some(SILENT_NETWORK))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    let header = timeout(HEADER_TIMEOUT, Header::read(&mut connection)).await??;
    let found = publications.iter().find(|it| header.get("topic") == Some(&it.topic));
    let sum = header.get("md5sum").unwrap_or_default();
    let publication = match found {
        Some(publication) if sum == "*" || sum == publication.kind.md5() => publication,
        Some(publication) => {
            let message = format!(
                "{} carries {}, whose sum is {}",
                publication.topic,
                publication.kind.name(),
                publication.kind.md5()
            );
            return Header::new(&[("error", &message)]).write(&mut connection).await;
        }
        None => return Header::new(&[("error", "nothing is published on this topic")]).write(&mut connection).await,
    };
    let Publication { topic, kind } = publication;
    // Who comes now is told of nothing that was commanded before, but to stand still: it may be back from a lost connection,
    // and have missed just that.
    let (mut twists, mut texts) = (commands.twists(), commands.texts());
    if *twists.borrow() == Twist::default() {
        twists.mark_changed();
    } else {
        twists.mark_unchanged();
    }
    let fields = [
        ("callerid", node),
        ("topic", topic),
        ("type", kind.name()),
        ("md5sum", kind.md5()),
        ("message_definition", kind.definition()),
        ("latching", "0"),
    ];
    Header::new(&fields).write(&mut connection).await?;
    info!("{topic} goes to {}", header.get("callerid").unwrap_or("a node without a name"));
    let (mut reading, mut writing) = connection.split();
    loop {
        // A subscriber says nothing more; that it has gone shows in that way.
        let mut nothing = [0; 16];
        let message = tokio::select! {
            read = reading.read(&mut nothing) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
            changed = twists.changed(), if *kind == Type::Twist => {
                if changed.is_err() { return Ok(()) }
                let numbers = twists.borrow_and_update().numbers();
                framed(&numbers.map(f64::to_le_bytes).concat())
            }
            text = texts.recv(), if *kind == Type::Text => match text {
                Ok(text) => framed(&framed(text.as_bytes())),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        timeout(SEND_TIMEOUT, writing.write_all(&message)).await??;
    }
}

/// With its length before it, as messages and the texts in them are sent.
fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}
