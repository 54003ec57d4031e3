//! Requests of the local application that somebody waits for.

use std::collections::HashMap;

use futures::channel::{mpsc, oneshot};
use por_core::RejectReason;
use por_core::types::{RequestId, Yocto};

use crate::control::{Outcome, PendingRequest, Progress, RequestError};

/// Progress of a request that nobody has read: late payments beyond it are only in the events.
const PROGRESS_QUEUE: usize = 64;

type Reply = oneshot::Sender<Result<PendingRequest, RequestError>>;

#[derive(Default)]
pub(super) struct Requests {
    next_token: u64,
    starting: HashMap<u64, Reply>,
    running: HashMap<RequestId, Running>,
}

/// The two ends of a [`PendingRequest`]: progress may be missed, the outcome never.
struct Running {
    progress: mpsc::Sender<Progress>,
    outcome: oneshot::Sender<Outcome>,
}

impl Running {
    fn new(id: RequestId, price: Yocto) -> (Running, PendingRequest) {
        let (sender, progress) = mpsc::channel(PROGRESS_QUEUE);
        let (outcome, ended) = oneshot::channel();
        let pending = PendingRequest { id, price, progress, ended: Some(ended), early: None };
        (Running { progress: sender, outcome }, pending)
    }
}

impl Requests {
    /// Answers the token under which the node tells of its start.
    pub fn start(&mut self, reply: Reply) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.starting.insert(token, reply);
        token
    }

    pub fn refused(&mut self, token: u64, reason: RejectReason) {
        if let Some(reply) = self.starting.remove(&token) {
            let _ = reply.send(Err(RequestError::Refused(reason)));
        }
    }

    pub fn started(&mut self, token: u64, request: RequestId, price: Yocto) {
        let Some(reply) = self.starting.remove(&token) else { return };
        let (running, pending) = Running::new(request, price);
        self.running.insert(request, running);
        if reply.send(Ok(pending)).is_err() {
            self.running.remove(&request);
        }
    }

    /// Follows a request from here on.
    pub fn watch(&mut self, request: RequestId) -> PendingRequest {
        let (running, pending) = Running::new(request, Yocto::ZERO);
        self.running.insert(request, running);
        pending
    }

    pub fn progress(&mut self, request: RequestId, progress: Progress) {
        if let Some(running) = self.running.get_mut(&request)
            && running.progress.try_send(progress).is_err_and(|error| error.is_disconnected())
        {
            self.running.remove(&request);
        }
    }

    pub fn finish(&mut self, request: RequestId, outcome: Outcome) {
        if let Some(running) = self.running.remove(&request) {
            let _ = running.outcome.send(outcome);
        }
    }
}
