//! A TCP link that can be slow, dead, or cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces on their way in one direction.
const UNDER_WAY: usize = 256;
const PIECE: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Everything arrives after this time.
    Open(Duration),
    /// Nothing arrives, and nobody is told.
    Hole,
    /// Connections are reset, old and new ones.
    Cut,
}

/// Stands between those who connect to it and one address.
pub struct Link {
    pub addr: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let state = watch::Sender::new(State::Open(Duration::ZERO));
        let seen = state.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connection(near, target, seen.clone()));
            }
        });
        Link { addr, state, task }
    }

    /// Bytes arrive, each `delay` after it was sent; what a hole has swallowed arrives too.
    pub fn open(&self, delay: Duration) {
        self.state.send_replace(State::Open(delay));
    }

    /// Swallows everything from now on.
    pub fn hole(&self) {
        self.state.send_replace(State::Hole);
    }

    /// Resets everything until it is opened again.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn connection(near: TcpStream, target: SocketAddr, state: watch::Receiver<State>) {
    // Dropped, it sends a reset.
    near.set_zero_linger().expect("an option of TCP");
    let mut cut = state.clone();
    let carry = async {
        let far = TcpStream::connect(target).await?;
        far.set_zero_linger()?;
        far.set_nodelay(true)?;
        near.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::try_join!(carry(near_in, far_out, state.clone()), carry(far_in, near_out, state))
    };
    tokio::select! {
        _ = cut.wait_for(|state| *state == State::Cut) => {}
        // An end has gone: so does the other one.
        _ = carry => {}
    }
}

/// One direction, until its end.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut seen = state.clone();
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let len = from.read(&mut piece).await?;
            piece.truncate(len);
            let delay = match *seen.borrow_and_update() {
                State::Open(delay) => delay,
                State::Hole | State::Cut => Duration::ZERO,
            };
            if len == 0 || sender.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if state.wait_for(|state| *state != State::Hole).await.is_err() {
                break;
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}
