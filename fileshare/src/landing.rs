//! Downloads whose bytes never leave the node's process: the node fetches a window, checks it and
//! writes it into the partial file, and the command only keeps the account.
//!
//! A node that runs with files in it (`fileshare node`) listens on a socket in its home. A command
//! of the **same user** makes, locks and sizes the files of its download itself, with its own rights
//! and umask; then it names them to the node by path, device and inode. The node opens them, never
//! creates or follows anything, and writes only verified windows of the content that was named. Where any of
//! this does not work out (another user, another mount, no such node), the command fetches through
//! the local API as from any daemon.
//!
//! On the socket: a line of JSON each way to begin with (`Files`, `Opened`), then lines of
//! `Order`s and `Landed`s, in any order, matched by number.

mod service;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use por_types::{NodeKey, Yocto};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

pub use self::service::{Service, listen};
use crate::{
    exit::{Exit, Failure},
    fetch::Spoiled,
    net::Call,
    part::Span,
    pool::Severity,
    slice::Window,
};

/// Name of the socket in the home.
pub const SOCKET: &str = "fileshare.sock";
/// Longest line, bytes.
const MAX_LINE: u64 = 64 << 10;
/// Time for the node to take a download on.
const OPENING: Duration = Duration::from_secs(5);
/// What the node may take beyond an order's own deadline.
const MARGIN: Duration = Duration::from_secs(15);

/// A file as both processes can tell that it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

/// The files of a download, and what belongs into them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    pub data: FileId,
    /// Holds the hash tree, from `outboard_at` on.
    pub state: FileId,
    pub outboard_at: u64,
    pub span: Span,
}

/// Whether the node takes the download on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Opened {
    error: Option<String>,
}

/// One window to fetch.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    number: u64,
    offset: u64,
    len: u64,
    /// It is all zeros.
    #[serde(default)]
    zeros: bool,
    to: NodeKey,
    server_price: Yocto,
    max_price: Yocto,
    deadline_ms: u64,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Landed {
    number: u64,
    /// What was paid, where there was an answer.
    price: Option<Yocto>,
    problem: Option<Problem>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Problem {
    /// What an answer that was paid for says about its provider; `None` for any other failure.
    severity: Option<Severity>,
    exit: u8,
    what: String,
    fix: String,
    #[serde(default)]
    spent: Yocto,
}

impl Problem {
    fn new(severity: Option<Severity>, failure: Failure) -> Problem {
        let Failure { exit, what, fix, spent } = failure;
        Problem { severity, exit: exit.code(), what, fix, spent }
    }

    fn failure(self) -> Failure {
        let exit = Exit::ALL.into_iter().find(|exit| exit.code() == self.exit);
        let spent = self.spent;
        Failure { spent, ..Failure::new(exit.unwrap_or(Exit::Other), self.what, self.fix) }
    }
}

/// A window that was paid for: written, or why not.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub price: Yocto,
    pub result: Result<(), Spoiled>,
}

/// A download that the node of a home has taken on; and takes on again when it was restarted. Dropping it
/// ends what is under way.
#[derive(Debug)]
pub struct Landing {
    home: PathBuf,
    files: Files,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// A connection to the node's process.
#[derive(Debug)]
struct Link {
    orders: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Mutex<Waiting>>,
    reader: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// False once the node has gone.
    alive: bool,
    replies: HashMap<u64, oneshot::Sender<Landed>>,
}

fn gone() -> Failure {
    let what = "the node has gone";
    Failure::new(Exit::Unreachable, what, "see whether it still runs, then run the command again")
}

impl Landing {
    /// Asks the node of `home` to take a download on; `None` if there is no such node, or it cannot.
    pub async fn open(home: &Path, files: &Files) -> Option<Landing> {
        let link = tokio::sync::Mutex::new(Some(Arc::new(Link::open(home, files).await?)));
        Some(Landing { home: home.to_owned(), files: files.clone(), link })
    }

