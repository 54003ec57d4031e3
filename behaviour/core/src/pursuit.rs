//! Pursuit: a neighbour that was severed for its silence is asked for the missing answer over other
//! routes, with this node's own money and within a budget (protocol section 6).
//!
//! Either it answers, or the last node of each such route finds it silent and severs it too, until
//! nothing is left of it in the graph. A pursuit is a few fields in the channel's row; it has one
//! request under way at a time, and ends with its window at the latest.

use borsh::BorshDeserialize;
use bytes::Bytes;
use por_types::{ChannelId, NodeKey, RequestHead, RequestId, SeverReason, Yocto};

use crate::api::{ANSWER_APP, ANSWER_LIMIT, Command, Event, HeldAnswer, Pursue, PursuitEnd, RejectReason};
use crate::author::{Draft, Purpose};
use crate::job::{Job, Role};
use crate::node::Node;
use crate::rows::Pursuit;
use crate::verified::Encoder;

/// Shortest and longest pause between two steps, milliseconds.
const STEP_MS: (u64, u64) = (100, 60_000);

impl Node {
    /// A channel is severed by own decision: is the other end silent, and worth the money?
    pub(crate) fn begin_pursuit(
        &mut self,
        channel: ChannelId,
        reason: SeverReason,
        request: Option<RequestId>,
    ) {
        use SeverReason::{Disagreement, MissedSync, NoAck, UnpaidLateness};
        let silent = matches!(reason, NoAck | MissedSync | UnpaidLateness | Disagreement);
        let (Some(request), Some(_), true) = (request, self.config.policy.pursuit, silent) else { return };
        let Some(peer) = self.channels.get(&channel).map(|channel| channel.row.peer) else { return };
        let asked = self.edges.get(&peer).is_some_and(|edge| edge.asked.values().any(|id| *id == request));
        let pursued = self.channels_with(peer).any(|(_, other)| is_active(other.row.pursuit.as_ref()));
        if !asked || pursued {
            return;
        }
        let (since, asking) = (self.now, None);
        let pursuit = Pursuit { request, since, tries: 0, spent: Yocto::ZERO, asking, over: false };
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.row.pursuit = Some(pursuit);
        }
        self.dirty_channels.insert(channel);
        self.pursue_later(channel);
    }

    /// Pursuits go on after a restart.
    pub(crate) fn resume_pursuits(&mut self) {
        for (id, channel) in &self.channels {
            let Some(pursuit) = channel.row.pursuit.as_ref().filter(|pursuit| !pursuit.over) else {
                continue;
            };
            self.pursuits.insert((self.now, *id));
            self.pursuing.extend(pursuit.asking.map(|asking| (asking, *id)));
        }
        let waiting = self.waiting(ANSWER_APP);
        for request in waiting {
            self.deliver(request);
        }
    }

    fn pursue_later(&mut self, channel: ChannelId) {
        let info = self.channels.get(&channel).and_then(|channel| channel.info.as_ref());
        let pause = info.map_or(0, |i| u64::from(i.terms.heartbeat_ms) + u64::from(i.terms.grace_ms));
        let time = self.now.after_ms(pause.clamp(STEP_MS.0, STEP_MS.1));
        self.pursuits.insert((time, channel));
    }

    /// What may still be spent on pursuits.
    fn pursuit_budget(&self, policy: &Pursue) -> Yocto {
        let recent = self.channels.values().filter_map(|channel| channel.row.pursuit.as_ref());
        let recent = recent.filter(|pursuit| self.now.since_ms(pursuit.since) < policy.window_ms);
        let spent = Yocto::checked_sum(recent.map(|pursuit| pursuit.spent));
        spent.map_or(Yocto::ZERO, |spent| policy.budget.saturating_sub(spent))
    }

    fn active_pursuit(&self, channel: ChannelId) -> Option<(NodeKey, Pursuit)> {
        let row = &self.channels.get(&channel)?.row;
        Some((row.peer, row.pursuit.clone().filter(|pursuit| !pursuit.over)?))
    }

    /// The next step of a pursuit is due.
    pub(crate) fn pursue(&mut self, channel: ChannelId) {
        let Some((peer, pursuit)) = self.active_pursuit(channel) else { return };
        // Switched off since.
        let Some(policy) = self.config.policy.pursuit else {
            return self.end_pursuit(channel, PursuitEnd::Spent);
        };
        if self.graph.is_isolated(&peer) {
            return self.end_pursuit(channel, PursuitEnd::Isolated);
        }
        if self.now.since_ms(pursuit.since) >= policy.window_ms {
            return self.end_pursuit(channel, PursuitEnd::TimedOut);
        }
        if pursuit.asking.is_none() {
            let most = self.pursuit_budget(&policy);
            if pursuit.tries >= policy.max_requests || most.is_zero() {
                return self.end_pursuit(channel, PursuitEnd::Spent);
            }
            self.notify(Event::Pursue { channel, peer, tries: pursuit.tries, most });
        }
        self.pursue_later(channel);
    }

    /// A route for the next request of a pursuit.
    pub(crate) fn on_pursue(&mut self, command: Command) {
        let Command::Pursue { channel, expires_ms, graph_version, route } = command else { return };
        let Some((peer, pursuit)) = self.active_pursuit(channel) else { return };
        let Some(policy) = self.config.policy.pursuit else { return };
        let drafted = self.drafts.iter().any(|draft| draft.is_pursuit(channel));
        if pursuit.asking.is_some() || pursuit.tries >= policy.max_requests || drafted {
            return;
        }
        let body = Encoder::new(Bytes::copy_from_slice(&pursuit.request.0));
        let head = RequestHead {
            author: self.key,
            nonce: self.nonce(),
            destination: peer,
            app: ANSWER_APP.to_owned(),
            body_hash: body.root(),
            body_len: body.body().len() as u64,
            response_limit: ANSWER_LIMIT,
            expires_ms,
            graph_version,
            server_price: Yocto::ZERO,
            route,
        };
        let most = self.pursuit_budget(&policy);
        let planned = match head.payment_at(0) {
            Ok(price) if price <= most => self.plan(&head),
            _ => Err(RejectReason::Balance),
        };
        match planned {
            Ok(to) => self.drafts.push(Draft::new(Purpose::Pursuit(channel), head, body, to)),
            Err(reason) => tracing::debug!(%channel, %reason, "this route does not serve the pursuit"),
        }
    }

    /// The pursuit's request is on its way.
    pub(crate) fn pursuit_asks(&mut self, channel: ChannelId, request: RequestId, price: Yocto) {
        self.pursuing.insert(request, channel);
        self.change_pursuit(channel, |pursuit| {
            pursuit.asking = Some(request);
            pursuit.tries = pursuit.tries.saturating_add(1);
            // More than exists cannot be spent.
            pursuit.spent = pursuit.spent.checked_add(price).unwrap_or(pursuit.spent);
        });
    }

    fn change_pursuit(&mut self, channel: ChannelId, change: impl FnOnce(&mut Pursuit)) {
        let entry = self.channels.get_mut(&channel);
        if let Some(pursuit) = entry.and_then(|channel| channel.row.pursuit.as_mut()) {
            change(pursuit);
            self.dirty_channels.insert(channel);
        }
    }

    /// The outcome of a pursuit's request.
    pub(crate) fn pursuit_heard(&mut self, channel: ChannelId, outcome: &Event) {
        let Some((peer, pursuit)) = self.active_pursuit(channel) else { return };
        let (answered, refund) = match outcome {
            Event::Response { body, .. } => (Some(has_answer(pursuit.request, body)), Yocto::ZERO),
            // Its signed refusal is an answer too.
            Event::Rejected { refund, invalid, .. } => {
                let by_peer = invalid.as_ref().is_some_and(|proof| proof.statement.signer == peer);
                (by_peer.then_some(false), *refund)
            }
            Event::Severed { refund, .. } => (None, *refund),
            _ => return,
        };
        self.change_pursuit(channel, |pursuit| {
            pursuit.asking = None;
            pursuit.spent = pursuit.spent.saturating_sub(refund);
        });
        if let Some(held) = answered {
            self.end_pursuit(channel, PursuitEnd::Answered { held });
        }
    }

    fn end_pursuit(&mut self, channel: ChannelId, end: PursuitEnd) {
        let Some((peer, pursuit)) = self.active_pursuit(channel) else { return };
        if let Some(asking) = pursuit.asking {
            self.pursuing.remove(&asking);
        }
        self.change_pursuit(channel, |pursuit| (pursuit.over, pursuit.asking) = (true, None));
        // Before that is on disk: told again after a crash rather than never.
        self.notify(Event::Pursued { channel, peer, request: pursuit.request, end });
    }

    /// Answers a durable request of somebody who pursues this node.
    pub(crate) fn answer_about(&mut self, query: RequestId) {
        let Some(job) = self.jobs.get(&query) else { return };
        let Role::Destination { stage: crate::job::Asked::Queued { body }, .. } = &job.role else { return };
        let about = RequestId::try_from(&body[..]).ok();
        let answer = about.and_then(|id| self.jobs.get(&id)).map_or(HeldAnswer::Unknown, held_answer);
        // Memory cannot refuse a write.
        let bytes = borsh::to_vec(&answer).unwrap_or_default();
        self.respond(query, bytes.into());
        self.stale = true;
    }
}

