//! [`Phone`]: one connected client, from its first message to its last.

use std::{
    future::pending,
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engineioxide::{DisconnectReason, ProtocolVersion, Str};
use futures_util::future::BoxFuture;
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use serde::Serialize;
use tokio::{
    sync::mpsc::{UnboundedReceiver, error::TrySendError},
    time::{MissedTickBehavior, interval, sleep, timeout, timeout_at},
};

use super::{
    Shared, Socket, Stranger,
    events::{self, Ack, Argument, Said},
    flow::Flow,
    seats::Claim,
};
use crate::{
    auth::{self, Right, clients::Client},
    error::Error,
    ingest::{Receipt, push_one},
    telemetry::metrics::WayIn,
    wire::error_body::ErrorBody,
};

/// How long after `false` its connection is ended, so that the answer arrives: as the original does it.
const REFUSAL_PAUSE: Duration = Duration::from_secs(2);
/// How long after a Socket.IO disconnect the connection itself is ended, should the client not do it.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client may be connected without having authenticated.
const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may be without a byte. Both revisions send something every [`super::PING_INTERVAL`].
const SILENCE: Duration = Duration::from_secs(30);
/// How long a client may be connected without pushing a picture. It connects anew when it has one.
const IDLE: Duration = Duration::from_secs(600);
/// How often these are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Messages a second that are heard of one connection for long, and as many may come at once: several times what cameras do. Who
/// sends more is slowed down.
const MESSAGES_A_SECOND: NonZeroU32 = NonZeroU32::new(240).unwrap();
/// How long an answer may wait for its client to read others.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const ANSWER_RETRY: Duration = Duration::from_millis(10);
/// The longest name of an event that a client may want its answer by, in bytes.
const MAX_EVENT_BYTES: usize = 128;
/// What answers `authenticate` where the client names no event.
const DEFAULT_EVENT: &str = "onAuthentication";

/// One connected client.
pub(super) struct Phone {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    flow: Arc<Flow>,
    said: UnboundedReceiver<Said>,
    address: IpAddr,
    standing: Standing,
    /// For as long as it is one.
    stranger: Option<Stranger>,
    /// Done when the right to push has ended.
    right: BoxFuture<'static, ()>,
    pace: DefaultDirectRateLimiter,
    /// When it connected, or last pushed a picture.
    active: Instant,
    /// Whether it has been told in the log that a picture was refused.
    refusal_logged: bool,
}

/// What a client may do.
enum Standing {
    /// It has not said who it is.
    Stranger,
    /// It pushes to its session.
    Authenticated(Authenticated),
    /// It was not let in.
    Refused,
}

struct Authenticated {
    visitor: auth::Visitor,
    client: Arc<Client>,
    claim: Claim,
}

/// How a connection ends.
enum Ending {
    /// Its client takes its leave, by a Socket.IO disconnect, or has gone.
    Left,
    /// It is cut off; these clients connect anew.
    Cut,
    /// The client is told to leave, for this; these clients stay away then.
    Told(Error),
}

impl Phone {
    pub(super) fn new(
        shared: Arc<Shared>,
        socket: Arc<Socket>,
        flow: Arc<Flow>,
        said: UnboundedReceiver<Said>,
        address: IpAddr,
    ) -> Self {
        let (standing, active) = (Standing::Stranger, Instant::now());
        let (right, pace) = (Box::pin(pending()), RateLimiter::direct(Quota::per_second(MESSAGES_A_SECOND)));
        let stranger = Some(Stranger::new(&shared, address));
        Self { shared, socket, flow, said, address, standing, stranger, right, pace, active, refusal_logged: false }
    }

    /// Does what the client says, in the order in which it says it, until one of the two ends it.
    pub(super) async fn run(mut self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.socket.protocol == ProtocolVersion::V3 {
            self.say(events::joined(None)).await;
        }
        let mut refused_at = None;
        let ending = loop {
            tokio::select! {
                biased;
                () = self.shared.hub.closing() => {
                    self.finish().await;
                    break Ending::Cut;
                }
                error = self.standing.lost(&mut self.right) => break Ending::Told(error),
                _ = looks.tick() => {
                    if refused_at.is_some_and(|at: Instant| at.elapsed() >= REFUSAL_PAUSE) {
                        break Ending::Told(Error::AuthenticateFirst);
                    }
                    if let Standing::Authenticated(Authenticated { claim, .. }) = &self.standing
                        && let Err(Error::TakenOver) = claim.check().await
                    {
                        break Ending::Told(Error::TakenOver);
                    }
                    if let Some(why) = self.overdue() {
                        tracing::info!(address = %self.address, "a phone's connection is ended: {why}");
                        break Ending::Cut;
                    }
                }
                said = self.said.recv() => match said {
                    None | Some(Said::Leave) => break Ending::Left,
                    Some(said) => {
                        self.hear(said).await;
                        if matches!(self.standing, Standing::Refused) && refused_at.is_none() {
                            refused_at = Some(Instant::now());
                        }
                    }
                },
            }
        };
        // Whoever comes next need not wait for what becomes of this one.
        self.standing = Standing::Refused;
        match ending {
            // It ends the connection itself. What it asks until then is answered, or it would take its leave for a failure.
            Ending::Left => drop(timeout(FAREWELL, self.socket.closed()).await),
            Ending::Cut => self.flow.end(),
            Ending::Told(error) => self.say_goodbye(&error).await,
        }
        if let Some(fault) = self.flow.take_fault() {
            self.count_refusal(&fault);
        }
        self.socket.close(DisconnectReason::ClosingServer);
        // What the client has not read by then, it does not read.
        let _ = timeout(FAREWELL, self.socket.closed()).await;
        self.flow.end();
    }

    /// Tells the client to leave, and gives it the time. (Python's client only stays away when the end of the connection is told
    /// it as well, which closing does; others end it themselves.)
    async fn say_goodbye(&mut self, error: &Error) {
        tracing::info!(address = %self.address, code = error.code(), "a phone is disconnected");
        self.say(events::disconnect()).await;
        let end = Instant::now() + FAREWELL;
        while let Ok(Some(said)) = timeout_at(end.into(), self.said.recv()).await {
            match said {
                Said::Leave => return,
                Said::Picture { .. } => self.count_refusal(error),
                _ => {}
            }
            self.flow.done(said.bytes());
        }
    }

    /// Sends something, as soon as its client has room for it: one that does not read goes without.
    async fn say(&mut self, text: Option<Str>) {
        let Some(text) = text else { return };
        let said = async {
            loop {
                match self.socket.reserve() {
                    // A place is left for signs of life: where they find none, the connection is ended.
                    Ok(place) => {
                        if self.socket.reserve().is_ok() {
                            return place.emit(text);
                        }
                    }
                    Err(TrySendError::Closed(())) => return,
                    Err(TrySendError::Full(())) => {}
                }
                sleep(ANSWER_RETRY).await;
            }
        };
        let _ = timeout(ANSWER_WITHIN, said).await;
    }

    async fn acknowledge(&mut self, ack: Ack, result: &Result<impl Serialize, Error>) {
        let text = match result {
            Ok(receipt) => events::acknowledge(ack, receipt),
            Err(error) => events::acknowledge(ack, &ErrorBody::of(error)),
        };
        self.say(text).await;
    }

    /// Pushes what has come already: the process ends, and takes nothing with it that was received.
    async fn finish(&mut self) {
        self.flow.close();
        while let Ok(said) = self.said.try_recv() {
            self.hear(said).await;
        }
    }

    /// Why the client is not to be kept, if so.
    fn overdue(&self) -> Option<&'static str> {
        let is_stranger = matches!(self.standing, Standing::Stranger);
        if self.flow.silence() >= SILENCE {
            Some("nothing has come from it for 30 s")
        } else if is_stranger && self.active.elapsed() >= AUTHENTICATE_WITHIN {
            Some("it has not authenticated within 30 s")
        } else {
            (self.active.elapsed() >= IDLE).then_some("it has pushed no picture for 10 minutes")
        }
    }

    async fn hear(&mut self, said: Said) {
        while let Err(early) = self.pace.check() {
            sleep(early.wait_time_from(DefaultClock::default().now())).await;
        }
        let bytes = said.bytes();
        match said {
            Said::Authenticate { arguments, ack } => self.answer_authentication(&arguments, ack).await,
            Said::Picture { picture, ack } => {
                let pushed = match picture {
                    Ok(picture) => self.push(picture).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &pushed {
                    self.count_refusal(error);
                }
                self.acknowledge(ack, &pushed).await;
            }
            Said::Join => self.say(events::joined(Some(self.socket.id))).await,
            Said::JoinElsewhere(namespace) => self.say(events::nothing_there(namespace)).await,
            Said::Leave | Said::Nothing => {}
        }
        self.flow.done(bytes);
    }

    async fn answer_authentication(&mut self, arguments: &[Argument], ack: Ack) {
        let text = |place| match arguments.get(place) {
            Some(Argument::Text(text)) => text.as_str(),
            _ => "",
        };
        let outcome = self.authenticate(text(0), text(1)).await;
        if let Err(error) = &outcome {
            tracing::info!(address = %self.address, code = error.code(), %error, "a phone is not let in");
            self.standing = Standing::Refused;
        }
        let event = Some(text(2)).filter(|event| (1..=MAX_EVENT_BYTES).contains(&event.len()));
        self.say(events::emit(event.unwrap_or(DEFAULT_EVENT), &outcome.is_ok())).await;
        self.acknowledge(ack, &outcome.map(|()| true)).await;
    }

    /// Lets the client in, if it may push to its session.
    async fn authenticate(&mut self, username: &str, password: &str) -> Result<(), Error> {
        // Once refused is for good: guessing costs a connection each time.
        if matches!(self.standing, Standing::Refused) {
            return Err(Error::BadCredentials);
        }
        let session = self.shared.template.session(username)?;
        let auth = &self.shared.auth;
        let visitor = match auth.anybody(self.address) {
            Some(anybody) => anybody,
            None => auth.user(username, password, self.address).await?,
        };
        visitor.may(Right::Publish, &session)?;
        // What it held before, it holds no more.
        self.standing = Standing::Stranger;
        let claim = self.shared.seats.claim(session.clone()).await?;
        self.right = Box::pin(visitor.clone().lost(move |visitor| visitor.may(Right::Publish, &session).is_ok()));
        let client = visitor.client();
        self.standing = Standing::Authenticated(Authenticated { visitor, client, claim });
        self.active = Instant::now();
        self.stranger = None;
        self.flow.authenticated(self.shared.hub.incoming());
        tracing::debug!(address = %self.address, "a phone has authenticated");
        Ok(())
    }

    async fn push(&mut self, picture: Bytes) -> Result<Receipt, Error> {
        let Standing::Authenticated(authenticated) = &self.standing else { return Err(Error::AuthenticateFirst) };
        let limit = self.shared.hub.max_image_bytes();
        if picture.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        let Authenticated { visitor, client, claim } = authenticated;
        visitor.may(Right::Publish, claim.session())?;
        let push = push_one(&self.shared.hub, client, claim.session(), picture, None, WayIn::SocketIo);
        let pushed = claim.push(push).await?;
        self.active = Instant::now();
        Ok(pushed.into())
    }

    /// Counts a picture that was refused. The first of a connection is told in the log.
    fn count_refusal(&mut self, error: &Error) {
        self.shared.hub.metrics().refused(error.code());
        if !std::mem::replace(&mut self.refusal_logged, true) {
            tracing::warn!(
                address = %self.address, code = error.code(), %error,
                "a phone's picture is refused; further ones are only counted"
            );
        }
    }
}

impl Standing {
    /// Done, with why, when the client may no longer push to its session.
    async fn lost(&self, right: &mut BoxFuture<'static, ()>) -> Error {
        let Self::Authenticated(Authenticated { claim, .. }) = self else { return pending().await };
        tokio::select! {
            () = claim.taken_over() => Error::TakenOver,
            () = right => Error::RightEnded,
        }
    }
}
