//! VICER's control port: whatever a controller sends goes to the vehicles.

use std::{collections::VecDeque, io, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{FIRST_MESSAGE, end_with_reset, keep_alive, reads};
use crate::{
    config,
    control::{
        Relay, Terms, Words,
        vehicle::{Order, Vehicle},
    },
    error::Error,
    port::Serves,
    session::SessionId,
    store::bus::Operator,
    wire::vicer::{ControlPeer, MAX_FIRST_BYTES},
};

/// Commands of one controller that wait at most while the bus takes one. Beyond it the oldest is dropped.
const MAX_WAITING: usize = 64;

/// A command that is being handed on.
type Calling = Pin<Box<dyn Future<Output = Result<usize, Error>> + Send>>;

/// The control port.
#[derive(Clone)]
pub struct Control {
    relay: Arc<Relay>,
    session: SessionId,
    terms: Terms,
}

impl Control {
    /// As configured.
    #[must_use]
    pub fn new(relay: Arc<Relay>, config: &config::Vicer) -> Self {
        let stop = Words { is_text: true, bytes: config.stop.clone().into() };
        Self { relay, session: config.session.clone(), terms: Terms { lease: config.lease, stop: Some(stop) } }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = [0; MAX_FIRST_BYTES];
        let first = tokio::select! {
            first = timeout(FIRST_MESSAGE, stream.read(&mut buffer)) => first??,
            () = self.relay.closing() => return Ok(()),
        };
        match ControlPeer::of(&buffer[..first]) {
            _ if first == 0 => Ok(()),
            ControlPeer::Vehicle => {
                let vehicle = self.relay.vehicle(self.session.clone(), "vicer", self.terms.clone()).await;
                self.drive(vehicle.map_err(io::Error::other)?, stream).await
            }
            ControlPeer::Controller => self.obey(stream).await,
        }
    }

    /// Serves a vehicle.
    async fn drive(&self, mut vehicle: Vehicle, mut stream: TcpStream) -> io::Result<()> {
        let unacknowledged = vehicle.lease().min(self.relay.ttl());
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(unacknowledged))?;
        let (mut buffer, reads) = ([0; MAX_FIRST_BYTES], reads());
        loop {
            tokio::select! {
                // It has nothing to say.
                read = stream.read(&mut buffer) => match read? {
                    0 => return Ok(()),
                    _ if reads.check().is_err() => return Err(io::Error::other("it floods")),
                    _ => {}
                },
                order = vehicle.next(true) => match order {
                    Order::Command(words) | Order::Stop(words) => {
                        let written = timeout(unacknowledged, stream.write_all(&words.bytes)).await;
                        if written.is_err() {
                            end_with_reset(&stream);
                        }
                        written??;
                    }
                    Order::End => return stream.shutdown().await,
                },
            }
        }
    }

    /// Serves a controller: what is read at once is one command.
    async fn obey(&self, mut stream: TcpStream) -> io::Result<()> {
        let leaving = Leaving::new(self);
        let (mut buffer, reads) = ([0; MAX_FIRST_BYTES], reads());
        let mut waiting: VecDeque<(Bytes, Instant)> = VecDeque::new();
        let mut calling: Option<Calling> = None;
        loop {
            if calling.is_none()
                && let Some((bytes, received)) = waiting.pop_front()
            {
                let (relay, session, me) = (self.relay.clone(), self.session.clone(), leaving.me.clone());
                calling =
                    Some(Box::pin(async move { relay.command_once(&session, &me, Words::of(bytes), received).await }));
            }
            tokio::select! {
                // It is read while the bus takes its time: what comes meanwhile is known to be late then.
                read = stream.read(&mut buffer) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    if reads.check().is_err() {
                        return Err(io::Error::other("it floods"));
                    }
                    if waiting.len() >= MAX_WAITING {
                        waiting.pop_front();
                    }
                    waiting.push_back((Bytes::copy_from_slice(&buffer[..read]), Instant::now()));
                }
                Some(done) = OptionFuture::from(calling.as_mut()) => {
                    calling = None;
                    if let Err(error) = done {
                        // Its wire has no words for it.
                        tracing::debug!(%error, "a command of a VICER controller was not handed on");
                    }
                }
                () = self.relay.closing() => return Ok(()),
            }
        }
    }
}

/// A controller, until it leaves: then the vehicles stop.
struct Leaving {
    relay: Arc<Relay>,
    session: SessionId,
    me: Operator,
}

impl Leaving {
    fn new(control: &Control) -> Self {
        let me =
            Operator { id: format!("vicer-{}", Uuid::new_v4().simple()).into(), name: "a VICER controller".into() };
        Self { relay: control.relay.clone(), session: control.session.clone(), me }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.relay.leave(self.session.clone(), self.me.clone());
    }
}

impl Serves for Control {
    const CLIENTS: &'static str = "vicer-control";

    async fn serve(self, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        keep_alive(&stream);
        if let Err(error) = self.converse(stream).await {
            tracing::debug!(%peer, %error, "a peer of VICER's control port was cut off");
        }
    }
}
