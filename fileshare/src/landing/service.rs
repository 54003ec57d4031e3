//! The node's side.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::BufReader,
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use super::{FileId, Files, Landed, OPENING, Opened, Order, Problem, SOCKET, receive, send};
use crate::{
    exit::{Exit, Failure},
    fetch::{Spoiled, Stop, verify},
    net::{Call, Daemon, Network, Reply, blocking},
    proto::{GET_APP, Question, get_limit},
    slice::{Verified, Window},
};

/// Downloads at a time.
const MAX_DOWNLOADS: usize = 256;
/// Windows under way per download; what a command may have in flight at most.
const MAX_WINDOWS: usize = 64;

/// Takes on downloads of the user's commands.
#[derive(Debug)]
pub struct Service {
    listener: UnixListener,
    path: PathBuf,
}

/// Listens in a node's home, which this process holds the lock of.
///
/// # Errors
/// Of the operating system; a home whose path is too long for a socket among them. Commands then
/// use the local API.
pub fn listen(home: &std::path::Path) -> io::Result<Service> {
    let path = home.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Service { listener, path })
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Service {
    /// Works for commands until `stop` is set.
    pub async fn run(self, net: Daemon, stop: Stop) {
        let own = rustix::process::geteuid().as_raw();
        let mut downloads = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.wait() => break,
            };
            while downloads.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "commands cannot reach this node's downloads");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Files are written with this process's rights: they must be the command's too.
            let same_user = stream.peer_cred().is_ok_and(|peer| peer.uid() == own);
            if same_user && downloads.len() < MAX_DOWNLOADS {
                downloads.spawn(download(stream, net.clone()));
            }
        }
    }
}

async fn download(stream: UnixStream, net: Daemon) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let Ok(Ok(Some(files))) = tokio::time::timeout(OPENING, receive::<Files>(&mut read)).await else {
        return;
    };
    let opened = match blocking(move || Place::open(&files)).await {
        Ok(opened) => opened,
        Err(failure) => Err(io::Error::other(failure.what)),
    };
    let error = opened.as_ref().err().map(ToString::to_string);
    let told = send(&mut write, &Opened { error }).await;
    if let (Ok(place), Ok(())) = (opened, told) {
        work(Arc::new(place), read, write, net).await;
    }
}

/// Carries out a command's orders until it is gone; then what is under way ends too.
async fn work(place: Arc<Place>, mut read: BufReader<OwnedReadHalf>, write: OwnedWriteHalf, net: Daemon) {
    let (write, room) = (Arc::new(Mutex::new(write)), Arc::new(Semaphore::new(MAX_WINDOWS)));
    let mut windows = JoinSet::new();
    while let Ok(Some(order)) = receive::<Order>(&mut read).await {
        while windows.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let (place, write, net) = (Arc::clone(&place), Arc::clone(&write), net.clone());
        windows.spawn(async move {
            let landed = carry_out(&place, order, &net).await;
            drop(permit);
            // A command that is gone is noticed by the reader.
            let _ = send(&mut *write.lock().await, &landed).await;
        });
    }
}

async fn carry_out(place: &Arc<Place>, order: Order, net: &Daemon) -> Landed {
    let number = order.number;
    let (price, problem) = match ask(place, &order, net).await {
        Ok((reply, window)) => {
            let result = land(place, reply.body, window).await;
            (Some(reply.price), result.err().map(problem))
        }
        Err(failure) => (None, Some(Problem::new(None, failure))),
    };
    Landed { number, price, problem }
}

/// Checks what was answered and writes it.
async fn land(place: &Arc<Place>, body: Bytes, window: Window) -> Result<(), Spoiled> {
    let (id, size) = (place.files.span.id, place.files.span.size);
    let verified = blocking(move || verify(id, size, window, &body)).await.map_err(Spoiled::Here)??;
    let _turn = place.writing.lock().await;
    let place = Arc::clone(place);
    blocking(move || place.write(&verified)).await.and_then(|written| written).map_err(Spoiled::Here)
}

fn problem(spoiled: Spoiled) -> Problem {
    match spoiled {
        Spoiled::Here(failure) => Problem::new(None, failure),
        Spoiled::There(severity, failure) => Problem::new(Some(severity), failure),
    }
}

async fn ask(place: &Place, order: &Order, net: &Daemon) -> Result<(Reply, Window), Failure> {
    let (id, size) = (place.files.span.id, place.files.span.size);
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error.to_string(), "");
    let window = if order.zeros { Window::zeros } else { Window::new };
    let window = window(order.offset, order.len, size).map_err(|error| usage(&error))?;
    let body = Question::get(id, window).encode().map_err(|error| usage(&error))?;
    let call = Call {
        to: order.to,
        app: GET_APP,
        body,
        limit: get_limit(size, window),
        server_price: order.server_price,
        max_price: order.max_price,
        deadline: Duration::from_millis(order.deadline_ms),
    };
    Ok((net.request(call).await?, window))
}

/// A download's files, open. The data is locked (shared) as long as anything may be written, so that
/// no later download begins in it: see `Part::open`.
#[derive(Debug)]
struct Place {
    files: Files,
    data: File,
    state: File,
    /// The kernel lets one thread at a time write to a file, and the others spin.
    writing: Mutex<()>,
}

impl Place {
    fn open(files: &Files) -> io::Result<Place> {
        let (data, state) = (open(&files.data)?, open(&files.state)?);
        if data.metadata()?.len() != files.span.len() {
            return Err(io::Error::other("the file has another length"));
        }
        data.try_lock_shared().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Place { files: files.clone(), data, state, writing: Mutex::default() })
    }

    fn write(&self, verified: &Verified) -> Result<(), Failure> {
        let Files { span, outboard_at, data, state } = &self.files;
        let written = verified.write_to(&self.data, span.start, span.end);
        written.map_err(|error| Failure::io(data.path.display(), &error))?;
        let nodes = verified.nodes().write_to(&self.state, *outboard_at);
        nodes.map_err(|error| Failure::io(state.path.display(), &error))
    }
}

/// Opens a file that is there, and no other.
fn open(file: &FileId) -> io::Result<File> {
    if !file.path.is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Never waits on a pipe or a device: those are refused below.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&file.path)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() || (metadata.dev(), metadata.ino()) != (file.device, file.inode) {
        return Err(io::Error::other(format!("{} is another file here", file.path.display())));
    }
    Ok(opened)
}
