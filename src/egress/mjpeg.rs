//! `GET /stream/{session}`: the frames as they come, as MJPEG.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::header, web};
use bytes::Bytes;
use futures_util::future::OptionFuture;
use tokio::time::{Instant, sleep_until};

use super::delivery::{Delivery, SLOW};
use crate::{
    auth::{Visitor, clients::Watching},
    connection::{EndlessBody, Outlet},
    error::Error,
    frame::{Frame, Seq},
    hub::{
        Hub, NoData,
        live::{Head, LiveFrame, Viewer},
    },
    session::SessionId,
    telemetry::metrics::WayOut,
    wire::{
        error_body::ErrorBody,
        mjpeg,
        query::{Query, flag},
    },
};

/// How long after a part it is sent again when nothing follows: browsers paint a part when the next one begins.
const FIRST_REPEAT: Duration = Duration::from_millis(150);
/// How long after that it is sent again and again: proxies and players give up a connection that is silent for 5 to 10 s.
const NEXT_REPEATS: Duration = Duration::from_secs(2);

/// What a viewer sees when nothing new comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offline {
    /// The No Data picture.
    Placeholder,
    /// The newest frame, for as long as there is one.
    Last,
    /// The end.
    Close,
}

impl Offline {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "placeholder" => Some(Self::Placeholder),
            "last" => Some(Self::Last),
            "close" => Some(Self::Close),
            _ => None,
        }
    }
}

/// What the query asks for.
struct Options {
    interval: Option<Duration>,
    offline: Offline,
    repeat: bool,
}

impl Options {
    fn read(request: &HttpRequest) -> Result<Self, Error> {
        let query = Query::read(request.query_string());
        let repeat = query.parse("repeat", "0 or 1", flag)?;
        Ok(Self {
            interval: query.interval()?,
            offline: query
                .parse("offline", "placeholder, last or close", Offline::parse)?
                .unwrap_or(Offline::Placeholder),
            repeat: repeat.unwrap_or(true),
        })
    }
}

/// Watches a session.
///
/// An MJPEG stream: the newest frame at once, then each one as it comes. Nothing is taken from the queue. A viewer that is
/// too slow for a frame gets a newer one in its place.
#[utoipa::path(
    get, path = "/stream/{session}", tag = "live", operation_id = "watchStream",
    params(
        ("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -"),
        ("fps" = Option<f64>, Query, description = "frames a second at most, 0.1 to 60"),
        ("offline" = Option<String>, Query, description = "what comes when the newest frame is older than STALE_AFTER: placeholder (the No Data picture, by default), last (the newest frame until it expires), or close (the end of the stream)"),
        ("repeat" = Option<u8>, Query, description = "0: each frame is sent once, for recorders; otherwise the last part is sent again after 150 ms of silence and then every 2 s"),
    ),
    responses(
        (status = 200, description = "parts with Content-Type, Content-Length, X-Timestamp and X-Frame-Seq (none on the No Data picture)",
         content_type = "multipart/x-mixed-replace;boundary=boundarydonotcross", body = Vec<u8>),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 503, description = "busy", body = ErrorBody),
    ),
)]
pub async fn watch(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    request: HttpRequest,
) -> Result<HttpResponse, Error> {
    let options = Options::read(&request)?;
    hub.viewing().check()?;
    let outlet = Outlet::of(&request)?;
    let (watching, viewer) = (visitor.client().watch()?, hub.watch(&session)?);
    let show = show(hub.into_inner(), watching, viewer, options, outlet.clone());
    let body = EndlessBody::new(mjpeg::FIRST_BOUNDARY, &outlet, show);
    let mut response = head_of_stream().body(body);
    // The end of the connection is the end of the stream: clients of HTTP/1.0 know no other.
    response.head_mut().no_chunking(true);
    Ok(response)
}

/// Watches `DEFAULT_SESSION`.
///
/// As `/stream/{session}` does, with the same parameters: for who comes from a server of one camera.
#[utoipa::path(
    get, path = "/video_feed", tag = "live", operation_id = "watchDefault",
    responses(
        (status = 200, description = "as of /stream/{session}",
         content_type = "multipart/x-mixed-replace;boundary=boundarydonotcross", body = Vec<u8>),
        (status = 400, description = "refused", body = ErrorBody),
        (status = 503, description = "busy", body = ErrorBody),
    ),
)]
pub async fn watch_default(
    session: SessionId,
    visitor: Visitor,
    hub: web::Data<Hub>,
    request: HttpRequest,
) -> Result<HttpResponse, Error> {
    watch(session, visitor, hub, request).await
}

/// What a stream is, without one.
#[utoipa::path(
    head, path = "/stream/{session}", tag = "live", operation_id = "peekStream",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 200, description = "as with GET"),
        (status = 400, description = "refused"),
        (status = 503, description = "busy"),
    ),
)]
pub async fn peek(_session: SessionId, hub: web::Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Error> {
    Options::read(&request)?;
    hub.viewing().check()?;
    Ok(head_of_stream().body(actix_web::body::None::new()))
}

/// Nobody on the way is to keep, delay or compress it.
fn head_of_stream() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .force_close()
        .insert_header((header::CONTENT_TYPE, mjpeg::CONTENT_TYPE))
        .insert_header((header::CACHE_CONTROL, "no-store, no-cache, must-revalidate, max-age=0"))
        .insert_header((header::PRAGMA, "no-cache"))
        .insert_header(("x-accel-buffering", "no"));
    response
}

