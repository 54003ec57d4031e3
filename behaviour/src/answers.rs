//! Answers of apps on their way to the driver, which takes those for each neighbour in turn: an app that
//! has answered many requests of one neighbour keeps nobody else's answer waiting, and never waits itself.
//!
//! Bounded by the core, which acknowledges no more requests for an app than it may have unanswered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use por_core::types::{NodeKey, RequestId};

use crate::control::Stopped;
use crate::turns::FairQueue;

#[derive(Debug)]
pub(crate) struct Answer {
    pub request: RequestId,
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Shared {
    queue: FairQueue<Answer>,
    driver: Option<Waker>,
    /// The driver has ended.
    closed: bool,
}

/// The apps' end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sender(Arc<Mutex<Shared>>);

/// The driver's end. Dropping it refuses further answers.
#[derive(Debug)]
pub(crate) struct Receiver(Sender);

pub(crate) fn channel() -> (Sender, Receiver) {
    let sender = Sender::default();
    (sender.clone(), Receiver(sender))
}

impl Sender {
    /// The guarded values are whole after each statement, so that a panicking holder does no harm.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `from`, `author`: of the request.
    pub fn send(&self, from: NodeKey, author: NodeKey, answer: Answer) -> Result<(), Stopped> {
        let mut shared = self.lock();
        if shared.closed {
            return Err(Stopped);
        }
        shared.queue.push(from, author, answer.body.len() as u64, answer);
        let driver = shared.driver.take();
        drop(shared);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }
}

impl Receiver {
    /// At most `most` answers. If there are no more, the task is woken when there are.
    pub fn take(&self, cx: &mut Context<'_>, most: usize) -> Vec<Answer> {
        self.take_while(cx, most, |_| true)
    }

    /// At most `most` of those that are next, up to the first that is not for such a neighbour. If there are
    /// no more at all, the task is woken when there are.
    pub fn take_while(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        wanted: impl Fn(&NodeKey) -> bool,
    ) -> Vec<Answer> {
        let mut shared = self.0.lock();
        let mut taken = Vec::new();
        while taken.len() < most && shared.queue.whose_turn().is_some_and(&wanted) {
            taken.extend(shared.queue.pop());
        }
        if shared.queue.is_empty() {
            shared.driver = Some(cx.waker().clone());
        }
        taken
    }

    /// All of them.
    pub fn drain(&self) -> Vec<Answer> {
        let mut shared = self.0.lock();
        std::iter::from_fn(|| shared.queue.pop()).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().queue.is_empty()
    }

    /// Refuses further answers, and drops those on their way.
    pub fn close(&self) {
        let mut shared = self.0.lock();
        shared.closed = true;
        shared.queue = FairQueue::default();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use por_core::types::NodeSecret;

    use super::*;

    fn answer(number: u8) -> Answer {
        Answer { request: RequestId([number; 32]), body: Bytes::from_static(&[0; 100]) }
    }

    #[test]
    fn an_answer_for_a_modest_neighbour_overtakes_those_for_a_greedy_one() {
        let [greedy, modest] = [1, 2].map(|seed| NodeSecret::from_seed(&[seed; 32]).public());
        let (sender, receiver) = channel();
        for _ in 0..200 {
            sender.send(greedy, greedy, answer(1)).expect("open");
        }
        sender.send(modest, modest, answer(2)).expect("open");
        let mut cx = Context::from_waker(Waker::noop());
        let taken: Vec<u8> = receiver.take(&mut cx, 2).iter().map(|answer| answer.request.0[0]).collect();
        assert!(taken.contains(&2), "{taken:?}");
        assert_eq!(receiver.drain().len(), 199);
        assert!(receiver.is_empty());
    }

    #[test]
    fn whoever_answers_after_the_end_is_told() {
        let key = NodeSecret::from_seed(&[1; 32]).public();
        let (sender, receiver) = channel();
        sender.send(key, key, answer(1)).expect("open");
        drop(receiver);
        assert_eq!(sender.send(key, key, answer(2)), Err(Stopped));
    }
}
