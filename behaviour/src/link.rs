//! The bounded link between a connection's handler and the driver.
//!
//! Towards the driver: one bounded channel for each connection, from which the driver takes in turn, so
//! that what one peer sends does not wait behind all that another one has sent; new connections come
//! over a channel shared by all handlers. A handler that cannot send stops reading its substreams, so
//! back-pressure reaches the peer. Towards the handler: two queues per
//! connection. The control queue is bounded by count (the peer is disconnected beyond it), the bulk
//! queue by the core, which keeps at most a fixed number of unwritten bytes per connection.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc;
use futures::task::AtomicWaker;
use por_core::ConnId;
use por_core::types::NodeKey;
use por_core::wire::{Frame, Hello, Lane};

/// Frames that one message to the driver may hold.
pub(crate) const MAX_BATCH_FRAMES: usize = 256;
/// Bytes of frames, roughly, that one message to the driver may hold.
pub(crate) const MAX_BATCH_BYTES: usize = 256 << 10;
/// The same of frames with requests and responses, each of which costs more than its bytes: the driver
/// takes a message whole, and what another connection says waits meanwhile.
pub(crate) const MAX_CONTROL_BYTES: usize = 32 << 10;

/// Messages that wait for the driver on one connection, beside the one that its handler holds.
pub(crate) const LINK_QUEUE: usize = 3;

/// What a handler tells the driver.
#[derive(Debug)]
pub(crate) enum FromHandler {
    /// Lanes are ready. First message of a connection.
    Ready {
        conn: ConnId,
        peer: NodeKey,
        hello: Hello,
        outbound: Arc<Outbound>,
        /// What it says from then on.
        inbound: mpsc::Receiver<FromHandler>,
    },
    Frames {
        conn: ConnId,
        frames: Vec<Frame>,
    },
    /// Bytes of fragments that were written to the bulk lane.
    Drained {
        conn: ConnId,
        bytes: u64,
    },
}

impl FromHandler {
    pub fn conn(&self) -> ConnId {
        match self {
            FromHandler::Ready { conn, .. }
            | FromHandler::Frames { conn, .. }
            | FromHandler::Drained { conn, .. } => *conn,
        }
    }
}

/// The driver's side of a connection.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queues: Mutex<Queues>,
    handler: AtomicWaker,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queues {
    control: VecDeque<Frame>,
    bulk: VecDeque<Frame>,
}

/// A lock that a panicking holder cannot poison for the others: the guarded values are plain
/// collections, whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbound {
    /// Queues a frame; the number of frames that now wait on its lane.
    pub fn push(&self, lane: Lane, frame: Frame) -> usize {
        let mut queues = lock(&self.queues);
        let queue = match lane {
            Lane::Control => &mut queues.control,
            Lane::Bulk => &mut queues.bulk,
        };
        queue.push_back(frame);
        queue.len()
    }

    /// Wakes the handler; once after a batch of pushes.
    pub fn wake(&self) {
        self.handler.wake();
    }

    pub fn pop(&self, lane: Lane) -> Option<Frame> {
        let mut queues = lock(&self.queues);
        match lane {
            Lane::Control => queues.control.pop_front(),
            Lane::Bulk => queues.bulk.pop_front(),
        }
    }

    pub fn is_empty(&self) -> bool {
        let queues = lock(&self.queues);
        queues.control.is_empty() && queues.bulk.is_empty()
    }

    /// Asks the handler to close the connection.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.handler.wake();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub fn register(&self, waker: &std::task::Waker) {
        self.handler.register(waker);
    }
}

/// What behaviour, handlers, servers of apps and the driver share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    wanted: Mutex<Arc<HashSet<NodeKey>>>,
    behaviour: AtomicWaker,
    /// Apps of which a server is gone since the driver last looked.
    unserved: Mutex<Vec<String>>,
    driver: AtomicWaker,
    stopped: AtomicBool,
}

impl Shared {
    /// Peers with which there is something to do: lanes are opened, connections kept and dialled.
    pub fn wanted(&self) -> Arc<HashSet<NodeKey>> {
        Arc::clone(&lock(&self.wanted))
    }

    pub fn want(&self, peers: HashSet<NodeKey>) {
        let mut wanted = lock(&self.wanted);
        if **wanted != peers {
            *wanted = Arc::new(peers);
            drop(wanted);
            self.behaviour.wake();
        }
    }

    pub fn register_behaviour(&self, waker: &std::task::Waker) {
        self.behaviour.register(waker);
    }

    /// The server of an app is gone. Never lost, however busy the driver is.
    pub fn stopped_serving(&self, app: String) {
        lock(&self.unserved).push(app);
        self.driver.wake();
    }

    /// Until it is dropped, `take_unserved` waits.
    #[cfg(test)]
    pub fn hold_unserved(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.unserved)
    }

    pub fn take_unserved(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.unserved))
    }

    pub fn register_driver(&self, waker: &std::task::Waker) {
        self.driver.register(waker);
    }

    /// The driver has ended: handlers go inert, nobody is wanted.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.behaviour.wake();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
