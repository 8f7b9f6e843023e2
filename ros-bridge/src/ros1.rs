//! A node of ROS 1: subscribes to topics of pictures, and publishes commands.
//!
//! The protocols are those of wiki.ros.org/ROS/Technical Overview: XML-RPC with the master and between nodes, TCPROS for
//! messages. They are spoken here and not by a library, because the one there is (`roslibrust_ros1` 0.26) makes room for whatever
//! length a publisher claims, does not come back when a master starts anew, and brings OpenSSL and an HTTP client whose
//! time is over.

mod header;
mod publisher;
mod slave;
mod subscriber;
mod xmlrpc;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use dxr::Value;
use parking_lot::Mutex;
use reqwest::Url;
use tokio::{
    net::{TcpListener, lookup_host},
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

pub use self::publisher::{Publication, Type};
use self::{
    subscriber::Connection,
    xmlrpc::{Caller, in_uri},
};
use crate::{
    Ends,
    camera::{Camera, Studio},
    message::Kind,
    routes::{MAX_TOPICS, Routes},
    vehicle::Commands,
};

/// How often the master is asked whether it still knows this node, and which topics there are.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the master is asked for all publishers: it tells of a change once, and not again if that was lost.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long the master's name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How many publishers of one topic are read.
const MAX_PUBLISHERS: usize = 32;

/// Where the master is, and who this node is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://localhost:11311`.
    pub master: String,
    /// With its slash.
    pub name: String,
    /// Under which name or address other nodes reach this one; `None` for the address towards the master.
    pub host: Option<String>,
}

struct Subscription {
    camera: Camera,
    publishers: HashMap<String, Connection>,
    /// Whether it was found by a pattern, and so goes when the topic does.
    is_found: bool,
}

/// What this node has, and what the master and other nodes ask of it.
struct Node {
    settings: Settings,
    caller: Caller,
    routes: Routes,
    studio: Studio,
    publications: Vec<Publication>,
    subscriptions: Mutex<HashMap<String, Subscription>>,
    /// The port for calls, and the one for subscribers.
    ports: (u16, u16),
    /// Under which host the master knows this node.
    host: Mutex<String>,
    /// Topics whose publishers have changed, as somebody says: the master is asked.
    changed: Mutex<HashSet<String>>,
    change: Notify,
    /// Ends everything.
    end: CancellationToken,
}

