//! An operator and a vehicle: commands go in at one end and come out at the other.

use std::{
    pin::Pin,
    process::{ChildStdin, ChildStdout},
    thread,
    time::{Duration, Instant},
};

use futures_util::{Sink, SinkExt, Stream, StreamExt, future::ready, stream};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process, runtime, select,
    sync::oneshot,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error, Message},
};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};

use crate::{ANSWER, Result, WARM_UP, measure::DRAIN};

const COMMANDS_A_SECOND: usize = 50;

/// How commands go.
pub(crate) enum Way {
    /// The addresses that an operator and a vehicle connect to.
    Sockets { operator: String, vehicle: String },
    /// As lines, from what is written here to what can be read there.
    Pipes(ChildStdin, ChildStdout),
}

/// What has become of the commands that count.
pub(crate) struct Driven {
    /// Of those that arrived, in microseconds and in order.
    pub(crate) delays: Vec<u64>,
    pub(crate) sent: usize,
    /// What operators were told and vehicles should not have got.
    pub(crate) faults: Vec<String>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Mouth = Pin<Box<dyn Sink<String, Error = Failure>>>;
type Ear = Pin<Box<dyn Stream<Item = Result<String>>>>;

/// A way that has been taken.
struct Line {
    operator: Mouth,
    operator_hears: Ear,
    vehicle: Ear,
}

/// Sends commands for so many seconds, on another thread. What comes first is told when those that count begin; if it never
/// is, what comes second knows why.
pub(crate) fn drive(way: Way, seconds: u64) -> (oneshot::Receiver<()>, oneshot::Receiver<Result<Driven>>) {
    let (warm, is_warm) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let driven = runtime.map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                let line = timeout(ANSWER, Line::open(way)).await.map_err(|_| "it does not answer")??;
                line.command(usize::try_from(seconds)?, warm).await
            })
        });
        // Nobody waits for it when this was interrupted.
        let _ = end.send(driven);
    });
    (is_warm, ended)
}

impl Line {
    async fn open(way: Way) -> Result<Self> {
        Ok(match way {
            Way::Sockets { operator, vehicle } => {
                // A vehicle is there before anybody commands it.
                let vehicle = connect(vehicle).await?;
                let (mouth, ear) = connect(operator).await?.split();
                let mouth = mouth.with(|text| ready(Ok::<_, Error>(Message::text(text)))).sink_map_err(Failure::from);
                Self { operator: Box::pin(mouth), operator_hears: texts(ear), vehicle: texts(vehicle) }
            }
            Way::Pipes(stdin, stdout) => {
                let mouth = FramedWrite::new(process::ChildStdin::from_std(stdin)?, LinesCodec::new());
                let ear = FramedRead::new(process::ChildStdout::from_std(stdout)?, LinesCodec::new());
                Self {
                    operator: Box::pin(SinkExt::<String>::sink_map_err(mouth, Failure::from)),
                    operator_hears: Box::pin(stream::pending()),
                    vehicle: Box::pin(ear.map(|line| line.map_err(Failure::from))),
                }
            }
        })
    }

    async fn command(mut self, seconds: usize, warm: oneshot::Sender<()>) -> Result<Driven> {
        let mut commands: Vec<(Instant, Option<Duration>)> = Vec::new();
        let mut faults = Vec::new();
        let mut warm = Some(warm);
        // The first that counts and the first that does not; until one has arrived, none does.
        let mut counted = usize::MAX..usize::MAX;
        // When to send the next, or to wait no longer.
        let begun = Instant::now();
        let mut due = begun;
        loop {
            select! {
                // What has arrived is not to wait until something else has been sent.
                biased;
                heard = self.vehicle.next() => {
                    let at = Instant::now();
                    let heard = heard.ok_or("the vehicle's connection ended")??;
                    let command = serde_json::from_str(&heard).ok().and_then(|it: Value| it["n"].as_u64());
                    match command.and_then(|number| commands.get_mut(usize::try_from(number).ok()?)) {
                        Some((sent, delay @ None)) => *delay = Some(at.duration_since(*sent)),
                        _ => faults.push(format!("the vehicle got {heard}")),
                    }
                    if counted.is_empty() {
                        let first = commands.len() + WARM_UP.as_secs() as usize * COMMANDS_A_SECOND;
                        counted = first..first + seconds * COMMANDS_A_SECOND;
                    }
                    if commands.len() == counted.end && commands[counted.clone()].iter().all(|it| it.1.is_some()) {
                        break;
                    }
                }
                heard = self.operator_hears.next() => {
                    let heard = heard.ok_or("the operator's connection ended")??;
                    let told = serde_json::from_str(&heard).is_ok_and(|it: Value| it["type"] == "told");
                    faults.extend(told.then(|| format!("the operator was told {heard}")));
                }
                () = sleep_until(due.into()) => {
                    let number = commands.len();
                    if number == counted.end {
                        break;
                    }
                    if counted.is_empty() && begun.elapsed() > ANSWER {
                        return Err("no command arrives".into());
                    }
                    if number == counted.start && let Some(warm) = warm.take() {
                        // Nobody waits for it when this was interrupted.
                        let _ = warm.send(());
                    }
                    let command = format!(r#"{{"linear":{{"x":0.5}},"angular":{{"z":0.1}},"n":{number}}}"#);
                    commands.push((Instant::now(), None));
                    timeout(ANSWER, self.operator.send(command)).await.map_err(|_| "a command is not taken")??;
                    due = if number + 1 == counted.end { Instant::now() + DRAIN } else { begun + time_of(number + 1) };
                }
            }
        }
        let counted = &commands[counted];
        let mut delays: Vec<u64> = counted.iter().filter_map(|it| it.1?.as_micros().try_into().ok()).collect();
        delays.sort_unstable();
        Ok(Driven { delays, sent: counted.len(), faults })
    }
}

/// When a command is sent, from the start: each in its own period, at places that are spread evenly by the golden ratio.
fn time_of(number: usize) -> Duration {
    let periods = number as f64 + (number as f64 * 0.618_034).fract();
    Duration::from_secs_f64(periods / COMMANDS_A_SECOND as f64)
}

async fn connect(address: String) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    // Without Nagle's algorithm.
    Ok(connect_async_with_config(address, None, true).await?.0)
}

/// What is said, until the end. Pings are answered by whoever reads.
fn texts(socket: impl Stream<Item = std::result::Result<Message, Error>> + 'static) -> Ear {
    Box::pin(socket.filter_map(|message| {
        ready(match message {
            Ok(Message::Text(text)) => Some(Ok(text.as_str().to_owned())),
            Ok(Message::Close(frame)) => Some(Err(format!("closed: {frame:?}").into())),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        })
    }))
}
