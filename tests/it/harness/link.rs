//! The way between a browser and a server, which can fail as networks do: without a word.

use std::{collections::VecDeque, io, net::SocketAddr, num::NonZeroU32, time::Duration};

use futures_util::future::OptionFuture;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// What a network sends at once.
const PACKET: usize = 1448;
/// What it holds back: as little as one does, where connections within a machine take megabytes.
const BUFFER: usize = 16 * PACKET;
/// What is on a way that takes time, in packets.
const MAX_ON_THE_WAY: usize = 256;

/// Listens beside a server and passes everything on, until told otherwise. Its connections end with it.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    listening: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    is_silent: bool,
    /// How often it has fallen silent. What was open then never gets through again, as where a router forgets connections.
    silences: u32,
    /// Whether everything waits, to get through later.
    is_held: bool,
    /// What gets through in each direction; everything where there is no limit.
    bytes_per_second: Option<NonZeroU32>,
    /// How long a connection that begins with a WebSocket takes to get through.
    websockets_after: Duration,
    /// Since when it falls behind, and by how much in each second.
    behind: Option<(Instant, f64)>,
}

impl State {
    /// How long what is sent now takes.
    fn delay(&self) -> Duration {
        self.behind.map_or(Duration::ZERO, |(since, rate)| since.elapsed().mul_f64(rate))
    }
}

impl Link {
    pub fn to(server: SocketAddr) -> Self {
        let listener = listen().unwrap();
        let address = listener.local_addr().unwrap();
        let (state, states) = watch::channel(State::default());
        let listening = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((browser, _)) = listener.accept().await {
                connections.spawn(carry(browser, server, states.clone()));
            }
        });
        Self { address, state, listening }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Nothing gets through any more, and nobody is told.
    pub fn fall_silent(&self) {
        self.state.send_modify(|state| (state.is_silent, state.silences) = (true, state.silences + 1));
    }

    /// What is opened from now on gets through, and what was opened in the silence.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.is_silent = false);
    }

    /// Nothing gets through until it is let go; then all of it does, at once.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.is_held = true);
    }

    /// See [`Self::hold`].
    pub fn let_go(&self) {
        self.state.send_modify(|state| state.is_held = false);
    }

    /// Everything takes longer and longer, as where a buffer fills: by so many seconds in each second. Nothing is lost.
    pub fn fall_behind(&self, rate: f64) {
        self.state.send_modify(|state| state.behind = Some((Instant::now(), rate)));
    }

    /// What is sent from now on takes no time.
    pub fn catch_up(&self) {
        self.state.send_modify(|state| state.behind = None);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Only so many bytes a second get through in each direction of a connection.
    pub fn limit(&self, bytes_per_second: u32) {
        self.state.send_modify(|state| state.bytes_per_second = NonZeroU32::new(bytes_per_second));
    }

    /// WebSockets take so long to open, and requests do not.
    pub fn delay_websockets(&self, delay: Duration) {
        self.state.send_modify(|state| state.websockets_after = delay);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    hold_little(&socket)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Both ends of a connection reckon with packets of the size that is agreed on at its start.
fn hold_little(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_mss(PACKET as u32)?;
    socket.set_recv_buffer_size(BUFFER)
}

async fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    hold_little(&socket)?;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(server).await
}

async fn carry(mut browser: TcpStream, server: SocketAddr, states: watch::Receiver<State>) {
    let State { silences: opened, websockets_after, .. } = *states.borrow();
    if !websockets_after.is_zero() && asks_for_websocket(&browser).await.unwrap_or(false) {
        tokio::time::sleep(websockets_after).await;
    }
    let Ok(mut server) = connect(server).await else { return };
    // What the ends do not hold back, the way does not either.
    if browser.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_browser, to_browser) = browser.split();
    let (from_server, to_server) = server.split();
    // Whichever end goes, the other one follows.
    tokio::select! {
        _ = pass(from_browser, to_server, states.clone(), opened) => {}
        _ = pass(from_server, to_browser, states, opened) => {}
    }
}

/// Whether the first request of a connection, which comes in one piece, is for a WebSocket.
async fn asks_for_websocket(browser: &TcpStream) -> io::Result<bool> {
    let mut head = [0; PACKET];
    let length = browser.peek(&mut head).await?;
    Ok(String::from_utf8_lossy(&head[..length]).to_ascii_lowercase().contains("upgrade: websocket"))
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
    opened: u32,
) -> io::Result<()> {
    let mut buffer = [0; PACKET];
    // Each with when it is there; nothing where the end is.
    let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    loop {
        let has_ended = on_the_way.back().is_some_and(|(_, bytes)| bytes.is_empty());
        let bytes = tokio::select! {
            length = from.read(&mut buffer), if !has_ended && on_the_way.len() < MAX_ON_THE_WAY => {
                let (bytes, delay) = (buffer[..length?].to_vec(), states.borrow().delay());
                if !delay.is_zero() || !on_the_way.is_empty() {
                    on_the_way.push_back((Instant::now() + delay, bytes));
                    continue;
                }
                bytes
            }
            Some(()) = OptionFuture::from(on_the_way.front().map(|(at, _)| sleep_until(*at))) => {
                on_the_way.pop_front().map(|(_, bytes)| bytes).unwrap_or_default()
            }
        };
        let passes = |state: &State| state.silences == opened && !state.is_silent && !state.is_held;
        let limit = states.wait_for(passes).await.map_err(io::Error::other)?.bytes_per_second;
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(limit) = limit {
            tokio::time::sleep(Duration::from_secs(1) * bytes.len() as u32 / limit.get()).await;
        }
        to.write_all(&bytes).await?;
    }
}
