//! Requests on their way from the driver to the server of an app.
//!
//! Bounded by the core, which acknowledges no more for an app than its server takes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use crate::control::Delivery;
use crate::link;
use crate::turns::FairQueue;

#[derive(Debug, Default)]
struct Shared {
    queue: FairQueue<Delivery>,
    reader: Option<Waker>,
    /// One of the ends is gone.
    closed: bool,
}

type Both = Arc<Mutex<Shared>>;

/// The driver's end. Dropping it ends the stream once it has been read.
#[derive(Debug)]
pub(crate) struct Sender(Both);

/// The server's end. Dropping it tells the driver, wherever it is at that moment: also on its way to who
/// has asked for it.
#[derive(Debug)]
pub(crate) struct Receiver {
    both: Both,
    app: String,
    driver: Arc<link::Shared>,
}

/// Tells a server from others of the same app.
#[derive(Clone, Debug)]
pub(crate) struct Tag(Weak<Mutex<Shared>>);

pub(crate) fn channel(app: String, driver: Arc<link::Shared>) -> (Sender, Receiver) {
    let both = Both::default();
    (Sender(both.clone()), Receiver { both, app, driver })
}

/// The guarded values are whole after each statement, so that a panicking holder does no harm.
fn lock(both: &Both) -> MutexGuard<'_, Shared> {
    both.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(both: &Both) {
    let mut shared = lock(both);
    shared.closed = true;
    let reader = shared.reader.take();
    drop(shared);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl Sender {
    /// False: nobody serves any more.
    pub fn send(&self, delivery: Delivery) -> bool {
        let mut shared = lock(&self.0);
        if shared.closed {
            return false;
        }
        let bytes = (delivery.body.len() as u64).saturating_add(delivery.response_limit);
        shared.queue.push(delivery.from, delivery.author, bytes, delivery);
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    pub fn is(&self, tag: &Tag) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.0), tag.0.as_ptr())
    }
}

impl Receiver {
    pub fn tag(&self) -> Tag {
        Tag(Arc::downgrade(&self.both))
    }

    pub fn app(&self) -> &str {
        &self.app
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        close(&self.0);
    }
}

impl Stream for Receiver {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut shared = lock(&self.both);
        match shared.queue.pop() {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None if shared.closed => Poll::Ready(None),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        close(&self.both);
        self.driver.stopped_serving(std::mem::take(&mut self.app));
    }
}
