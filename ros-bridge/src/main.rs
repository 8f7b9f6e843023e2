//! Shows image topics of ROS 1 and ROS 2 on an Image Streamer, and publishes what its operators command.
//!
//! ```text
//! main.rs         arguments → one node → until it is told to end
//! arguments.rs    the command line                   routes.rs       which topic goes to which session
//! ros1.rs         a node of ROS 1: the master        ros2.rs         a node of ROS 2
//!   ros1/slave.rs      what other nodes ask            ros1/xmlrpc.rs     calls and answers
//!   ros1/subscriber.rs one publisher's messages        ros1/publisher.rs  commands to subscribers
//!   ros1/header.rs     how a connection begins         ros2/raw.rs        messages as DDS delivers them
//! newest.rs       between a topic and its way: one message waits, the newest wins
//! camera.rs       one topic's way to its session     vehicle.rs      operators' commands, and the lease
//! message.rs      messages taken apart               picture.rs      pixels to JPEG: picture/{bayer,depth,resize,yuv}.rs
//! server.rs       the Image Streamer                 pace.rs         tries, pictures, complaints: how often
//! ```

mod arguments;
mod camera;
mod message;
mod newest;
mod pace;
mod picture;
mod ros1;
mod ros2;
mod routes;
mod server;
mod vehicle;

use std::{io::IsTerminal, sync::Arc};

use anyhow::anyhow;
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::{
    arguments::{Arguments, Bridge, Ros, Ros1, Ros2},
    camera::Studio,
    picture::Style,
    routes::Routes,
    server::Server,
    vehicle::{Commands, Terms, Vehicle},
};

/// What is logged where RUST_LOG says nothing else. The library of DDS tells of every network that it does not use.
const QUIET: &str = "info,rustdds=off";
/// How long subscribers get to take the last command, which is to stop.
const LAST_WORD: std::time::Duration = std::time::Duration::from_millis(200);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow!("two cryptographic libraries"))?;
    let (rest, name) = arguments::without_remappings(std::env::args_os());
    let end = CancellationToken::new();
    let _signals = end_on_signals(end.clone())?;
    match Arguments::parse_from(rest).ros {
        Ros::Ros1(arguments) => run_ros1(arguments, name, end).await,
        Ros::Ros2(arguments) => run_ros2(arguments, end).await,
    }
}

async fn run_ros1(arguments: Ros1, given: Option<String>, end: CancellationToken) -> anyhow::Result<()> {
    let Ros1 { master, host, node_name, bridge } = arguments;
    let name = match given.map(|name| routes::topic(&name)).transpose().map_err(|error| anyhow!(error))?.or(node_name) {
        Some(name) => name,
        None => format!("/image_streamer_{}_{}", std::process::id(), std::time::UNIX_EPOCH.elapsed()?.as_millis()),
    };
    let namespace = std::env::var("ROS_NAMESPACE").unwrap_or_default();
    let name = match namespace.trim_matches('/') {
        "" => name,
        namespace => format!("/{namespace}{name}"),
    };
    let host = [host, std::env::var("ROS_IP").ok()].into_iter().flatten().find(|host| !host.is_empty());
    let ready = Ready::new(&bridge)?;
    let publications = [(bridge.cmd_vel, ros1::Type::Twist), (bridge.command_topic, ros1::Type::Text)];
    let publications =
        publications.into_iter().filter_map(|(topic, kind)| Some(ros1::Publication { topic: topic?, kind }));
    let Ready { routes, studio, commands, vehicle } = ready;
    let settings = ros1::Settings { master, name, host };
    let node_end = CancellationToken::new();
    let ends = Ends { all: end.clone(), node: node_end.clone() };
    let node = ros1::run(settings, routes, studio, publications.collect(), commands, ends);
    drive_until(end, vehicle, node_end, node).await
}

async fn run_ros2(arguments: Ros2, end: CancellationToken) -> anyhow::Result<()> {
    let Ros2 { domain, bridge } = arguments;
    let Ready { routes, studio, commands, vehicle } = Ready::new(&bridge)?;
    let publications = ros2::Publications { twist: bridge.cmd_vel, text: bridge.command_topic };
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|it| it.eq_ignore_ascii_case(value));
    let is_local = is("ROS_LOCALHOST_ONLY", "1") || is("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
    let node_end = CancellationToken::new();
    let settings = ros2::Settings { domain, is_local };
    let ends = Ends { all: end.clone(), node: node_end.clone() };
    let node = ros2::run(settings, routes, studio, publications, commands, ends);
    drive_until(end, vehicle, node_end, node).await
}

/// What a node is told, and can tell.
struct Ends {
    /// Everything is to end.
    all: CancellationToken,
    /// The node is to end.
    node: CancellationToken,
}

/// What both kinds of node begin with.
struct Ready {
    routes: Routes,
    studio: Studio,
    commands: Commands,
    vehicle: Option<Vehicle>,
}

impl Ready {
    fn new(bridge: &Bridge) -> anyhow::Result<Self> {
        let driven = bridge.driven().map_err(|error| anyhow!(error))?;
        if bridge.topics.is_empty() && driven.is_none() {
            return Err(anyhow!("there is nothing to do: --topic /camera/image_raw=front shows a topic"));
        }
        let routes = Routes::new(bridge.topics.clone()).map_err(|error| anyhow!(error))?;
        let server = Server::new(&bridge.server, bridge.key.as_deref().filter(|key| !key.is_empty()))?;
        let style = Style { quality: bridge.quality, max_width: bridge.width, depth: bridge.depth_range };
        let commands = Commands::new();
        let vehicle = driven.map(|session| {
            let terms = Terms { session, lease: bridge.lease, stop: bridge.stop.clone() };
            Vehicle::new(server.clone(), terms, commands.clone())
        });
        let cores = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        Ok(Self { routes, studio: Studio { server, style, max_fps: bridge.max_fps, cores }, commands, vehicle })
    }
}

/// Runs a node, with the vehicle beside it, until one of them ends or all are told to. The vehicle ends first: the node is
/// still there to publish that the robot is to stop.
async fn drive_until(
    end: CancellationToken,
    vehicle: Option<Vehicle>,
    node_end: CancellationToken,
    node: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let driving = vehicle.map(|vehicle| {
        let ending = end.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            // However it ends, nothing goes on without it.
            let _guard = ending.clone().drop_guard();
            vehicle.run(ending).await;
        }))
    });
    let node = async {
        let ended = node.await;
        end.cancel();
        ended
    };
    let wind_up = async {
        end.cancelled().await;
        if let Some(driving) = driving {
            // An error would be that it panicked, which has been told.
            let _ = driving.await;
            tokio::time::sleep(LAST_WORD).await;
        }
        node_end.cancel();
    };
    let (ended, ()) = tokio::join!(node, wind_up);
    info!("the end");
    ended
}

/// Cancels on SIGTERM and SIGINT.
fn end_on_signals(end: CancellationToken) -> anyhow::Result<AbortOnDropHandle<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        end.cancel();
    })))
}
