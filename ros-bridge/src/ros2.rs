//! A node of ROS 2: reads topics of pictures over DDS, and writes commands.
//!
//! Names on DDS are those of ROS 2 (design.ros2.org/articles/topic_and_service_names.html): `rt/` before a topic's name, and
//! `sensor_msgs::msg::dds_::Image_` for a type.

mod raw;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use rustdds::{
    DomainParticipant, DomainParticipantBuilder, QosPolicies, QosPolicyBuilder, TopicKind,
    no_key::{DataWriterCdr, SimpleDataReader},
    policy::{Durability, History, Reliability, ResourceLimits},
};
use serde::Serialize;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use self::raw::{Adapter, Cdr, Decoder};
use crate::{
    Ends,
    camera::{Camera, Studio},
    message::Kind,
    newest::{Arrived, Newest},
    pace::Complaint,
    routes::{MAX_TOPICS, Routes},
    vehicle::{Commands, Twist},
};

/// How often it is looked which topics there are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What the system is asked to hold of what comes, in bytes: a picture comes in one burst, and what does not fit is lost.
const RECEIVE_BUFFER: usize = 16 << 20;
/// With less, pictures of 640 x 480 are lost, in bytes.
const ENOUGH_BUFFER: usize = 4 << 20;
/// How long a command may wait for subscribers that take nothing. It is old then.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);
/// How many commands may be on their way to a subscriber that does not acknowledge them before the others wait for it: more than
/// come until DDS gives it up.
const WINDOW: i32 = 1024;
/// When a stop is said again after it was said: to a subscriber that asks for no acknowledgement a packet may be lost.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// How many texts are kept for subscribers that missed them.
const TEXT_HISTORY: i32 = 16;

/// Where this node is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `ROS_DOMAIN_ID`.
    pub domain: u16,
    /// Whether other machines are not to be heard.
    pub is_local: bool,
}

/// What is published, and where.
#[derive(Clone, Debug, Default)]
pub struct Publications {
    /// `geometry_msgs/Twist`.
    pub twist: Option<String>,
    /// `std_msgs/String`.
    pub text: Option<String>,
}

/// `std_msgs/String`.
#[derive(Serialize)]
struct Text {
    data: String,
}

struct Shown {
    camera: Camera,
    reading: Reading,
    /// Whether it was found by a pattern, and so goes when the topic does.
    is_found: bool,
}

/// How a topic is read. What its publishers say can change that.
struct Reading {
    kind: Kind,
    is_reliable: bool,
    _task: AbortOnDropHandle<()>,
}

struct Node {
    participant: DomainParticipant,
    routes: Routes,
    studio: Studio,
    shown: HashMap<String, Shown>,
    complaint: Complaint,
}

/// Shows topics and publishes commands until told to end.
///
/// # Errors
/// When there is no network, or the domain has too many participants on this machine.
pub async fn run(
    settings: Settings,
    routes: Routes,
    studio: Studio,
    publications: Publications,
    commands: Commands,
    ends: Ends,
) -> anyhow::Result<()> {
    warn_of_small_buffers();
    let has_failed = end_with_the_library(ends.all);
    let participant =
        tokio::task::spawn_blocking(move || join(settings)).await?.context("the domain cannot be joined")?;
    info!("joined domain {}{}", settings.domain, if settings.is_local { ", on this machine alone" } else { "" });
    let _publishing = publish(&participant, publications, &commands)?;
    let mut node = Node { participant, routes, studio, shown: HashMap::new(), complaint: Complaint::default() };
    let named: Vec<_> = node.routes.named().map(|(topic, session)| (topic.to_owned(), session)).collect();
    for (topic, session) in named {
        // Until a publisher says what it is and how it sends, any that suits this name is read.
        node.show(&topic, &session, Kind::by_name(&topic), false, false)?;
    }
    while ends.node.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_some() {
        node.look();
    }
    if has_failed.load(Relaxed) {
        bail!("a thread of the DDS library has failed, and nothing would come any more");
    }
    Ok(())
}

