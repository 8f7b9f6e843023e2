//! One topic's way to its session: takes the newest message, makes a picture of it, pushes it.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    message::{self, Malformed, Picture, Stamp},
    newest::{Arrived, Newest},
    pace::{Backoff, Complaint, Rate},
    picture::{Jpeg, Style, Unusable},
    server::{PushError, Server},
};

/// For how long a picture may wait for the server. It would be taken for new there: after an outage a robot that has stopped
/// meanwhile must not be seen as if it went on. As long as servers take for live (STALE_AFTER).
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How often a topic says how it is doing.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What all topics' pictures have in common.
#[derive(Clone)]
pub struct Studio {
    /// Where they go.
    pub server: Server,
    /// How they are made.
    pub style: Style,
    /// How many a second at most, of each topic.
    pub max_fps: Option<f64>,
    /// As many make pictures at once as there are cores: commands have to get through too.
    pub cores: Arc<Semaphore>,
}

impl Studio {
    /// Shows a topic in a session, for as long as what is returned is held.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn show(&self, topic: &str, session: &str) -> anyhow::Result<Camera> {
        let newest = Newest::new();
        let way = Way {
            name: format!("{topic} ({session})"),
            session: session.to_owned(),
            server: self.server.clone(),
            jpeg: Jpeg::new(self.style)?,
            newest: Arc::clone(&newest),
            tally: Tally::default(),
            reported: 0,
            refusal: Complaint::default(),
            is_cut_off: false,
            cores: Arc::clone(&self.cores),
            backoff: Backoff::new(),
        };
        let max_fps = self.max_fps;
        info!("{topic} is shown in {}view/{session}", self.server.address());
        Ok(Camera { session: session.to_owned(), newest, _way: AbortOnDropHandle::new(tokio::spawn(way.run(max_fps))) })
    }
}

/// A topic that is shown. What is put into it goes to the server, unless something newer comes before it can.
pub struct Camera {
    session: String,
    newest: Arc<Newest>,
    _way: AbortOnDropHandle<()>,
}

impl Camera {
    /// Where it is shown.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Where its messages are put.
    #[must_use]
    pub fn newest(&self) -> Arc<Newest> {
        Arc::clone(&self.newest)
    }
}

/// What became of a topic's messages.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    pushed: u64,
    /// Those that were no pictures, or that the server did not want.
    refused: u64,
    /// Those that were lost on the way.
    lost: u64,
}

struct Way {
    name: String,
    session: String,
    server: Server,
    jpeg: Jpeg,
    newest: Arc<Newest>,
    tally: Tally,
    /// How many messages had arrived when that was last said.
    reported: u64,
    refusal: Complaint,
    is_cut_off: bool,
    cores: Arc<Semaphore>,
    backoff: Backoff,
}

/// A file to push.
struct File {
    kind: &'static str,
    bytes: Bytes,
    stamp: Stamp,
}

/// What a message holds, or what was made of it.
enum Made {
    /// A file of this type, in these bytes of the message.
    Part(&'static str, Range<usize>),
    Jpeg(Vec<u8>),
}

/// Why there is no file to push.
#[derive(Debug, thiserror::Error)]
enum NoFile {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the file (format {0:?}) is neither JPEG nor PNG: other kinds of compression are not shown")]
    Kind(String),
    #[error("making the picture failed: please report this, with the encoding and the size")]
    Panicked,
}

impl Way {
    async fn run(mut self, max_fps: Option<f64>) {
        let mut rate = Rate::new(max_fps);
        let mut report = Instant::now() + REPORT_INTERVAL;
        loop {
            sleep_until(rate.due()).await;
            let message = tokio::select! {
                message = self.newest.take() => message,
                () = sleep_until(report) => {
                    self.report();
                    report += REPORT_INTERVAL;
                    continue;
                }
            };
            rate.one();
            if message.at.elapsed() > MAX_WAIT {
                self.tally.lost += 1;
                self.newest.give_back(message.bytes);
                continue;
            }
            let Ok(core) = Arc::clone(&self.cores).acquire_owned().await else { return };
            let file = self.file(message);
            drop(core);
            match file {
                Ok(file) => self.push(file).await,
                Err(error) => {
                    self.tally.refused += 1;
                    self.refusal.say(&self.name, &format!("a message was refused: {error}"));
                }
            }
        }
    }

