//! Those who post.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    ANSWER, Pace, Result, microseconds,
    picture::{Stamp, field, read_head, status},
    target::Target,
};

/// One producer a session.
pub(crate) struct Crew {
    state: Arc<CrewState>,
    tasks: JoinSet<Result>,
}

#[derive(Default)]
struct CrewState {
    posted: Vec<AtomicU32>,
    refused: AtomicU32,
    stop: AtomicBool,
}

impl Crew {
    pub(crate) fn start(clock: Instant, target: &Target, sessions: usize, pace: Pace) -> Self {
        let posted = (0..sessions).map(|_| AtomicU32::new(0)).collect();
        let state = Arc::new(CrewState { posted, ..CrewState::default() });
        let mut tasks = JoinSet::new();
        for session in 0..sessions {
            tasks.spawn(produce(clock, target.port, session, pace, state.clone()));
        }
        Self { state, tasks }
    }

    /// The number of each session's newest frame.
    pub(crate) fn posted(&self) -> Vec<u32> {
        self.state.posted.iter().map(|it| it.load(Relaxed)).collect()
    }

    /// How many posts were refused since this was last asked.
    pub(crate) fn refused(&self) -> u32 {
        self.state.refused.swap(0, Relaxed)
    }

    pub(crate) async fn stop(&mut self) -> Result {
        self.state.stop.store(true, Relaxed);
        while let Some(result) = self.tasks.join_next().await {
            result?.map_err(|error| format!("a producer: {error}"))?;
        }
        Ok(())
    }
}

/// Posts frames over one connection until the crew stops. The sessions' frames are spread evenly over the period.
async fn produce(clock: Instant, port: u16, session: usize, pace: Pace, state: Arc<CrewState>) -> Result {
    let head = format!(
        "POST /image/s{session} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        pace.bytes
    );
    let mut request = head.clone().into_bytes();
    request.resize(head.len() + pace.bytes, 7);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    sleep(pace.period * u32::try_from(session).unwrap() / u32::try_from(state.posted.len()).unwrap()).await;
    let mut ticks = interval(pace.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if state.stop.load(Relaxed) {
            return Ok(());
        }
        let number = state.posted[session].load(Relaxed) + 1;
        let stamp = Stamp { session: u32::try_from(session).unwrap(), number, sent: microseconds(clock) };
        stamp.write(&mut request[head.len()..]);
        state.posted[session].store(number, Relaxed);
        let answer = timeout(ANSWER, post(&mut stream, &request)).await;
        if !(200..300).contains(&answer.map_err(|_| "a post is not answered")??) {
            state.refused.fetch_add(1, Relaxed);
        }
    }
}

/// Returns the status.
async fn post(stream: &mut TcpStream, request: &[u8]) -> Result<u16> {
    stream.write_all(request).await?;
    let (head, mut body) = read_head(stream).await?;
    let length: Option<usize> = field(&head, "content-length").and_then(|value| value.parse().ok());
    let length = length.ok_or("an answer without Content-Length")?;
    while body.len() < length && stream.read_buf(&mut body).await? > 0 {}
    Ok(status(&head))
}