impl Draft {
    fn is_pursuit(&self, channel: ChannelId) -> bool {
        matches!(self.purpose(), Purpose::Pursuit(of) if of == channel)
    }
}

fn is_active(pursuit: Option<&Pursuit>) -> bool {
    pursuit.is_some_and(|pursuit| !pursuit.over)
}

fn held_answer(job: &Job) -> HeldAnswer {
    match &job.role {
        Role::Answered { receipt, reply, .. } => {
            let overhead = 64 * (receipt.proof.path.len() as u64 + 4);
            let fits = |body: &&Bytes| (body.len() as u64).saturating_add(overhead) <= ANSWER_LIMIT;
            let body = reply.body().filter(fits).map(|body| body.to_vec());
            HeldAnswer::Held { receipt: receipt.clone(), body }
        }
        Role::Relay(_) | Role::Destination { .. } | Role::Author(_) => HeldAnswer::Working,
        Role::Rejected { .. } | Role::Severed { .. } => HeldAnswer::Unknown,
    }
}

/// Whether the response has an answer to the request, with the body that its receipt names.
fn has_answer(request: RequestId, response: &[u8]) -> bool {
    match HeldAnswer::try_from_slice(response) {
        Ok(HeldAnswer::Held { receipt, body: Some(body) }) => {
            let receipt = &receipt.receipt;
            receipt.request == request
                && receipt.body_len == body.len() as u64
                && receipt.body_hash.0 == *blake3::hash(&body).as_bytes()
        }
        _ => false,
    }
}
