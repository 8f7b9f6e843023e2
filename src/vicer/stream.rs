//! VICER's stream port: cameras push frames to the session like any other, viewers see them like any other.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes};
use futures_util::future::OptionFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, interval, sleep_until, timeout, timeout_at},
};

use super::{FIRST_MESSAGE, keep_alive, reads};
use crate::{
    auth::{Auth, clients::Client},
    connection::STALL_TIMEOUT,
    egress::delivery::{Delivery, SLOW},
    error::Error,
    frame::Seq,
    hub::{
        Hub,
        live::{LiveFrame, Viewer},
    },
    ingest::{BODY_IDLE, stream::STREAM_IDLE},
    port::Serves,
    session::SessionId,
    telemetry::metrics::{WayIn, WayOut},
    wire::{
        pictures::{Item, Splitter},
        vicer::{Pictures, StreamPeer, picture_head},
    },
};

/// What is read of a camera at once.
const READ_BYTES: usize = 64 * 1024;
/// How much the kernel holds of what it has not sent to a viewer yet, in bytes: what is pushed meanwhile is newer.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// The stream port.
#[derive(Clone)]
pub struct Stream {
    hub: Arc<Hub>,
    auth: Arc<Auth>,
    session: SessionId,
}

/// A picture, and the frame that it is of; the No Data picture is of none.
type Shown = (Bytes, Option<Arc<LiveFrame>>);

/// What a camera sends, taken apart.
enum Source {
    Camera(Pictures),
    Bare(Splitter),
}

impl Source {
    /// The pictures that are complete with these bytes.
    fn feed(&mut self, bytes: &[u8], pictures: &mut Vec<Bytes>) -> io::Result<()> {
        match self {
            Self::Camera(camera) => {
                camera.feed(bytes);
                while let Some(picture) = camera.next_picture().map_err(|length| {
                    io::Error::other(format!(
                        "a picture of {} bytes was announced, which is over MAX_IMAGE_BYTES",
                        length.0
                    ))
                })? {
                    pictures.push(picture);
                }
                Ok(())
            }
            Self::Bare(splitter) => {
                let mut items = VecDeque::new();
                let fed = splitter.feed(bytes, &mut items).map_err(io::Error::other);
                pictures.extend(items.into_iter().filter_map(|item| match item {
                    Item::Picture { bytes, .. } => Some(bytes),
                    Item::Refused(fault) => {
                        tracing::debug!(%fault, "a picture of VICER's stream port was refused");
                        None
                    }
                }));
                fed
            }
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Camera(camera) => camera.held(),
            Self::Bare(splitter) => splitter.held(),
        }
    }
}

impl Stream {
    /// A port for one session.
    #[must_use]
    pub fn new(hub: Arc<Hub>, auth: Arc<Auth>, session: SessionId) -> Self {
        Self { hub, auth, session }
    }

    async fn converse(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let mut first = Vec::with_capacity(READ_BYTES);
        let deadline = Instant::now() + FIRST_MESSAGE;
        let kind = loop {
            let read = tokio::select! {
                read = timeout_at(deadline, stream.read_buf(&mut first)) => read??,
                () = self.hub.closing() => return Ok(()),
            };
            match StreamPeer::of(&first) {
                _ if read == 0 => return Ok(()),
                Some(kind) => break kind,
                None => {}
            }
        };
        let client = self.auth.client_at(peer.ip());
        let max = self.hub.max_image_bytes();
        match kind {
            StreamPeer::Viewer => self.show(stream, &client).await,
            StreamPeer::Camera { skip } => {
                self.push(stream, &client, Source::Camera(Pictures::new(max)), &first[skip..]).await
            }
            StreamPeer::Bare => self.push(stream, &client, Source::Bare(Splitter::new(None, max)), &first).await,
        }
    }

