//! A client's connection, as the HTTP layer sees it: a byte stream with two handles for those above that layer, and an
//! end for clients that have gone without a word.
//!
//! **The [`Outlet`]** is how a frame gets from where it is held to the socket without being copied on the way. The HTTP
//! layer copies every body into a buffer of its connection. For pictures that copy would be the dearest part of an answer,
//! and for a viewer that reads slowly the buffer would hold frames that are old by the time they are sent. So the stream
//! has a second entrance: a body hands its pieces there and stays pending until the socket has taken them. What the HTTP
//! layer itself has written before, the head, goes first and in the same system call.
//!
//! Over TLS the pieces are encrypted into a small buffer on the way, and a body stays pending until that too is empty: what
//! is sent has always been taken by the network.
//!
//! **The [`Inlet`]** bounds how much more is read from a client whose request has been refused.
//!
//! **[`QUIET_TIMEOUT`]** ends a connection that has come to a standstill, whatever the HTTP layer waits for. An answer that
//! goes on for ever has rules of its own: [`Outlet::begin_stream`].

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use actix_web::{
    HttpRequest,
    body::{BodySize, MessageBody},
};
use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Duration, Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;

use crate::error::Error;

/// The most pieces that one answer, or one part of a stream, is made of: a head, a picture, what comes after it.
const MAX_PIECES: usize = 3;

/// A connection is closed when its client takes nothing of what waits to be sent for so long, or when nothing waits and no
/// byte has gone either way. Longer than any wait that a request may ask for and than an idle connection is kept; and a
/// kernel buffer of some MB that a client empties at 20 kB/s takes that long until it has room again.
pub const QUIET_TIMEOUT: Duration = Duration::from_secs(120);

/// A viewer whose socket takes nothing of what waits to be sent is dropped after so long. A phone in a tunnel comes back
/// sooner, and until then it costs one frame.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How much the kernel holds of a stream that it has not sent yet, in bytes: what is pushed meanwhile is newer. With less, a
/// fast network would wait for us; with its own choice of some MB, a viewer on a slow one would be seconds behind.
const UNSENT_BYTES: u32 = 64 * 1024;
/// How long a stream's client may be silent before the kernel asks whether it is still there, and how long it may then not
/// answer, each of [`KEEPALIVE_PROBES`] times. A recorder that waits for a silent camera stays, one that has lost its
/// network is gone after 90 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_IDLE`].
const KEEPALIVE_PROBES: u32 = 3;

/// Whether a connection is encrypted by this process. Handlers find it with `HttpRequest::conn_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encrypted(pub bool);

/// What is below a [`Connection`].
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Whether it speaks TLS.
    const ENCRYPTED: bool = false;

    /// An answer begins that goes on for ever.
    fn begin_stream(&self) {}

    /// Its end is to be a reset.
    fn end_with_reset(&self) {}

    /// It ends when nothing of what was sent is acknowledged for so long.
    fn set_user_timeout(&self, _time: Duration) {}
}

impl Socket for TcpStream {
    fn begin_stream(&self) {
        let socket = SockRef::from(self);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        // Both fail only where the client has already gone.
        socket.set_tcp_keepalive(&keepalive).ok();
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES).ok();
    }

    fn end_with_reset(&self) {
        SockRef::from(self).set_linger(Some(Duration::ZERO)).ok();
    }

    fn set_user_timeout(&self, time: Duration) {
        #[cfg(target_os = "linux")]
        SockRef::from(self).set_tcp_user_timeout(Some(time)).ok();
    }
}

impl<T: Socket> Socket for TlsStream<T> {
    const ENCRYPTED: bool = true;

    fn begin_stream(&self) {
        self.get_ref().0.begin_stream();
    }

    fn end_with_reset(&self) {
        self.get_ref().0.end_with_reset();
    }

    fn set_user_timeout(&self, time: Duration) {
        self.get_ref().0.set_user_timeout(time);
    }
}

/// The second entrance of one connection.
#[derive(Clone, Default)]
pub struct Outlet(Rc<RefCell<Waiting>>);

