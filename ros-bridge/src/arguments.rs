//! The command line. Each option has a variable too, where one is of use in a unit or a compose file.

use std::{ffi::OsString, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use reqwest::Url;

use crate::{
    picture::DepthRange,
    routes::{self, Route},
};

/// Shows image topics of ROS 1 and ROS 2 on an Image Streamer, and publishes what operators command on its page /drive.
#[derive(Debug, Parser)]
#[command(name = "image-streamer-ros", version, max_term_width = 110)]
pub struct Arguments {
    /// Which ROS.
    #[command(subcommand)]
    pub ros: Ros,
}

/// Which ROS.
#[derive(Debug, Subcommand)]
pub enum Ros {
    /// A node of ROS 1.
    #[command(after_help = EXAMPLES_1)]
    Ros1(Ros1),
    /// A node of ROS 2.
    #[command(after_help = EXAMPLES_2)]
    Ros2(Ros2),
}

const EXAMPLES_1: &str = "\
image-streamer-ros ros1 --topic /camera/image_raw=front --server https://ann:PASSWORD@example.org
image-streamer-ros ros1 --topic '/cam*/image*={topic}' --max-fps 10 --width 640
image-streamer-ros ros1 --topic /camera/image_raw/compressed=car --cmd-vel /cmd_vel";
const EXAMPLES_2: &str = "\
image-streamer-ros ros2 --topic /image_raw/compressed=front --server https://ann:PASSWORD@example.org
image-streamer-ros ros2 --domain 7 --topic '/**/image_raw={topic}' --max-fps 10 --width 640
image-streamer-ros ros2 --topic /image_raw=car --cmd-vel /cmd_vel";

/// What is for ROS 1 alone.
#[derive(Debug, Args)]
pub struct Ros1 {
    /// The master
    #[arg(long, value_name = "URI", env = "ROS_MASTER_URI", default_value = DEFAULT_MASTER, value_parser = master)]
    pub master: String,
    /// The name or address under which other nodes reach this one; by default the address towards the master
    #[arg(long, value_name = "HOST", env = "ROS_HOSTNAME")]
    pub host: Option<String>,
    /// The node's name; by default one that no other node has
    #[arg(long, value_name = "NAME", value_parser = routes::topic)]
    pub node_name: Option<String>,
    #[command(flatten)]
    pub bridge: Bridge,
}

/// What is for ROS 2 alone.
#[derive(Debug, Args)]
pub struct Ros2 {
    /// The domain
    #[arg(long, value_name = "NUMBER", env = "ROS_DOMAIN_ID", default_value = "0", value_parser = domain)]
    pub domain: u16,
    #[command(flatten)]
    pub bridge: Bridge,
}

/// What is the same for both.
#[derive(Debug, Args)]
pub struct Bridge {
    /// A topic and the session that shows it. May be given several times. Without a session, or with {topic} in its name, that is
    /// the topic's name with dots for its slashes. `*` stands for any part of a name, `**` for any number of parts
    #[arg(long = "topic", value_name = "TOPIC[=SESSION]", action = ArgAction::Append)]
    pub topics: Vec<Route>,
    /// The Image Streamer. A user's name and password may stand in the address
    #[arg(
        long,
        value_name = "URL",
        env = "SERVER_URL",
        hide_env_values = true,
        default_value = "http://localhost:3000"
    )]
    pub server: String,
    /// A user's API key, better given by the variable: others see a command line
    #[arg(long, value_name = "KEY", env = "SERVER_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The quality of JPEGs made of raw pictures, 1 to 100
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Pictures a second of each topic, at most
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub max_fps: Option<f64>,
    /// Raw pictures that are wider are made smaller
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=65_500))]
    pub width: Option<u32>,
    /// Which distances get colours of their own in pictures of depth, in metres
    #[arg(long, value_name = "NEAR:FAR", default_value = "0:10")]
    pub depth_range: DepthRange,
    /// Publishes what operators drive as geometry_msgs/Twist
    #[arg(long, value_name = "TOPIC", value_parser = routes::topic)]
    pub cmd_vel: Option<String>,
    /// Publishes each command as it is as std_msgs/String
    #[arg(long, value_name = "TOPIC", value_parser = routes::topic)]
    pub command_topic: Option<String>,
    /// Whose operators are obeyed; by default those of the session of the only --topic
    #[arg(long, value_name = "SESSION", value_parser = routes::check_session)]
    pub drive: Option<String>,
    /// How long the robot may go on after the last word of its operator, 50 to 60000
    #[arg(long, value_name = "MILLISECONDS", default_value = "250", value_parser = lease)]
    pub lease: Duration,
    /// What is published on --command-topic when that is over
    #[arg(long, value_name = "TEXT", default_value = "S", value_parser = NonEmptyStringValueParser::new())]
    pub stop: String,
}