    /// Pushes what a camera sends.
    async fn push(&self, mut stream: TcpStream, client: &Client, mut source: Source, first: &[u8]) -> io::Result<()> {
        let (mut pictures, mut share) = (Vec::new(), self.hub.incoming().share());
        let mut buffer = vec![0; READ_BYTES];
        let mut bytes = first;
        loop {
            let fed = source.feed(bytes, &mut pictures);
            share.resize(source.held() + pictures.iter().map(Bytes::len).sum::<usize>()).map_err(io::Error::other)?;
            for picture in pictures.drain(..) {
                self.push_one(client, picture).await;
            }
            fed?;
            // Less than before: it cannot fail.
            let _ = share.resize(source.held());
            let idle = if source.held() > 0 { BODY_IDLE } else { STREAM_IDLE };
            let read = tokio::select! {
                read = timeout(idle, stream.read(&mut buffer)) => read??,
                () = self.hub.closing() => return Ok(()),
            };
            if read == 0 {
                break;
            }
            bytes = &buffer[..read];
        }
        // The last of bare JPEGs may end with the connection.
        if let Source::Bare(splitter) = source
            && let Some(Item::Picture { bytes, .. }) = splitter.end()
        {
            self.push_one(client, bytes).await;
        }
        Ok(())
    }

    async fn push_one(&self, client: &Client, picture: Bytes) {
        let push = async {
            client.may_push(&self.session)?;
            self.hub.push(&self.session, picture, None, WayIn::Vicer).await?;
            client.pushed(&self.session);
            Ok::<_, Error>(())
        };
        if let Err(error) = push.await {
            tracing::debug!(%error, "a picture of VICER's stream port was refused");
        }
    }

    /// Shows the session: each frame with its length before it, the newest where it is too slow for all, and the No Data picture
    /// where there is none that is live.
    async fn show(&self, stream: TcpStream, client: &Arc<Client>) -> io::Result<()> {
        self.hub.viewing().check().map_err(io::Error::other)?;
        let _watching = client.watch().map_err(io::Error::other)?;
        let mut viewer = self.hub.watch(&self.session).map_err(io::Error::other)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        let (mut from_viewer, mut to_viewer) = stream.into_split();
        let mut delivery = Delivery::new(WayOut::Vicer, None);
        let (mut shown, mut buffer, reads) = (None::<Option<Seq>>, [0; 1024], reads());
        let mut written = async |picture: &Bytes| -> io::Result<()> {
            let mut message = Buf::chain(Bytes::copy_from_slice(&picture_head(picture.len())), picture.clone());
            let write = timeout(STALL_TIMEOUT, to_viewer.write_all_buf(&mut message));
            let mut impatience = interval(SLOW);
            impatience.reset();
            tokio::pin!(write);
            loop {
                tokio::select! {
                    written = write.as_mut() => return written?,
                    _ = impatience.tick() => self.hub.viewing().check().map_err(io::Error::other)?,
                }
            }
        };
        loop {
            let (picture, stale_at) = self.due(&mut viewer);
            if let Some((picture, live)) = picture
                && shown != Some(live.as_ref().map(|live| live.frame.seq))
            {
                if live.is_some() {
                    delivery.begin();
                }
                tokio::select! {
                    written = written(&picture) => written?,
                    () = self.hub.closing() => return Ok(()),
                }
                shown = Some(live.as_ref().map(|live| live.frame.seq));
                if let Some(live) = live {
                    delivery.done(&self.hub, &live);
                }
                continue;
            }
            tokio::select! {
                () = viewer.changed() => {}
                Some(()) = OptionFuture::from(stale_at.map(sleep_until)) => {}
                // Some ask for each picture with a blank.
                read = from_viewer.read(&mut buffer) => match read? {
                    0 => return Ok(()),
                    _ if reads.check().is_err() => return Err(io::Error::other("it floods")),
                    _ => {}
                },
                () = self.hub.closing() => return Ok(()),
            }
        }
    }

    /// What is to be seen now, and when that will be stale.
    fn due(&self, viewer: &mut Viewer) -> (Option<Shown>, Option<Instant>) {
        let state = viewer.state();
        let stale_at = state.frame.as_ref().map(|live| live.received + self.hub.stale_after());
        match state.frame {
            Some(live) if stale_at.is_some_and(|stale_at| stale_at > Instant::now()) => {
                (Some((live.frame.bytes.clone(), Some(live))), stale_at)
            }
            None if !state.known => (None, None),
            _ => (Some((self.hub.no_data().bytes.clone(), None)), None),
        }
    }
}

impl Serves for Stream {
    const CLIENTS: &'static str = "vicer-stream";

    async fn serve(self, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        keep_alive(&stream);
        if let Err(error) = self.converse(stream, peer).await {
            tracing::debug!(%peer, %error, "a peer of VICER's stream port was cut off");
        }
    }
}