/// What waits for the socket. The pieces are empty once they are sent.
#[derive(Default)]
struct Waiting {
    pieces: [Bytes; MAX_PIECES],
    /// Bytes of all pieces together.
    left: usize,
    /// Whether the socket has taken everything that the HTTP layer wrote before the pieces were handed over.
    begun: bool,
    /// Whether the socket has taken all pieces, but may hold them back: it is to be flushed.
    held_back: bool,
    /// The body that waits until nothing is left.
    body: Option<Waker>,
    streams: bool,
    /// Part of a piece was sent and the rest never will be.
    broken: bool,
    /// The connection is to end at once, and what the kernel has not sent yet with it.
    reset: bool,
    /// How long what was sent may stay without an acknowledgement, once that is to be set.
    user_timeout: Option<Duration>,
}

impl Outlet {
    /// That of the connection which a request has come over.
    ///
    /// # Errors
    /// [`Error::NoConnection`] where that is not a [`Connection`].
    pub fn of(request: &HttpRequest) -> Result<Self, Error> {
        request.conn_data::<Self>().cloned().ok_or(Error::NoConnection)
    }

    /// Hands over the pieces that come next. All before them must have been sent: [`Outlet::poll_sent`].
    pub fn send(&self, pieces: [Bytes; MAX_PIECES]) {
        let mut waiting = self.0.borrow_mut();
        debug_assert!(waiting.left == 0 && !waiting.held_back, "what was handed over before is still waiting");
        waiting.left = pieces.iter().map(Bytes::len).sum();
        waiting.pieces = pieces;
        waiting.begun = false;
    }

    /// The answer goes on for ever: its client may be silent for as long as it likes, but must take what is sent within
    /// [`STALL_TIMEOUT`], and the kernel is to hold little of it.
    pub fn begin_stream(&self) {
        self.0.borrow_mut().streams = true;
    }

    /// Whether nothing waits: something may be handed over.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let waiting = self.0.borrow();
        waiting.left == 0 && !waiting.held_back
    }

    /// The connection ends where it is, and the kernel forgets what it has not sent yet: nothing of it arrives later.
    pub fn reset(&self) {
        let mut waiting = self.0.borrow_mut();
        (waiting.pieces, waiting.left, waiting.broken, waiting.reset) = (Default::default(), 0, true, true);
    }

    /// From when something is next sent, the connection ends when its other end acknowledges nothing of it for so long (RFC 5482).
    pub fn give_up_unacknowledged_after(&self, time: Duration) {
        self.0.borrow_mut().user_timeout = Some(time);
    }

    /// Waits until the socket has taken everything that was handed over.
    pub async fn sent(&self) {
        poll_fn(|context| self.poll_sent(context)).await;
    }

    /// The same; every so often it is asked whether to give up, and then the connection ends where it is. Tells whether
    /// everything was taken.
    pub async fn sent_unless(&self, every: Duration, give_up: impl Fn() -> bool) -> bool {
        while timeout(every, self.sent()).await.is_err() {
            if give_up() {
                let mut waiting = self.0.borrow_mut();
                (waiting.pieces, waiting.left, waiting.broken) = (Default::default(), 0, true);
                return false;
            }
        }
        true
    }

    /// Ready once the socket has taken everything that was handed over.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        if waiting.left == 0 && !waiting.held_back {
            return Poll::Ready(());
        }
        waiting.body = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The body of an answer that goes on for ever: some bytes at once, and then whatever a task hands to the [`Outlet`]. It
/// ends with the task, and the task with it.
pub struct EndlessBody {
    first: Bytes,
    task: Pin<Box<dyn Future<Output = ()>>>,
}

impl EndlessBody {
    /// A body over the connection that the outlet belongs to.
    pub fn new(first: Bytes, outlet: &Outlet, task: impl Future<Output = ()> + 'static) -> Self {
        outlet.begin_stream();
        Self { first, task: Box::pin(task) }
    }
}

impl MessageBody for EndlessBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        self.task.as_mut().poll(context).map(|()| None)
    }
}

impl Waiting {
    /// Notes that the socket took so many bytes of the pieces, and frees those that are through.
    fn sent(&mut self, mut bytes: usize) {
        self.begun = true;
        if self.left == 0 {
            return;
        }
        self.left -= bytes;
        for piece in &mut self.pieces {
            let part = bytes.min(piece.len());
            if part == piece.len() {
                *piece = Bytes::new();
            } else {
                piece.advance(part);
            }
            bytes -= part;
        }
        self.held_back = self.left == 0;
    }

    /// Notes that the socket holds nothing back.
    fn flushed(&mut self) {
        if self.left == 0 {
            self.held_back = false;
            if let Some(body) = self.body.take() {
                body.wake();
            }
        }
    }
}