fn join(settings: Settings) -> anyhow::Result<DomainParticipant> {
    let mut builder = DomainParticipantBuilder::new(settings.domain).socket_receive_buffer_size(RECEIVE_BUFFER);
    if settings.is_local {
        builder = builder.with_only_networks([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    builder.build().map_err(|error| anyhow!("{error}"))
}

/// What the system allows is far too little by default, and nothing else tells of it: there are just no pictures.
fn warn_of_small_buffers() {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok().and_then(|text| text.trim().parse().ok());
    if let Some(allowed) = allowed.filter(|&it: &usize| it < ENOUGH_BUFFER) {
        warn!(
            "the system holds {allowed} bytes of what comes, so that larger pictures are lost: \
             sysctl -w net.core.rmem_max={RECEIVE_BUFFER} changes that (docs/ROS.md)"
        );
    }
}

/// The library has threads of its own. Should one of them fail, nothing would come any more and nothing would say so.
fn end_with_the_library(end: CancellationToken) -> Arc<AtomicBool> {
    let has_failed = Arc::new(AtomicBool::new(false));
    let (before, failing) = (std::panic::take_hook(), Arc::clone(&has_failed));
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if std::thread::current().name().is_some_and(|name| name.starts_with("RustDDS")) {
            failing.store(true, Relaxed);
            end.cancel();
        }
    }));
    has_failed
}

impl Node {
    /// Reads what there is to be read, in the way in which it is sent.
    fn look(&mut self) {
        let mut published: BTreeMap<String, Vec<(Kind, bool)>> = BTreeMap::new();
        for writer in self.participant.discovered_writers() {
            let data = &writer.publication_topic_data;
            let Some(topic) = data.topic_name().strip_prefix("rt/") else { continue };
            let Some(kind) = kind_of(&data.type_name) else { continue };
            // What is not told is the default, and for publishers that is to be reliable.
            let is_reliable = !matches!(data.reliability, Some(Reliability::BestEffort));
            published.entry(format!("/{topic}")).or_default().push((kind, is_reliable));
        }
        for (topic, writers) in &published {
            let is_shown = self.shown.contains_key(topic);
            let session = self.routes.session_of(topic).filter(|_| is_shown || self.shown.len() < MAX_TOPICS);
            let Some(session) = session else { continue };
            let kinds = || writers.iter().map(|(kind, _)| *kind);
            let guess = Kind::by_name(topic);
            let kind = kinds().find(|kind| *kind == guess).or_else(|| kinds().next()).unwrap_or(guess);
            // One that is not reliable could not be read reliably.
            let is_reliable = writers.iter().all(|(other, is_reliable)| *other != kind || *is_reliable);
            if let Err(error) = self.show(topic, &session, kind, is_reliable, true) {
                self.complaint.say(topic, &format!("cannot be shown: {error:#}"));
            }
        }
        self.shown.retain(|topic, shown| {
            let stays = !shown.is_found || published.contains_key(topic);
            if !stays {
                info!("{topic} is gone");
            }
            stays
        });
    }

    fn show(
        &mut self,
        topic: &str,
        session: &str,
        kind: Kind,
        is_reliable: bool,
        is_found: bool,
    ) -> anyhow::Result<()> {
        if let Some(shown) = self.shown.get_mut(topic) {
            if (shown.reading.kind, shown.reading.is_reliable) != (kind, is_reliable) {
                shown.reading = read(&self.participant, topic, kind, is_reliable, shown.camera.newest())?;
            }
            return Ok(());
        }
        // Two topics in one session would take turns in its picture.
        if self.shown.values().any(|it| it.camera.session() == session) {
            debug!("{topic} is not shown: the session {session} shows another topic");
            return Ok(());
        }
        let camera = self.studio.show(topic, session)?;
        let reading = read(&self.participant, topic, kind, is_reliable, camera.newest())?;
        self.shown.insert(topic.to_owned(), Shown { camera, reading, is_found });
        Ok(())
    }
}

fn kind_of(type_name: &str) -> Option<Kind> {
    [Kind::Image, Kind::Compressed].into_iter().find(|kind| type_name == picture_type(*kind))
}

fn picture_type(kind: Kind) -> String {
    format!("sensor_msgs::msg::dds_::{}_", kind.type_name())
}

/// The newest of a topic's messages counts, and none from before.
fn newest(is_reliable: bool, depth: i32, max_samples: i32) -> QosPolicies {
    let builder = QosPolicyBuilder::new()
        .durability(Durability::Volatile)
        .history(History::KeepLast { depth })
        .resource_limits(ResourceLimits { max_samples, max_instances: 1, max_samples_per_instance: max_samples });
    if is_reliable {
        let max_blocking_time = rustdds::Duration::from_millis(100);
        builder.reliability(Reliability::Reliable { max_blocking_time }).build()
    } else {
        builder.best_effort().build()
    }
}

