//! What connections say: one message of each in turn, or those of light ones alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::mpsc;
use futures::stream::{FuturesUnordered, StreamFuture};
use futures::{Stream, StreamExt};
use por_core::ConnId;

use crate::link::FromHandler;

#[derive(Debug)]
struct Connection {
    conn: ConnId,
    says: mpsc::Receiver<FromHandler>,
}

impl Stream for Connection {
    type Item = FromHandler;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FromHandler>> {
        self.says.poll_next_unpin(cx)
    }
}

#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Until they say something.
    listening: FuturesUnordered<StreamFuture<Connection>>,
    /// Messages that others overtake, each with its connection, which is not listened to meanwhile: one
    /// message of each at most.
    parked: VecDeque<(FromHandler, Connection)>,
    /// They are closed, and everything they said has been taken.
    ended: Vec<ConnId>,
}

impl Inbound {
    /// Listens to a connection until it is closed, that is until its handler is gone.
    pub fn push(&mut self, conn: ConnId, says: mpsc::Receiver<FromHandler>) {
        self.listen(Connection { conn, says });
    }

    fn listen(&mut self, connection: Connection) {
        self.listening.push(connection.into_future());
    }

    /// Those that have closed since the last call.
    pub fn take_ended(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.ended)
    }

    /// The next message. `Pending` if there is none now.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FromHandler> {
        if let Some((message, connection)) = self.parked.pop_front() {
            self.listen(connection);
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
                    self.listen(connection);
                    return Poll::Ready(message);
                }
                Some(message) => self.parked.push_back((message, connection)),
                None => self.ended.push(connection.conn),
            }
        }
        Poll::Pending
    }

    /// Whether no connection is left that may say something.
    pub fn is_empty(&self) -> bool {
        self.listening.is_empty() && self.parked.is_empty() && self.ended.is_empty()
    }
}