/// How much may still be read from one connection.
#[derive(Clone)]
pub struct Inlet(Rc<Cell<usize>>);

impl Inlet {
    /// As much as comes: a request is being served.
    pub fn read_freely(&self) {
        self.0.set(usize::MAX);
    }

    /// About so many bytes more; after them the client counts as having ended.
    pub fn read_at_most(&self, bytes: usize) {
        self.0.set(bytes);
    }
}

/// When bytes last went one way, and the timer of whoever waits for the next ones.
struct Traffic {
    last: Instant,
    /// Made at the first wait. It may ring too early, and is then set anew: that is cheaper than at every byte.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Traffic {
    fn new() -> Self {
        Self { last: Instant::now(), timer: None }
    }

    /// Ready with an error when so much time has passed since then.
    fn poll_quiet(&mut self, since: Instant, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Error> {
        let due = since + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            timer.as_mut().reset(due);
        }
    }
}

/// A client's connection: a byte stream with an [`Outlet`] and an [`Inlet`], closed after [`QUIET_TIMEOUT`].
pub struct Connection<T> {
    io: T,
    outlet: Outlet,
    inlet: Inlet,
    read: Traffic,
    sent: Traffic,
    /// Since when the network has taken nothing of what is to be sent.
    congested: Option<Instant>,
    /// Whether the socket knows that it carries a stream.
    streams: bool,
}

impl<T> Connection<T> {
    /// Wraps a byte stream.
    pub fn new(io: T) -> Self {
        let inlet = Inlet(Rc::new(Cell::new(usize::MAX)));
        let (read, sent) = (Traffic::new(), Traffic::new());
        Self { io, outlet: Outlet::default(), inlet, read, sent, congested: None, streams: false }
    }

    /// Whether it is encrypted.
    pub fn encrypted(&self) -> Encrypted
    where
        T: Socket,
    {
        Encrypted(T::ENCRYPTED)
    }

    /// The handle for bodies of answers.
    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// The handle for who refuses requests.
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }
}

impl<T: Socket> Connection<T> {
    /// Writes the HTTP layer's bytes, if any, and the pieces that wait, at once. Tells how many of both were taken.
    fn poll_send(&mut self, first: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut waiting = self.outlet.0.borrow_mut();
        if waiting.broken {
            return Poll::Ready(Err(Self::broken(&self.io, &waiting)));
        }
        if let Some(time) = waiting.user_timeout.take() {
            self.io.set_user_timeout(time);
        }
        if waiting.streams && !self.streams {
            self.streams = true;
            self.io.begin_stream();
        }
        let [a, b, c] = &waiting.pieces;
        let io = Pin::new(&mut self.io);
        let taken = match waiting.left {
            0 => io.poll_write(cx, first),
            _ => io.poll_write_vectored(cx, &[first, a, b, c].map(IoSlice::new)),
        };
        drop(waiting);
        if taken.is_pending() {
            return self.poll_congested(cx).map(Err);
        }
        self.congested = None;
        self.sent.last = Instant::now();
        taken
    }

    /// Nothing more goes out.
    fn broken(io: &T, waiting: &Waiting) -> io::Error {
        if waiting.reset {
            io.end_with_reset();
        }
        io::ErrorKind::ConnectionAborted.into()
    }

    /// Something is to be sent and does not go out. Ready with an error when that has been so for too long.
    fn poll_congested(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.congested.get_or_insert_with(Instant::now);
        let limit = if self.streams { STALL_TIMEOUT } else { QUIET_TIMEOUT };
        self.sent.poll_quiet(since, limit, cx)
    }

