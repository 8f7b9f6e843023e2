//! How a frame gets from where it is held to the socket without being copied on the way.
//!
//! The HTTP layer copies every body into a buffer of its connection. For pictures that copy would be the dearest part of
//! an answer, and for a viewer that reads slowly the buffer would hold frames that are old by the time they are sent. So
//! the stream below the HTTP layer, [`Connection`], has a second entrance, its [`Outlet`]: a body hands its pieces there
//! and stays pending until the socket has taken them. What the HTTP layer itself has written before, the head, goes first
//! and in the same system call. A client that takes nothing for [`SEND_TIMEOUT`] is given up.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How long a client may take nothing of what is there for it. A phone that changes networks is back by then; one that
/// is gone for good holds no frame any longer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// The most pieces that one answer, or one part of a stream, is made of: a head, a picture, what comes after it.
const MAX_PIECES: usize = 3;

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
    /// The body that waits until nothing is left.
    body: Option<Waker>,
}

impl Outlet {
    /// Hands over the pieces that come next. All before them must have been sent: [`Outlet::poll_sent`].
    pub fn send(&self, pieces: [Bytes; MAX_PIECES]) {
        let mut waiting = self.0.borrow_mut();
        debug_assert_eq!(waiting.left, 0, "what was handed over before is still waiting");
        waiting.left = pieces.iter().map(Bytes::len).sum();
        waiting.pieces = pieces;
        waiting.begun = false;
    }

    /// Ready once the socket has taken everything that was handed over.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        if waiting.left == 0 {
            return Poll::Ready(());
        }
        waiting.body = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Waiting {
    /// Notes that the socket took so many bytes of the pieces, and frees those that are through.
    fn sent(&mut self, mut bytes: usize) {
        self.begun = true;
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
        if self.left == 0
            && let Some(body) = self.body.take()
        {
            body.wake();
        }
    }
}

/// A client's connection: a byte stream with an [`Outlet`].
pub struct Connection<T> {
    io: T,
    outlet: Outlet,
    /// When the socket last took something.
    taken: Instant,
    /// Wakes up to see whether that was too long ago. Made when the socket is full for the first time.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<T> Connection<T> {
    /// Wraps a byte stream.
    pub fn new(io: T) -> Self {
        Self { io, outlet: Outlet::default(), taken: Instant::now(), alarm: None }
    }

    /// The entrance for bodies.
    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }
}

impl<T: AsyncWrite + Unpin> Connection<T> {
    /// Writes the HTTP layer's bytes, if any, and the pieces that wait, at once. Tells how many of both were taken.
    fn poll_send(&mut self, first: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let written = {
            let waiting = self.outlet.0.borrow();
            let [a, b, c] = &waiting.pieces;
            match waiting.left {
                0 => io.poll_write(cx, first),
                _ => io.poll_write_vectored(cx, &[first, a, b, c].map(IoSlice::new)),
            }
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(_) => {
                self.taken = Instant::now();
                written
            }
            Poll::Pending => {
                ready!(self.poll_given_up(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Ready when a full socket has taken nothing for [`SEND_TIMEOUT`]. The alarm is not set anew with every write, only
    /// when it rings: most rings find that something was taken since.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(self.taken + SEND_TIMEOUT)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            let deadline = self.taken + SEND_TIMEOUT;
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }

    /// Ready once no piece waits any more.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outlet.0.borrow().left > 0 {
            let taken = ready!(self.poll_send(&[], cx))?;
            self.outlet.0.borrow_mut().sent(taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
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
        ready!(this.poll_pieces(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

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
