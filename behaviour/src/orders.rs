//! SeverOrders on their way to whoever takes them to the chain.
//!
//! What one reader has not yielded goes to the next: an order that is lost between the two would be told
//! again only after a restart. Bounded by the channels: there is one order each.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use por_core::types::{SeverOrder, Signed};

#[derive(Debug, Default)]
struct Shared {
    queue: VecDeque<Signed<SeverOrder>>,
    /// The last reader's number: earlier ones get nothing any more.
    reader: u64,
    waker: Option<Waker>,
    /// The driver has ended.
    closed: bool,
}

/// The driver's end. Dropping it ends the last reader's stream once that has been read.
#[derive(Debug, Default)]
pub(crate) struct Orders(Arc<Mutex<Shared>>);

/// Where a reader takes its place. Dropping it changes nothing: a call that is given up ends no reader.
#[derive(Debug)]
pub(crate) struct Place(Arc<Mutex<Shared>>);

/// See [`crate::Control::orders`].
#[derive(Debug)]
pub struct OrderStream {
    shared: Arc<Mutex<Shared>>,
    number: u64,
}

/// The guarded values are whole after each statement, so that a panicking holder does no harm.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(shared: &Mutex<Shared>, change: impl FnOnce(&mut Shared)) {
    let mut shared = lock(shared);
    change(&mut shared);
    let waker = shared.waker.take();
    drop(shared);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Orders {
    /// Kept until somebody reads it.
    pub fn push(&self, order: Signed<SeverOrder>) {
        change(&self.0, |shared| shared.queue.push_back(order));
    }

    pub fn place(&self) -> Place {
        Place(Arc::clone(&self.0))
    }
}

impl Place {
    /// Takes it from the reader before, whose stream ends.
    pub fn take(self) -> OrderStream {
        let mut number = 0;
        change(&self.0, |shared| {
            shared.reader += 1;
            number = shared.reader;
        });
        OrderStream { shared: self.0, number }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        change(&self.0, |shared| shared.closed = true);
    }
}

impl Stream for OrderStream {
    type Item = Signed<SeverOrder>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signed<SeverOrder>>> {
        let mut shared = lock(&self.shared);
        if shared.reader != self.number {
            return Poll::Ready(None);
        }
        match shared.queue.pop_front() {
            Some(order) => Poll::Ready(Some(order)),
            None if shared.closed => Poll::Ready(None),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