/// What a viewer is shown.
enum Shown {
    Frame(Arc<LiveFrame>),
    NoData,
}

impl Shown {
    /// Its number; the No Data picture has none.
    fn seq(&self) -> Option<Seq> {
        match self {
            Self::Frame(live) => Some(live.frame.seq),
            Self::NoData => None,
        }
    }

    fn pieces(&self, hub: &Hub) -> [Bytes; 3] {
        let (head, picture) = match self {
            Self::Frame(live) => (live.head(Head::Part, part_head), live.frame.bytes.clone()),
            Self::NoData => {
                let NoData { bytes, .. } = hub.no_data();
                (mjpeg::part_head(hub.no_data().kind().mime(), bytes.len(), None), bytes.clone())
            }
        };
        [head, picture, mjpeg::NEXT_BOUNDARY]
    }
}

fn part_head(frame: &Frame) -> Bytes {
    // The configured name of the type may be another, like image/jpg; FFmpeg takes no other than this for JPEG.
    mjpeg::part_head(frame.kind.mime(), frame.bytes.len(), Some((frame.seq, frame.captured)))
}

/// One viewer, until it is to end.
struct Show {
    hub: Arc<Hub>,
    options: Options,
    outlet: Outlet,
    delivery: Delivery,
    /// The number of what was sent last, if anything was: that of the No Data picture is none.
    shown: Option<Option<Seq>>,
    /// The same, held for who is to see it again.
    again: Option<Shown>,
    /// When something was last sent, and how often it has been sent again since it was new.
    sent: Instant,
    repeats: u32,
}

async fn show(hub: Arc<Hub>, _watching: Watching, mut viewer: Viewer, options: Options, outlet: Outlet) {
    let delivery = Delivery::new(WayOut::Mjpeg, options.interval);
    let (shown, again, sent, repeats) = (None, None, Instant::now(), 0);
    let mut show = Show { hub: hub.clone(), options, outlet, delivery, shown, again, sent, repeats };
    loop {
        let Some(wake) = show.next(&mut viewer).await else { return };
        tokio::select! {
            () = viewer.changed() => {}
            Some(()) = OptionFuture::from(wake.map(sleep_until)) => {}
            () = hub.closing() => return,
        }
    }
}

impl Show {
    /// Sends what is due. Then tells when to look again at the latest, or nothing where the stream is to end.
    async fn next(&mut self, viewer: &mut Viewer) -> Option<Option<Instant>> {
        let state = viewer.state();
        let now = Instant::now();
        let stale_after = self.hub.stale_after();
        let stale_at = state.frame.as_ref().map(|live| live.received + stale_after);
        let stale = stale_at.is_none_or(|stale_at| stale_at <= now);
        let wanted = match (state.frame, self.options.offline) {
            (Some(live), Offline::Last) => Shown::Frame(live),
            (Some(live), _) if !stale => Shown::Frame(live),
            // The store has not been asked yet. It will not take long.
            (None, _) if !state.known => return Some(None),
            (_, Offline::Placeholder | Offline::Last) => Shown::NoData,
            (_, Offline::Close) => {
                // Who comes before the camera waits for it for as long as for one that fell silent.
                let end = stale_at.unwrap_or(now).max(self.delivery.since() + stale_after);
                return (now < end).then_some(Some(end));
            }
        };
        let is_new = self.shown != Some(wanted.seq());
        let due = wanted.seq().map_or(now, |_| self.delivery.due());
        if is_new && now >= due {
            self.send(wanted).await?;
        } else if self.repeat_at().is_some_and(|repeat_at| repeat_at <= now) {
            self.send_again().await?;
        } else if is_new && self.hub.viewing().check().is_err() {
            // A viewer of few frames holds an old one only while there is room.
            self.again = None;
        }
        // What came meanwhile has woken the viewer; this is for when nothing does.
        let (due, stale_at) = ((is_new && now < due).then_some(due), stale_at.filter(|_| !stale));
        Some([due, self.repeat_at(), stale_at].into_iter().flatten().min())
    }

    /// When what was sent last is to be sent again.
    fn repeat_at(&self) -> Option<Instant> {
        let pause = if self.repeats == 0 { FIRST_REPEAT } else { NEXT_REPEATS };
        self.again.as_ref().map(|_| self.sent + pause)
    }

    /// Nothing where the viewer was dropped.
    async fn send(&mut self, wanted: Shown) -> Option<()> {
        // What was shown before is let go first: no viewer ever holds two frames.
        self.again = None;
        if wanted.seq().is_some() {
            self.delivery.begin();
        }
        self.hand_over(&wanted).await?;
        (self.sent, self.repeats, self.shown) = (Instant::now(), 0, Some(wanted.seq()));
        if let Shown::Frame(live) = &wanted {
            self.delivery.done(&self.hub, live);
        }
        self.again = self.options.repeat.then_some(wanted);
        Some(())
    }

    async fn send_again(&mut self) -> Option<()> {
        if let Some(again) = self.again.take() {
            self.hand_over(&again).await?;
            (self.sent, self.repeats, self.again) = (Instant::now(), self.repeats + 1, Some(again));
        }
        Some(())
    }

    async fn hand_over(&self, part: &Shown) -> Option<()> {
        self.outlet.send(part.pieces(&self.hub));
        self.outlet.sent_unless(SLOW, || self.hub.viewing().check().is_err()).await.then_some(())
    }
}