    /// What a message shows, as a file.
    fn file(&mut self, message: Arrived) -> Result<File, NoFile> {
        // One bad message costs itself, whatever a library makes of it; what is kept between pictures is only buffers.
        let make = AssertUnwindSafe(|| make(&mut self.jpeg, &message));
        // Other topics' tasks leave this thread while it computes.
        let made = tokio::task::block_in_place(|| catch_unwind(make)).unwrap_or(Err(NoFile::Panicked));
        match made {
            Ok((Made::Part(kind, range), stamp)) => {
                Ok(File { kind, bytes: Bytes::from(message.bytes).slice(range), stamp })
            }
            Ok((Made::Jpeg(jpeg), stamp)) => {
                self.newest.give_back(message.bytes);
                Ok(File { kind: "image/jpeg", bytes: jpeg.into(), stamp })
            }
            Err(error) => {
                self.newest.give_back(message.bytes);
                Err(error)
            }
        }
    }

    async fn push(&mut self, File { kind, bytes, stamp }: File) {
        let error = match self.server.push(&self.session, kind, bytes, stamp).await {
            Ok(()) => {
                self.tally.pushed += 1;
                self.reached();
                return;
            }
            Err(error) => error,
        };
        let pause = match &error {
            PushError::Refused(message) => {
                self.tally.refused += 1;
                self.refusal.say(&self.name, &format!("the server refused a picture: {message}"));
                self.reached();
                return;
            }
            PushError::NotNow { pause, .. } => *pause,
            PushError::Unreachable(_) => None,
        };
        self.tally.lost += 1;
        if !std::mem::replace(&mut self.is_cut_off, true) {
            warn!("{}: going on without the server: {error}", self.name);
        }
        // Meanwhile what is newer takes the place of what waits.
        sleep(self.backoff.next().max(pause.unwrap_or_default())).await;
    }

    fn reached(&mut self) {
        self.backoff = Backoff::new();
        if std::mem::take(&mut self.is_cut_off) {
            info!("{}: the server takes pictures again", self.name);
        }
    }

    fn report(&mut self) {
        let (arrived, replaced) = self.newest.counts();
        if std::mem::replace(&mut self.reported, arrived) == arrived {
            return;
        }
        let Tally { pushed, refused, lost } = self.tally;
        info!(
            "{}: {arrived} arrived, {pushed} pushed, {replaced} gave way to newer ones, {lost} lost, {refused} refused",
            self.name
        );
    }
}

fn make(jpeg: &mut Jpeg, message: &Arrived) -> Result<(Made, Stamp), NoFile> {
    let Arrived { kind, layout, bytes, .. } = message;
    let message::Message { stamp, picture } = message::read(*layout, *kind, bytes)?;
    let made = match picture {
        Picture::Raw(image) => Made::Jpeg(jpeg.of(&image)?),
        Picture::File { format, data } => {
            let start = data.as_ptr().addr() - bytes.as_ptr().addr();
            Made::Part(file_kind(format, data)?, start..start + data.len())
        }
    };
    Ok((made, stamp))
}

fn file_kind(format: &str, data: &[u8]) -> Result<&'static str, NoFile> {
    if data.starts_with(b"\xFF\xD8\xFF") {
        Ok("image/jpeg")
    } else if data.starts_with(b"\x89PNG\r\n\x1A\n") {
        Ok("image/png")
    } else {
        Err(NoFile::Kind(format.chars().take(40).collect()))
    }
}
