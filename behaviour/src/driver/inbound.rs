//! What connections say: one message of each in turn, or those of light ones alone.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::{FuturesUnordered, StreamFuture};

use crate::link::FromHandler;

type Connection = mpsc::Receiver<FromHandler>;

#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Until they say something.
    listening: FuturesUnordered<StreamFuture<Connection>>,
    /// Messages that others overtake, each with its connection, which is not listened to meanwhile: one
    /// message of each at most.
    parked: VecDeque<(FromHandler, Connection)>,
}

impl Inbound {
    pub fn push(&mut self, connection: Connection) {
        self.listening.push(connection.into_future());
    }

    /// The next message. `Pending` if there is none now.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FromHandler> {
        if let Some((message, connection)) = self.parked.pop_front() {
            self.push(connection);
            return Poll::Ready(message);
        }
        self.poll_first(cx, |_| true)
    }

    /// The next message for which `overtakes` holds; the others keep their order.
    pub fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        overtakes: impl Fn(&FromHandler) -> bool,
    ) -> Poll<FromHandler> {
        while let Poll::Ready(Some((said, connection))) = self.listening.poll_next_unpin(cx) {
            match said {
                Some(message) if overtakes(&message) => {
                    self.push(connection);
                    return Poll::Ready(message);
                }
                Some(message) => self.parked.push_back((message, connection)),
                // It is closed, and has said everything.
                None => {}
            }
        }
        Poll::Pending
    }

    /// Whether no connection is left that may say something.
    pub fn is_empty(&self) -> bool {
        self.listening.is_empty() && self.parked.is_empty()
    }
}