    /// Has a window fetched, paid for, verified and written.
    ///
    /// # Errors
    /// As a request's: nothing was answered.
    pub async fn fetch(&self, call: &Call, window: Window) -> Result<Outcome, Failure> {
        let link = {
            let mut link = self.link.lock().await;
            if link.as_ref().is_none_or(|link| !link.is_alive()) {
                *link = Link::open(&self.home, &self.files).await.map(Arc::new);
            }
            link.clone().ok_or_else(gone)?
        };
        link.fetch(call, window).await
    }
}

impl Link {
    async fn open(home: &Path, files: &Files) -> Option<Link> {
        let opening = async {
            let stream = UnixStream::connect(home.join(SOCKET)).await?;
            // Orders name nothing secret, but only the user's own node may touch the files.
            let own = rustix::process::geteuid().as_raw();
            if stream.peer_cred()?.uid() != own {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let (read, mut write) = stream.into_split();
            let mut read = BufReader::new(read);
            send(&mut write, files).await?;
            let opened: Opened = receive(&mut read).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match opened.error {
                Some(error) => Err(io::Error::other(error)),
                None => Ok((read, write)),
            }
        };
        match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok((read, write))) => Some(Link::new(read, write)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the node does not take the download on");
                None
            }
            Err(_) => None,
        }
    }

    fn new(read: BufReader<OwnedReadHalf>, write: OwnedWriteHalf) -> Link {
        let waiting = Arc::new(Mutex::new(Waiting { alive: true, ..Waiting::default() }));
        let reader = tokio::spawn(hear(read, Arc::clone(&waiting)));
        Link { orders: tokio::sync::Mutex::new(write), waiting, reader }
    }

    fn is_alive(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).alive
    }

    async fn fetch(&self, call: &Call, window: Window) -> Result<Outcome, Failure> {
        let (reply, landed) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.alive {
                return Err(gone());
            }
            waiting.next += 1;
            let number = waiting.next;
            waiting.replies.insert(number, reply);
            number
        };
        let order = Order {
            number,
            offset: window.offset(),
            len: window.len(),
            zeros: window.is_zeros(),
            to: call.to,
            server_price: call.server_price,
            max_price: call.max_price,
            deadline_ms: u64::try_from(call.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        // Whatever ends this without an answer: the node may have paid, or will when it is back.
        let unknown = |failure: Failure| Failure { spent: call.max_price, ..failure };
        let sent = send(&mut *self.orders.lock().await, &order).await;
        sent.map_err(|_| unknown(gone()))?;
        match tokio::time::timeout(call.deadline.saturating_add(MARGIN), landed).await {
            Ok(Ok(landed)) => landed.outcome(),
            Ok(Err(_)) => Err(unknown(gone())),
            Err(_) => {
                let late = Failure::new(Exit::Deadline, "the node did not answer in time", "look at its log");
                Err(unknown(late))
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Landed {
    fn outcome(self) -> Result<Outcome, Failure> {
        match (self.price, self.problem) {
            (Some(price), None) => Ok(Outcome { price, result: Ok(()) }),
            (Some(price), Some(problem)) => {
                let result = Err(match problem.severity {
                    Some(severity) => Spoiled::There(severity, problem.failure()),
                    None => Spoiled::Here(problem.failure()),
                });
                Ok(Outcome { price, result })
            }
            (None, Some(problem)) => Err(problem.failure()),
            (None, None) => Err(Failure::new(Exit::ForeignVersion, "the node's answer says nothing", "")),
        }
    }
}

/// Hands answers to whoever waits for them, until the node is gone.
async fn hear(mut from: BufReader<OwnedReadHalf>, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some(landed)) = receive::<Landed>(&mut from).await {
        let reply = waiting.lock().unwrap_or_else(PoisonError::into_inner).replies.remove(&landed.number);
        if let Some(reply) = reply {
            // Whoever asked may have given up.
            let _ = reply.send(landed);
        }
    }
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.alive = false;
    waiting.replies.clear();
}

async fn send(to: &mut OwnedWriteHalf, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// The next line; `None` at the end. Lines are bounded.
async fn receive<T: DeserializeOwned>(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