impl Bridge {
    /// The session whose operators are obeyed; `None` where nothing is published.
    ///
    /// # Errors
    /// When it is not told which.
    pub fn driven(&self) -> Result<Option<String>, String> {
        if self.cmd_vel.is_none() && self.command_topic.is_none() {
            return Ok(None);
        }
        let only = match &self.topics[..] {
            [route] => route.only().map(|(_, session)| session),
            _ => None,
        };
        let session = self.drive.clone().or(only);
        session.map(Some).ok_or_else(|| "whose operators are to be obeyed? --drive SESSION tells it".into())
    }
}

const DEFAULT_MASTER: &str = "http://localhost:11311";

/// An empty variable counts as none, here and below.
fn master(text: &str) -> Result<String, String> {
    let text = if text.is_empty() { DEFAULT_MASTER } else { text };
    match Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(text.to_owned()),
        _ => Err(format!("an address like {DEFAULT_MASTER}")),
    }
}

fn domain(text: &str) -> Result<u16, String> {
    match if text.is_empty() { Ok(0) } else { text.parse() } {
        Ok(domain @ 0..=232) => Ok(domain),
        _ => Err("a number from 0 to 232".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("pictures a second, 0.01 to 1000".into()),
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(lease @ 50..=60_000) => Ok(Duration::from_millis(lease)),
        _ => Err("milliseconds, 50 to 60000".into()),
    }
}

/// What roslaunch puts behind the arguments of every node (`__name:=front`, `__log:=…`, `from:=to`), and the rest.
#[must_use]
pub fn without_remappings(arguments: impl Iterator<Item = OsString>) -> (Vec<OsString>, Option<String>) {
    let mut name = None;
    let rest = arguments.filter(|argument| {
        let Some((left, right)) = argument.to_str().and_then(|it| it.split_once(":=")) else { return true };
        if left == "__name" {
            name = Some(right.to_owned());
        }
        false
    });
    (rest.collect(), name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Bridge, clap::Error> {
        let Arguments { ros } = Arguments::try_parse_from(line.split_whitespace())?;
        Ok(match ros {
            Ros::Ros1(Ros1 { bridge, .. }) | Ros::Ros2(Ros2 { bridge, .. }) => bridge,
        })
    }

    #[test]
    fn the_operators_of_the_only_topic_are_obeyed() {
        let driven = |line: &str| parsed(line).unwrap().driven();
        assert_eq!(driven("x ros1 --topic /a=car"), Ok(None));
        assert_eq!(driven("x ros1 --topic /a=car --cmd-vel /v"), Ok(Some("car".into())));
        assert_eq!(driven("x ros2 --cmd-vel /v --drive car"), Ok(Some("car".into())));
        assert_eq!(driven("x ros2 --topic /a --topic /b --command-topic /v --drive b"), Ok(Some("b".into())));
        for unclear in
            ["x ros1 --cmd-vel /v", "x ros1 --topic /a --topic /b --cmd-vel /v", "x ros1 --topic /a* --cmd-vel /v"]
        {
            assert!(driven(unclear).is_err(), "{unclear}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--quality 0",
            "--quality 101",
            "--max-fps 0",
            "--max-fps nan",
            "--width 1",
            "--depth-range 3",
            "--lease 10",
            "--cmd-vel a:b",
            "--topic /a*=b",
            "--drive a/b",
            "--domain 300",
        ] {
            assert!(parsed(&format!("x ros2 {wrong}")).is_err(), "{wrong}");
        }
    }

    /// What a shell makes of a line without anything but quotes.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('\'').enumerate().map(|(at, part)| match at % 2 {
            0 => part.to_owned(),
            _ => part.replace(' ', "\u{0}"),
        });
        quoted.collect::<String>().split_whitespace().map(|word| word.replace('\u{0}', " ")).collect()
    }

    #[test]
    fn every_command_of_the_documentation_is_understood() {
        let texts = [include_str!("../../docs/ROS.md"), include_str!("../../README.md"), EXAMPLES_1, EXAMPLES_2];
        let mut understood = 0;
        for line in texts.iter().flat_map(|text| text.lines()) {
            let line = line.replace("cargo run --release -p image-streamer-ros -- ", "image-streamer-ros ");
            let Some((_, arguments)) = line.split_once("image-streamer-ros ros") else { continue };
            // In running text a command is followed by more.
            if line.contains('`') {
                continue;
            }
            let words = words(&format!("image-streamer-ros ros{arguments}"));
            let parsed = Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            let (Ros::Ros1(Ros1 { bridge, .. }) | Ros::Ros2(Ros2 { bridge, .. })) = parsed.ros;
            bridge.driven().unwrap();
            understood += 1;
        }
        assert!(understood >= 13, "{understood}");
    }

    #[test]
    fn what_roslaunch_adds_is_taken_away() {
        let line = ["x", "ros1", "--topic", "/a=b", "__name:=front", "__log:=/tmp/x", "image:=/cam"];
        let (rest, name) = without_remappings(line.iter().map(OsString::from));
        assert_eq!((rest.len(), name.as_deref()), (4, Some("front")));
    }
}
