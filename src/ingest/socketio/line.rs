//! [`Tap`]: a connection that lets in only as much of a phone as there is room for.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

use super::flow::{Flow, Waiter, Way};

/// How long a client may take nothing of what it is sent.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// One connection, which becomes a phone's own when it carries its WebSocket. Until then it may carry many phones' requests,
/// through a proxy say, and none of them may hold up the others.
#[derive(Clone, Default)]
pub struct Line(Arc<OnceLock<Arc<Flow>>>);

impl Line {
    /// From now on it is this phone's.
    pub(super) fn belongs_to(&self, flow: &Arc<Flow>) {
        // A connection carries one WebSocket at most.
        let _ = self.0.set(flow.clone());
    }
}

/// A connection's bytes.
pub struct Tap<S> {
    stream: S,
    line: Line,
    /// Runs while the client does not take what it is sent. So long nothing more is read from it: what it sends may call for
    /// answers, as pings do, and nothing else bounds those.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Its place among all connections, for as long as there is one.
    _place: OwnedSemaphorePermit,
}

impl<S> Tap<S> {
    /// Those of a line.
    pub fn new(stream: S, line: Line, place: OwnedSemaphorePermit) -> Self {
        Self { stream, line, stuck: None, _place: place }
    }

    /// Notes whether the client takes what it is sent, and gives it up when it does not for long.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_pending() {
            let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(TAKEN_WITHIN)));
            return stuck.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        if self.stuck.take().is_some()
            && let Some(flow) = self.line.0.get()
        {
            flow.wake_reader();
        }
        sent
    }

    /// Whether the connection is to be used any more.
    fn poll_room(&self, waiter: Waiter, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.line.0.get().map(|flow| flow.poll_room(waiter, context)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(false)) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            None | Some(Poll::Ready(true)) => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_room(Waiter::Reader, context))?;
        if self.stuck.is_some() && self.line.0.get().is_some() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(flow) = self.line.0.get() {
            let bytes = buffer.filled().len() - before;
            if let Err(fault) = flow.comes(Way::Socket, bytes) {
                flow.cut_off(fault);
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(Waiter::Writer, context))?;
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(sent, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_room(Waiter::Writer, context))?;
        let sent = Pin::new(&mut self.stream).poll_flush(context);
        self.sent(sent, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.stream).poll_shutdown(context);
        self.sent(sent, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(Waiter::Writer, context))?;
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.sent(sent, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