    /// Ready once no piece waits any more.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outlet.0.borrow().left > 0 {
            match ready!(self.poll_send(&[], cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.outlet.0.borrow_mut().sent(taken),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Socket> AsyncWrite for Connection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outlet.0.borrow().begun {
            ready!(this.poll_pieces(cx))?;
        }
        let taken = ready!(this.poll_send(bytes, cx))?;
        if let Some(of_pieces) = taken.checked_sub(bytes.len()) {
            this.outlet.0.borrow_mut().sent(of_pieces);
        }
        Poll::Ready(Ok(taken.min(bytes.len())))
    }

    /// The HTTP layer calls it after all that it has written was taken: the pieces' turn.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.outlet.0.borrow().broken {
            return Poll::Ready(Err(Self::broken(&this.io, &this.outlet.0.borrow())));
        }
        ready!(this.poll_pieces(cx))?;
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if flushed.is_pending() {
            // TLS holds up to 64 KiB back. A client that takes nothing of them takes nothing.
            return this.poll_congested(cx).map(Err);
        }
        if this.congested.take().is_some() {
            this.sent.last = Instant::now();
        }
        if matches!(flushed, Poll::Ready(Ok(()))) {
            this.outlet.0.borrow_mut().flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: Socket> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let allowed = this.inlet.0.get();
        if allowed == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buffer) {
            Poll::Pending if this.congested.is_some() || this.streams => return Poll::Pending,
            Poll::Pending => {
                let since = this.read.last.max(this.sent.last);
                return this.read.poll_quiet(since, QUIET_TIMEOUT, cx).map(Err);
            }
            // TLS takes it for a fault that a client ends without a farewell, as many do. To HTTP it is an end like any
            // other: it tells by itself whether everything has come.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Poll::Ready(read) => read?,
        }
        this.read.last = Instant::now();
        if allowed < usize::MAX {
            this.inlet.0.set(allowed.saturating_sub(buffer.filled().len() - before));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Socket for DuplexStream {}

    /// Two answers over a pipe that holds so few bytes, each of a head through the front door and pieces through the
    /// other, read slowly by the other side. What it gets.
    async fn two_answers_through(pipe_bytes: usize) -> String {
        let (server, mut client) = duplex(pipe_bytes);
        let mut connection = Connection::new(server);
        let outlet = connection.outlet();
        let serving = async {
            for (head, pieces) in
                [("head one, ", ["picture one, ", "", "end. "]), ("head two, ", ["", "picture two", "!"])]
            {
                outlet.send(pieces.map(|piece| Bytes::from_static(piece.as_bytes())));
                connection.write_all(head.as_bytes()).await.unwrap();
                connection.flush().await.unwrap();
                poll_fn(|context| outlet.poll_sent(context)).await;
            }
            connection.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            got
        };
        tokio::join!(serving, reading).1
    }

    #[tokio::test]
    async fn pieces_follow_what_was_written_before_them_however_little_the_socket_takes_at_once() {
        for pipe_bytes in 1..60 {
            let got = two_answers_through(pipe_bytes).await;
            assert_eq!(got, "head one, picture one, end. head two, picture two!", "{pipe_bytes} bytes at once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        let (server, mut client) = duplex(4);
        let mut connection = Connection::new(server);
        let outlet = connection.outlet();
        outlet.send([Bytes::from(vec![7; 100]), Bytes::new(), Bytes::new()]);
        let mut byte = [0];
        let almost = QUIET_TIMEOUT - Duration::from_secs(1);
        for _ in 0..10 {
            assert!(tokio::time::timeout(almost, connection.flush()).await.is_err());
            client.read_exact(&mut byte).await.unwrap();
        }
        let start = Instant::now();
        assert_eq!(connection.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((QUIET_TIMEOUT..QUIET_TIMEOUT * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_takes_nothing_is_dropped_sooner_and_one_that_has_nothing_to_take_is_not() {
        let (server, _client) = duplex(4);
        let mut connection = Connection::new(server);
        let outlet = connection.outlet();
        outlet.begin_stream();
        connection.write_all(b"head").await.unwrap();
        assert!(tokio::time::timeout(QUIET_TIMEOUT * 10, connection.read(&mut [0])).await.is_err());
        outlet.send([Bytes::from(vec![7; 100]), Bytes::new(), Bytes::new()]);
        let start = Instant::now();
        assert_eq!(connection.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < STALL_TIMEOUT + Duration::from_secs(1), "{:?}", start.elapsed());
    }

    /// Takes what it is given into a buffer of its own, as TLS does, and gives it away only when it is flushed.
    struct HoldsBack {
        below: DuplexStream,
        held: Vec<u8>,
    }

    impl HoldsBack {
        const MOST: usize = 16;
    }

    impl Socket for HoldsBack {}

    impl AsyncRead for HoldsBack {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().below).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for HoldsBack {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.held.len() == Self::MOST {
                ready!(self.as_mut().poll_flush(cx))?;
            }
            let taken = bytes.len().min(Self::MOST - self.held.len());
            self.held.extend(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            while !this.held.is_empty() {
                let gone = ready!(Pin::new(&mut this.below).poll_write(cx, &this.held))?;
                this.held.drain(..gone);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().below).poll_shutdown(cx)
        }
    }

    /// A connection over something that holds back, and a client that can be sent so many bytes before it reads.
    fn held_back(pipe_bytes: usize) -> (Connection<HoldsBack>, DuplexStream) {
        let (below, client) = duplex(pipe_bytes);
        (Connection::new(HoldsBack { below, held: Vec::new() }), client)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_counts_as_not_taken_by_a_viewer_and_by_any_other_client() {
        for (streams, limit) in [(true, STALL_TIMEOUT), (false, QUIET_TIMEOUT)] {
            let (mut connection, _client) = held_back(4);
            let outlet = connection.outlet();
            if streams {
                outlet.begin_stream();
            }
            // All of it is taken at once, and none of the end gets out.
            outlet.send([Bytes::from_static(b"a picture"), Bytes::new(), Bytes::new()]);
            let start = Instant::now();
            let fault = connection.flush().await.unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
            assert!((limit..limit + Duration::from_secs(1)).contains(&start.elapsed()), "{:?}", start.elapsed());
            assert!(poll_fn(|context| Poll::Ready(outlet.poll_sent(context))).await.is_pending());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_that_goes_through_ends_the_congestion_and_only_then_is_the_picture_sent() {
        let (mut connection, mut client) = held_back(4);
        let outlet = connection.outlet();
        outlet.begin_stream();
        let almost = STALL_TIMEOUT - Duration::from_secs(1);
        for _ in 0..3 {
            outlet.send([Bytes::from_static(b"12345"), Bytes::new(), Bytes::new()]);
            assert!(timeout(almost, connection.flush()).await.is_err());
            assert!(poll_fn(|context| Poll::Ready(outlet.poll_sent(context))).await.is_pending());
            let mut got = [0; 5];
            let reading = client.read_exact(&mut got);
            let (flushed, read) = tokio::join!(connection.flush(), reading);
            flushed.and(read).unwrap();
            outlet.sent().await;
            assert_eq!(&got, b"12345");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_pieces_that_is_held_back_does_not_hold_up_the_next_ones_pieces() {
        let (mut connection, mut client) = held_back(4);
        let outlet = connection.outlet();
        connection.write_all(b"head one").await.unwrap();
        assert!(timeout(Duration::from_secs(1), connection.flush()).await.is_err());
        outlet.sent().await;
        outlet.send([Bytes::from_static(b"picture"), Bytes::new(), Bytes::new()]);
        let mut got = [0; 15];
        let (flushed, read) = tokio::join!(connection.flush(), client.read_exact(&mut got));
        flushed.and(read).unwrap();
        assert_eq!(&got, b"head onepicture");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_gone_without_a_word_is_given_up_unless_something_is_sent_to_it() {
        let (server, mut client) = duplex(64);
        let mut connection = Connection::new(server);
        let mut bytes = [0; 4];
        let almost = QUIET_TIMEOUT - Duration::from_secs(1);
        // Half a request, answers to an earlier one, and then nothing.
        client.write_all(b"G").await.unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 1);
        for _ in 0..3 {
            assert!(tokio::time::timeout(almost, connection.read(&mut bytes)).await.is_err());
            connection.write_all(b"more").await.unwrap();
        }
        let start = Instant::now();
        assert_eq!(connection.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= QUIET_TIMEOUT && start.elapsed() < QUIET_TIMEOUT + Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_body_waits_until_the_last_byte_is_taken_and_the_picture_is_then_let_go() {
        let (server, mut client) = duplex(4);
        let mut connection = Connection::new(server);
        let outlet = connection.outlet();
        let picture = Bytes::from(vec![7; 10]);
        outlet.send([picture.clone(), Bytes::new(), Bytes::new()]);
        assert!(!picture.is_unique());
        let mut got = [0; 10];
        for (from, to) in [(0, 4), (4, 8)] {
            assert!(poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll_flush(context))).await.is_pending());
            assert!(poll_fn(|context| Poll::Ready(outlet.poll_sent(context))).await.is_pending());
            client.read_exact(&mut got[from..to]).await.unwrap();
        }
        connection.flush().await.unwrap();
        poll_fn(|context| outlet.poll_sent(context)).await;
        assert!(picture.is_unique());
    }
}
