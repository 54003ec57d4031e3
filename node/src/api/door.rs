//! Who comes in, before the token is shown. Any user of this machine can connect, and each connection takes one of
//! the files that the daemon may have open: without one left it would reach no endpoint of the chain.
//!
//! So who has shown no token within [`TIME`] is sent away, and the one that came first of more than [`MAX`].

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// Connections of strangers at the same time.
const MAX: usize = 64;
/// What a stranger has to say must have come by then.
const TIME: Duration = Duration::from_secs(10);

/// A listener that keeps few strangers.
pub(super) struct Door {
    listener: TcpListener,
    /// In the order in which they came.
    strangers: VecDeque<Weak<State>>,
}

/// Of one connection.
#[derive(Default)]
struct State {
    known: AtomicBool,
    sent_away: AtomicBool,
    task: AtomicWaker,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Guest(Arc<State>);

impl Guest {
    /// Has shown the token, and stays for as long as it likes.
    pub(super) fn is_known(&self) {
        self.0.known.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Door>> for Guest {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Guest {
        Guest(stream.io().state.clone())
    }
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Door {
        Door { listener, strangers: VecDeque::new() }
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        let is_stranger =
            |state: &Weak<State>| state.upgrade().is_some_and(|state| !state.known.load(Ordering::Relaxed));
        self.strangers.retain(is_stranger);
        if self.strangers.len() >= MAX
            && let Some(first) = self.strangers.pop_front().and_then(|first| first.upgrade())
        {
            first.sent_away.store(true, Ordering::Relaxed);
            first.task.wake();
        }
        let state = Arc::new(State::default());
        self.strangers.push_back(Arc::downgrade(&state));
        (Connection { stream, state, time: Some(Box::pin(tokio::time::sleep(TIME))) }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails for a stranger whose time is over.
pub(super) struct Connection {
    stream: TcpStream,
    state: Arc<State>,
    /// `None` once it is known.
    time: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(time) = &mut self.time else { return Ok(()) };
        self.state.task.register(cx.waker());
        if self.state.known.load(Ordering::Relaxed) {
            self.time = None;
            return Ok(());
        }
        if self.state.sent_away.load(Ordering::Relaxed) || time.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
