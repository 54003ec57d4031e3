//! Requests that end here: the served apps.

use std::collections::BTreeMap;

use bytes::Bytes;
use por_types::{NodeKey, RequestId, ResponseReceipt};

use crate::api::{ANSWER_APP, Event, SignedReceipt};
use crate::body::Outflow;
use crate::edge::QueuedReply;
use crate::flush::take_all;
use crate::job::{Asked, Role};
use crate::jobs::ById;
use crate::ledger::SHARE_OF_FREE;
use crate::node::{App, Node};
use crate::store::Held;
use crate::verified::Encoder;

/// Acknowledged requests that wait for an app, with the neighbour that each came from.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    requests: ById<NodeKey>,
    by_peer: BTreeMap<NodeKey, usize>,
}

impl Waiting {
    /// Whether a neighbour may have one more of the `max_queued` places with the app.
    pub fn has_room(&self, from: NodeKey, max_queued: u32) -> bool {
        let free = (max_queued as usize).saturating_sub(self.requests.len());
        let held = self.by_peer.get(&from).copied().unwrap_or(0);
        free > 0 && held < free.saturating_mul(SHARE_OF_FREE as usize)
    }

    fn insert(&mut self, request: RequestId, from: NodeKey) {
        if self.requests.insert(request, from).is_none() {
            *self.by_peer.entry(from).or_default() += 1;
        }
    }

    fn remove(&mut self, request: &RequestId) {
        let Some(from) = self.requests.remove(request) else { return };
        if let Some(held) = self.by_peer.get_mut(&from) {
            *held -= 1;
            if *held == 0 {
                self.by_peer.remove(&from);
            }
        }
    }
}

/// An app's answer that waits for the flush's signature.
#[derive(Debug)]
pub(crate) struct Answer {
    request: RequestId,
    body: Encoder,
}

impl Node {
    /// Requests that wait for the app, for example from before a restart, are delivered again.
    pub(crate) fn serve(&mut self, app: String, served: App) {
        if self.apps.insert(app.clone(), served).is_some() {
            return;
        }
        // What the last server has answered does not wait any more.
        self.flush_answers();
        for request in self.waiting(&app) {
            self.deliver(request);
        }
    }

    /// Tells the app once the request is on disk.
    pub(crate) fn deliver(&mut self, request: RequestId) {
        let Some(job) = self.jobs.get(&request) else { return };
        let Role::Destination { from, stage: Asked::Queued { body } } = &job.role else { return };
        if job.head.app == ANSWER_APP {
            return self.store.hold(Held::Answer(request));
        }
        let event = Event::Incoming {
            request,
            from: from.peer,
            author: job.head.author,
            app: job.head.app.clone(),
            body: body.clone(),
            response_limit: job.head.response_limit,
            server_price: job.head.server_price,
        };
        self.notify_durable(event);
    }

    /// The body of a big request is complete.
    pub(crate) fn queue(&mut self, request: RequestId, body: Bytes) {
        self.put_chunks(&request, &body);
        let Some(job) = self.jobs.get_mut(&request) else { return };
        let Role::Destination { stage, .. } = &mut job.role else { return };
        *stage = Asked::Queued { body };
        self.dirty_jobs.insert(request);
        self.deliver(request);
    }

    /// Acknowledged requests that wait for an app, served or not.
    pub(crate) fn waiting(&self, app: &str) -> Vec<RequestId> {
        let ids = self.queues.get(app).into_iter().flat_map(|queue| queue.requests.keys().copied());
        let mut ids: Vec<RequestId> = ids.collect();
        ids.sort_unstable();
        ids
    }

    /// Requests that were acknowledged for an app, served or not, and have no answer yet.
    pub fn unanswered(&self, app: &str) -> usize {
        self.queues.get(app).map_or(0, |queue| queue.requests.len())
    }

    /// Takes one of the app's places, in the name of the neighbour that asks.
    pub(crate) fn enqueue(&mut self, app: &str, request: RequestId, from: NodeKey) {
        match self.queues.get_mut(app) {
            Some(queue) => queue.insert(request, from),
            None => self.queues.entry(app.to_owned()).or_default().insert(request, from),
        }
    }

    pub(crate) fn unqueue(&mut self, app: &str, request: &RequestId) {
        if let Some(queue) = self.queues.get_mut(app) {
            queue.remove(request);
            if queue.requests.is_empty() {
                self.queues.remove(app);
            }
        }
    }

    pub(crate) fn respond(&mut self, request: RequestId, body: Bytes) {
        let Some(job) = self.jobs.get(&request) else { return };
        let Role::Destination { stage: Asked::Queued { .. }, .. } = &job.role else { return };
        if body.len() as u64 > job.head.response_limit {
            tracing::error!(%request, len = body.len(), "the app's response is over the request's limit");
            return;
        }
        self.answers.push(Answer { request, body: Encoder::new(body) });
    }

    /// Signs the flush's receipts with one signature.
    pub(crate) fn flush_answers(&mut self) {
        let mut answers = take_all(&mut self.answers);
        let most = self.most_signed();
        while answers.len() > most {
            let rest = answers.split_off(most);
            self.sign_answers(std::mem::replace(&mut answers, rest));
        }
        if !answers.is_empty() {
            self.sign_answers(answers);
        }
    }

    fn sign_answers(&mut self, answers: Vec<Answer>) {
        let receipts: Vec<ResponseReceipt> = answers
            .iter()
            .map(|answer| ResponseReceipt {
                request: answer.request,
                body_len: answer.body.body().len() as u64,
                body_hash: answer.body.root(),
            })
            .collect();
        let leaves = receipts.iter().map(|receipt| self.statements.receipt(receipt)).collect();
        let proofs = self.sign_leaves::<ResponseReceipt>(leaves);
        for ((answer, receipt), proof) in answers.into_iter().zip(receipts).zip(proofs) {
            self.answer(answer, SignedReceipt { receipt, proof });
        }
    }

    fn answer(&mut self, answer: Answer, receipt: SignedReceipt) {
        let Answer { request, body } = answer;
        let Some(job) = self.jobs.get_mut(&request) else { return };
        let Role::Destination { from, stage: Asked::Queued { .. } } = &mut job.role else { return };
        let (mut from, body_len, app) = (from.clone(), job.head.body_len, job.head.app.clone());
        let stored = body.body().len() <= self.config.limits.max_inline as usize;
        let late = self.close_upstream(request);
        if let Some(job) = self.jobs.get(&request) {
            from = job.from().cloned().unwrap_or(from);
        }
        self.unqueue(&app, &request);
        self.outbox(from.peer).responses.push(QueuedReply { request, resume: false, late });
        if !late.amount.is_zero() {
            self.dirty_jobs.insert(request);
        }
        if stored {
            self.delete_chunks(&request, body_len);
            self.dirty_jobs.insert(request);
        }
        let (earned, reply) = (from.amount, Outflow::whole(body));
        if let Some(job) = self.jobs.get_mut(&request) {
            job.role = Role::Answered { from, receipt, reply, earned, served: true, below: None };
        }
    }
}