/// Shows topics and publishes commands until told to end.
///
/// # Errors
/// When no port can be opened. A master that is away is waited for.
pub async fn run(
    settings: Settings,
    routes: Routes,
    studio: Studio,
    publications: Vec<Publication>,
    commands: Commands,
    ends: Ends,
) -> anyhow::Result<()> {
    let host = settings.host.as_deref().map(str::parse::<IpAddr>);
    let bind = match host {
        Some(Ok(address)) if address.is_loopback() => address,
        // This listens to both families.
        Some(Ok(IpAddr::V6(_))) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let calls = TcpListener::bind(SocketAddr::new(bind, 0)).await.context("a port for calls of other nodes")?;
    let subscribers = TcpListener::bind(SocketAddr::new(bind, 0)).await.context("a port for subscribers")?;
    let ports = (calls.local_addr()?.port(), subscribers.local_addr()?.port());
    let caller = Caller::new(&settings.name)?;
    let node = Arc::new(Node {
        caller,
        routes,
        studio,
        publications: publications.clone(),
        subscriptions: Mutex::default(),
        ports,
        host: Mutex::new(String::new()),
        changed: Mutex::default(),
        change: Notify::new(),
        end: ends.all,
        settings,
    });
    for (topic, session) in node.routes.named() {
        node.show(topic, &session, false)?;
    }
    let name = node.settings.name.clone();
    let _answering = AbortOnDropHandle::new(tokio::spawn(slave::serve(calls, Arc::clone(&node))));
    let _publishing = AbortOnDropHandle::new(tokio::spawn(publisher::serve(subscribers, name, publications, commands)));
    node.keep_registered(&ends.node).await;
    Ok(())
}

impl Node {
    /// Registers, looks whether that still holds, and registers again where it does not: a master that starts anew knows nobody.
    async fn keep_registered(&self, end: &CancellationToken) {
        let (mut is_registered, mut is_told) = (false, false);
        let mut asked = Instant::now();
        loop {
            if asked.elapsed() > ASK_AGAIN {
                asked = Instant::now();
                self.changed.lock().extend(self.subscriptions.lock().keys().cloned());
            }
            let looked = end.run_until_cancelled(self.look(&mut is_registered)).await;
            match looked {
                None => break,
                Some(Ok(())) if std::mem::take(&mut is_told) => info!("the master is back"),
                Some(Ok(())) => {}
                Some(Err(error)) if !std::mem::replace(&mut is_told, true) => {
                    warn!("going on without the master: {error:#}");
                }
                Some(Err(_)) => {}
            }
            let pause = async {
                tokio::select! {
                    () = sleep(LOOK_INTERVAL) => {}
                    () = self.change.notified() => {}
                }
            };
            if end.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        if is_registered {
            self.unregister().await;
        }
    }

    async fn look(&self, is_registered: &mut bool) -> anyhow::Result<()> {
        let host = self.own_host().await?;
        if *self.host.lock() != host {
            // A master that is told a new address of a node has the one at the old address end.
            if std::mem::take(is_registered) {
                self.unregister().await;
            }
            *self.host.lock() = host;
        }
        if *is_registered {
            let known = self.master("lookupNode", vec![Value::String(self.settings.name.clone())]).await;
            *is_registered = known.is_ok_and(|uri| xmlrpc::text(&uri) == Some(&self.uri()));
        }
        if !*is_registered {
            self.changed.lock().clear();
            self.register().await?;
            *is_registered = true;
        }
        let changed = std::mem::take(&mut *self.changed.lock());
        for topic in changed {
            self.subscribe(&topic, None).await.inspect_err(|_| *is_registered = false)?;
        }
        if self.routes.have_patterns() {
            // A topic that was found, and that the master was not told of, is told of with all the others.
            self.find_topics().await.inspect_err(|_| *is_registered = false)?;
        }
        for subscription in self.subscriptions.lock().values_mut() {
            subscription.publishers.retain(|_, connection| !connection.is_over());
        }
        Ok(())
    }

    async fn register(&self) -> anyhow::Result<()> {
        let announced = self.topics("getTopicTypes", vec![]).await?;
        for publication in &self.publications {
            let parameters =
                [&publication.topic, publication.kind.name(), &self.uri()].map(|it| Value::String(it.into()));
            self.master("registerPublisher", parameters.to_vec()).await?;
        }
        let topics: Vec<String> = self.subscriptions.lock().keys().cloned().collect();
        for topic in topics {
            self.subscribe(&topic, announced.get(&topic).map(String::as_str)).await?;
        }
        info!("registered with {} as {}", self.settings.master, self.settings.name);
        Ok(())
    }

    /// Tells the master that this node wants a topic, and connects to who publishes it. What the topic carries is only for
    /// people who look at the master's lists: publishers tell it on connecting.
    async fn subscribe(&self, topic: &str, announced: Option<&str>) -> anyhow::Result<()> {
        let guess = format!("sensor_msgs/{}", Kind::by_name(topic).type_name());
        let kind = announced.filter(|it| is_picture(it)).unwrap_or(&guess);
        let parameters = [topic, kind, &self.uri()].map(|it| Value::String(it.into())).to_vec();
        let publishers = self.master("registerSubscriber", parameters).await?;
        self.set_publishers(topic, xmlrpc::list(&publishers));
        Ok(())
    }

    async fn find_topics(&self) -> anyhow::Result<()> {
        let published = self.topics("getPublishedTopics", vec![Value::String(String::new())]).await?;
        for (topic, kind) in &published {
            let Some(session) = self.routes.session_of(topic).filter(|_| is_picture(kind)) else { continue };
            let is_new = !self.subscriptions.lock().contains_key(topic);
            if is_new && self.show(topic, &session, true)? {
                self.subscribe(topic, Some(kind)).await?;
            }
        }
        let mut gone = Vec::new();
        self.subscriptions.lock().retain(|topic, subscription| {
            let stays = !subscription.is_found
                || published.contains_key(topic)
                || subscription.publishers.values().any(Connection::is_up);
            if !stays {
                gone.push(topic.clone());
            }
            stays
        });
        for topic in gone {
            info!("{topic} is gone");
            self.master("unregisterSubscriber", [&topic, &self.uri()].map(|it| Value::String(it.into())).to_vec())
                .await?;
        }
        Ok(())
    }

    /// Begins to show a topic, unless there are too many or another has its session. Returns whether it did.
    fn show(&self, topic: &str, session: &str, is_found: bool) -> anyhow::Result<bool> {
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.len() >= MAX_TOPICS {
            return Ok(false);
        }
        // Two topics in one session would take turns in its picture.
        if subscriptions.values().any(|it| it.camera.session() == session) {
            debug!("{topic} is not shown: the session {session} shows another topic");
            return Ok(false);
        }
        let camera = self.studio.show(topic, session)?;
        subscriptions.insert(topic.to_owned(), Subscription { camera, publishers: HashMap::new(), is_found });
        Ok(true)
    }

    /// Somebody says that a topic's publishers have changed. It is not taken at its word: calls come from anybody and in any
    /// order, and only the master's own answers are.
    fn publishers_changed(&self, topic: &str) {
        if self.subscriptions.lock().contains_key(topic) {
            self.changed.lock().insert(topic.to_owned());
            self.change.notify_one();
        }
    }

    /// Who publishes a topic, as the master says.
    fn set_publishers(&self, topic: &str, uris: &[Value]) {
        let mut subscriptions = self.subscriptions.lock();
        let Some(Subscription { camera, publishers, .. }) = subscriptions.get_mut(topic) else { return };
        let uris: Vec<&str> = uris.iter().filter_map(xmlrpc::text).collect();
        for (uri, connection) in &*publishers {
            connection.set_known(uris.contains(&uri.as_str()));
        }
        publishers.retain(|_, connection| !connection.is_over());
        for uri in uris {
            if publishers.len() < MAX_PUBLISHERS && !publishers.contains_key(uri) {
                let connection = Connection::new(self.caller.clone(), topic.into(), uri.into(), camera.newest());
                publishers.insert(uri.to_owned(), connection);
            }
        }
    }

    async fn unregister(&self) {
        let topics: Vec<String> = self.subscriptions.lock().keys().cloned().collect();
        let calls = topics.iter().map(|topic| ("unregisterSubscriber", topic));
        let calls = calls.chain(self.publications.iter().map(|it| ("unregisterPublisher", &it.topic)));
        for (method, topic) in calls {
            // Nothing can be done about it now, and the next call would take as long.
            if self.master(method, [topic, &self.uri()].map(|it| Value::String(it.into())).to_vec()).await.is_err() {
                return;
            }
        }
    }

    async fn topics(&self, method: &str, parameters: Vec<Value>) -> anyhow::Result<HashMap<String, String>> {
        let list = self.master(method, parameters).await?;
        let pair = |pair: &Value| match xmlrpc::list(pair) {
            [topic, kind] => Some((xmlrpc::text(topic)?.to_owned(), xmlrpc::text(kind)?.to_owned())),
            _ => None,
        };
        Ok(xmlrpc::list(&list).iter().filter_map(pair).collect())
    }

    async fn master(&self, method: &str, parameters: Vec<Value>) -> anyhow::Result<Value> {
        self.caller.call(&self.settings.master, method, parameters).await
    }

    fn uri(&self) -> String {
        format!("http://{}:{}/", in_uri(&self.host.lock()), self.ports.0)
    }

    /// Looked up each time: a robot's address changes when it changes networks.
    async fn own_host(&self) -> anyhow::Result<String> {
        if let Some(host) = &self.settings.host {
            return Ok(host.clone());
        }
        let master = Url::parse(&self.settings.master).context("the master's address")?;
        let host = master.host_str().context("the master's address has no host")?;
        let at = (host.trim_matches(['[', ']']), master.port_or_known_default().unwrap_or(80));
        let addresses =
            timeout(LOOKUP_TIMEOUT, lookup_host(at)).await.context("looking the master's name up took too long")?;
        let addresses: Vec<_> = addresses.with_context(|| format!("the master's name {host}"))?.collect();
        // Nodes of ROS listen to the older family, unless there is no other.
        let address = addresses.iter().find(|it| it.is_ipv4()).or(addresses.first());
        let address = address.context("the master's name has no address")?;
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        // This sends nothing, but chooses the way.
        socket.connect(address).context("there is no way to the master")?;
        Ok(socket.local_addr()?.ip().to_string())
    }
}

fn is_picture(kind: &str) -> bool {
    [Kind::Image, Kind::Compressed].iter().any(|it| kind.strip_prefix("sensor_msgs/") == Some(it.type_name()))
}