fn read(
    participant: &DomainParticipant,
    topic: &str,
    kind: Kind,
    is_reliable: bool,
    newest_of: Arc<Newest>,
) -> anyhow::Result<Reading> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("DDS: {error}");
    let qos = newest(is_reliable, 1, 1);
    let described = participant.create_topic(format!("rt{topic}"), picture_type(kind), &qos, TopicKind::NoKey);
    let described = described.map_err(|error| failed(&error))?;
    let subscriber = participant.create_subscriber(&qos).map_err(|error| failed(&error))?;
    let reader: SimpleDataReader<Cdr, Adapter> =
        subscriber.create_simple_datareader_no_key(&described, Some(qos)).map_err(|error| failed(&error))?;
    debug!("{topic} is read as {}, {}", kind.type_name(), if is_reliable { "reliably" } else { "best-effort" });
    let name = topic.to_owned();
    let task = tokio::spawn(async move {
        let mut complaint = Complaint::default();
        // It ends with its reader.
        let _subscriber = subscriber;
        let mut samples = std::pin::pin!(reader.as_async_stream_with(Decoder(Arc::clone(&newest_of))));
        while let Some(sample) = samples.next().await {
            match sample {
                Ok(sample) => {
                    let Cdr { layout, bytes } = sample.into_value();
                    newest_of.put(Arrived { kind, layout, bytes, at: Instant::now() });
                }
                Err(error) => complaint.say(&name, &format!("a message could not be read: {error}")),
            }
        }
    });
    Ok(Reading { kind, is_reliable, _task: AbortOnDropHandle::new(task) })
}

/// Begins to publish, for as long as what is returned is held.
fn publish(
    participant: &DomainParticipant,
    publications: Publications,
    commands: &Commands,
) -> anyhow::Result<Vec<AbortOnDropHandle<()>>> {
    let mut tasks = Vec::new();
    if let Some(topic) = publications.twist {
        let writer = writer::<Twist>(participant, &topic, "geometry_msgs::msg::dds_::Twist_", 1)?;
        let mut twists = commands.twists();
        tasks.push(tokio::spawn(async move {
            while twists.changed().await.is_ok() {
                let mut twist = *twists.borrow_and_update();
                // What could not be written is not forgotten; by then the newest may be to stop.
                while !write(&writer, twist, &topic).await {
                    twist = *twists.borrow_and_update();
                }
                for pause in AGAIN.iter().filter(|_| twist == Twist::default()) {
                    if timeout(*pause, twists.changed()).await.is_ok() {
                        twists.mark_changed();
                        break;
                    }
                    write(&writer, twist, &topic).await;
                }
            }
        }));
    }
    if let Some(topic) = publications.text {
        let writer = writer::<Text>(participant, &topic, "std_msgs::msg::dds_::String_", TEXT_HISTORY)?;
        let mut texts = commands.texts();
        tasks.push(tokio::spawn(async move {
            loop {
                match texts.recv().await {
                    Ok(text) => {
                        write(&writer, Text { data: text.as_ref().into() }, &topic).await;
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }));
    }
    Ok(tasks.into_iter().map(AbortOnDropHandle::new).collect())
}

fn writer<T: Serialize>(
    participant: &DomainParticipant,
    topic: &str,
    type_name: &str,
    depth: i32,
) -> anyhow::Result<DataWriterCdr<T>> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("DDS: {error}");
    let qos = newest(true, depth, WINDOW);
    let described = participant.create_topic(format!("rt{topic}"), type_name.into(), &qos, TopicKind::NoKey);
    let described = described.map_err(|error| failed(&error))?;
    let publisher = participant.create_publisher(&qos).map_err(|error| failed(&error))?;
    publisher.create_datawriter_no_key_cdr(&described, None).map_err(|error| failed(&error))
}

/// Returns whether it was written in time.
async fn write<T: Serialize>(writer: &DataWriterCdr<T>, message: T, topic: &str) -> bool {
    match timeout(SEND_TIMEOUT, writer.async_write(message, None)).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            warn!("{topic}: a command was not published: {error}");
            // An error comes at once, and would come again at once.
            sleep(SEND_TIMEOUT).await;
        }
        Err(_) => warn!("{topic}: a command was not published in time"),
    }
    false
}
