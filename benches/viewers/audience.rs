//! Those who watch.

use std::{
    cell::RefCell,
    io::ErrorKind,
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    time::Instant,
};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{
    io::Interest,
    net::TcpStream,
    task::{JoinSet, yield_now},
    time::timeout,
};

use crate::{
    ANSWER, KIB, Result, microseconds,
    picture::{HEAD_READ, Protocol, STAMP, Stamp, read_head, status},
    target::Target,
};

/// The most that is discarded at once, in bytes.
const SKIP: usize = 256 * KIB;
/// Reads of one viewer after which others get their turn.
const TURN: usize = 16;

/// One frame at one viewer.
pub(crate) struct Receipt {
    pub(crate) stamp: Stamp,
    /// In microseconds since the start of this program.
    pub(crate) received: u64,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) receipts: Mutex<Vec<Receipt>>,
    /// Why viewers lost their stream, and what they should not have got.
    pub(crate) faults: Mutex<Vec<String>>,
}

/// Viewers of one target, as many of each session.
pub(crate) struct Audience {
    pub(crate) log: Arc<Log>,
    pub(crate) viewers: usize,
    tasks: JoinSet<()>,
}

impl Audience {
    /// Returns when every viewer has the head of its stream.
    pub(crate) async fn gather(clock: Instant, target: &Target, sessions: impl Iterator<Item = u32>) -> Result<Self> {
        let mut audience = Self { log: Arc::default(), viewers: 0, tasks: JoinSet::new() };
        for session in sessions {
            let mut viewer = Viewer::begin(clock, target, session, audience.log.clone()).await?;
            audience.viewers += 1;
            audience.tasks.spawn(async move {
                let end = viewer.watch().await;
                viewer.log.faults.lock().unwrap().push(end);
            });
        }
        Ok(audience)
    }
}

/// Follows one stream; keeps nothing of it but a head that is not whole yet, and the start of a picture.
struct Viewer {
    clock: Instant,
    stream: TcpStream,
    protocol: Protocol,
    session: u32,
    log: Arc<Log>,
    head: Vec<u8>,
    /// Bytes of the picture that are still to come; none between pictures.
    left: Option<usize>,
    start: [u8; STAMP],
    /// How much of `start` is there.
    seen: usize,
    /// The number of the newest frame.
    newest: u32,
}

thread_local! {
    /// One for all viewers, so that it stays in the processor's cache.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SKIP]);
}

impl Viewer {
    /// Returns when the head of the stream is there.
    async fn begin(clock: Instant, target: &Target, session: u32, log: Arc<Log>) -> Result<Self> {
        let (protocol, mut stream) = (target.protocol, target.ask(session).await?);
        let (head, rest) = timeout(ANSWER, read_head(&mut stream)).await.map_err(|_| "a viewer is not answered")??;
        if status(&head) != if protocol == Protocol::Mjpeg { 200 } else { 101 } {
            let head = String::from_utf8_lossy(&head);
            return Err(format!("a viewer was answered {}", head.lines().next().unwrap_or_default()).into());
        }
        let (head, left, start, seen, newest) = (Vec::new(), None, [0; STAMP], 0, 0);
        let mut viewer = Self { clock, stream, protocol, session, log, head, left, start, seen, newest };
        viewer.feed(&rest)?;
        Ok(viewer)
    }

    /// Watches until the stream ends. Returns why it did.
    async fn watch(&mut self) -> String {
        loop {
            if let Err(error) = self.stream.readable().await {
                return error.to_string();
            }
            for _ in 0..TURN {
                match SCRATCH.with_borrow_mut(|scratch| self.read(scratch)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(end) => return end.to_string(),
                }
            }
            yield_now().await;
        }
    }

    /// Reads once. Returns whether there may be more.
    fn read(&mut self, scratch: &mut [u8]) -> Result<bool> {
        let (wanted, flags) = match self.left {
            // The kernel takes the bytes off the stream without copying them.
            Some(left) if self.seen == STAMP => (left.min(SKIP), MsgFlags::MSG_TRUNC),
            _ => (HEAD_READ, MsgFlags::empty()),
        };
        let mut got = None;
        let result = self.stream.try_io(Interest::READABLE, || {
            let count = recv(self.stream.as_raw_fd(), &mut scratch[..wanted], flags)?;
            got = Some(count);
            // Less than wanted means that there is nothing more, which need not be asked for once again.
            if count < wanted { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (got, result) {
            (Some(0), _) => return Err("the stream ended".into()),
            (Some(count), _) if flags.is_empty() => self.feed(&scratch[..count])?,
            (Some(count), _) => self.pass(count),
            (None, Err(error)) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            (None, _) => {}
        }
        Ok(got == Some(wanted))
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result {
        while !bytes.is_empty() {
            if let Some(left) = self.left {
                let (now, later) = bytes.split_at(left.min(bytes.len()));
                let looked = now.len().min(STAMP - self.seen);
                self.start[self.seen..self.seen + looked].copy_from_slice(&now[..looked]);
                self.seen += looked;
                self.pass(now.len());
                bytes = later;
            } else {
                let held = self.head.len();
                self.head.extend_from_slice(bytes);
                let Some((end, length)) = self.protocol.measure(&self.head)? else {
                    let fits = self.head.len() <= HEAD_READ;
                    return fits.then_some(()).ok_or("the head of a part is too long".into());
                };
                bytes = &bytes[end - held..];
                self.head.clear();
                self.left = (length > 0).then_some(length);
            }
        }
        Ok(())
    }

    /// Some bytes of the picture went by, perhaps its last.
    fn pass(&mut self, count: usize) {
        self.left = self.left.map(|left| left - count).filter(|left| *left > 0);
        if self.left.is_some() {
            return;
        }
        let stamp = if self.seen == STAMP { Stamp::read(&self.start) } else { None };
        self.seen = 0;
        match stamp {
            Some(stamp) if stamp.session != self.session => {
                self.log.faults.lock().unwrap().push("it got a frame of another session".into());
            }
            Some(stamp) if stamp.number > self.newest => {
                self.newest = stamp.number;
                self.log.receipts.lock().unwrap().push(Receipt { stamp, received: microseconds(self.clock) });
            }
            _ => {}
        }
    }
}
