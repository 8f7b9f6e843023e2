//! The way between a browser and a server, which can fail as networks do: without a word.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU32,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What a connection takes in before the server has it, and so small that little is on the way: a network's packets.
const PACKET: usize = 1448;
const BUFFER: usize = 8 * PACKET;

/// Listens beside a server and passes everything on, until told otherwise. Its connections end with it.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    listening: JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct State {
    is_silent: bool,
    /// How often it has fallen silent. What was open then never gets through again, as where a router forgets connections.
    silences: u32,
}

impl Link {
    pub fn to(server: SocketAddr) -> Self {
        Self::new(server, None)
    }

    /// One that takes only so many bytes a second towards the server, and holds as few back as a network would.
    pub fn slow(server: SocketAddr, bytes_per_second: NonZeroU32) -> Self {
        Self::new(server, Some(bytes_per_second))
    }

    fn new(server: SocketAddr, bytes_per_second: Option<NonZeroU32>) -> Self {
        let listener = listen(bytes_per_second.is_some()).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, states) = watch::channel(State { is_silent: false, silences: 0 });
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((browser, _)) = listener.accept().await {
                connections.spawn(carry(browser, server, states.clone(), bytes_per_second));
            }
        });
        Self { address, state, listening }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Nothing gets through any more, and nobody is told.
    pub fn fall_silent(&self) {
        self.state.send_modify(|state| *state = State { is_silent: true, silences: state.silences + 1 });
    }

    /// What is opened from now on gets through, and what was opened in the silence.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.is_silent = false);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn listen(is_slow: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if is_slow {
        // Connections within a machine hold back megabytes. Both sides count in packets of the size that is agreed on.
        socket.set_tcp_mss(PACKET as u32)?;
        socket.set_recv_buffer_size(BUFFER)?;
    }
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

async fn carry(
    mut browser: TcpStream,
    server: SocketAddr,
    states: watch::Receiver<State>,
    bytes_per_second: Option<NonZeroU32>,
) {
    let opened = states.borrow().silences;
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (from_browser, to_browser) = browser.split();
    let (from_server, to_server) = server.split();
    let up = pass(from_browser, to_server, states.clone(), opened, bytes_per_second);
    let down = pass(from_server, to_browser, states, opened, None);
    // Whichever end goes, the other one follows.
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
    opened: u32,
    bytes_per_second: Option<NonZeroU32>,
) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        let passes = |state: &State| state.silences == opened && !state.is_silent;
        states.wait_for(passes).await.map_err(io::Error::other)?;
        if length == 0 {
            return to.shutdown().await;
        }
        if let Some(rate) = bytes_per_second {
            tokio::time::sleep(Duration::from_secs(1) * length as u32 / rate.get()).await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
