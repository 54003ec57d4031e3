//! Whose time it is while a body is under way (protocol section 5): an upload slower than promised
//! and withheld credit are the upstream node's, and shift the deadlines; credit that downstream
//! withholds is not, and shifts nothing. Nor can a downstream node be late with what upstream is not
//! there to take; towards upstream itself its absence excuses no more than one grace.

use por_types::{InvalidReason, NodeKey, RequestId};

use crate::api::{RejectReason, Time};
use crate::body::Outflow;
use crate::graph::Refusal;
use crate::job::{Asked, Job, Leg, Relay, Role};
use crate::node::Node;

/// What upstream has taken of a job's time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// Up to here time is counted.
    at: Time,
    /// The request's body last moved.
    moved: Time,
    /// Since `at` upstream has owed bytes of the request's body, which it has credit for.
    hungry: bool,
    /// Since `at` upstream has owed credit for the response.
    held: bool,
    /// Since `at` bytes of the response have been ready for an upstream node that is not there.
    missing: bool,
    hungry_ms: u64,
    held_ms: u64,
    missing_ms: u64,
    /// By this much the deadline towards upstream was shifted, and the one of the downstream node.
    shifted_ms: (u64, u64),
    /// Since `at` there has been nothing to do for the outcome but to wait for upstream, which is
    /// there.
    waits: bool,
    /// For so long the outcome has waited for upstream to take it, all in all.
    pub waits_ms: u64,
    /// So much of that is on disk.
    pub noted_ms: u64,
    /// For how long the upstream node had been away before the request came, milliseconds.
    pub away_ms: u64,
    /// The job's entry among those with a bound, if the policy looks at it then.
    pub alarm: Option<Time>,
}

impl Pace {
    pub fn new(now: Time) -> Pace {
        Pace { at: now, moved: now, ..Pace::default() }
    }

    /// The time between these two is nobody's.
    pub fn skip(&mut self, from: Time, to: Time) {
        self.count(from);
        self.at = self.at.max(to);
    }

    fn count(&mut self, now: Time) {
        let passed = now.since_ms(self.at);
        self.hungry_ms += if self.hungry { passed } else { 0 };
        self.held_ms += if self.held { passed } else { 0 };
        self.missing_ms += if self.missing { passed } else { 0 };
        self.waits_ms += if self.waits { passed } else { 0 };
        self.at = self.at.max(now);
    }

    /// By how much the downstream node's deadline was shifted since this process started, milliseconds.
    pub fn excused_ms(&self) -> u64 {
        self.shifted_ms.1
    }

    /// Of a request from before this process, whose outcome had waited for so long.
    pub fn restored(waits_ms: u64) -> Pace {
        Pace { waits_ms, noted_ms: waits_ms, ..Pace::default() }
    }

    /// This process starts now.
    pub fn start(&mut self, now: Time) {
        (self.at, self.moved) = (now, now);
    }

    /// Of a request from a node that has been away for so long before.
    pub fn of(now: Time, away_ms: u64) -> Pace {
        Pace { away_ms, ..Pace::new(now) }
    }
}

impl Job {
    /// Bytes of the request's body are owed from where the request came from.
    fn is_hungry(&mut self) -> bool {
        if self.is_refused() {
            return false;
        }
        match &mut self.role {
            Role::Author(author) => !author.uploaded && author.body.is_sendable(),
            _ => self.upload_inflow().is_some_and(|inflow| inflow.is_hungry()),
        }
    }

    /// A response on its way through this node.
    fn passing(&self) -> Option<&Outflow> {
        match &self.role {
            Role::Relay(relay) => relay.reply.as_ref().map(|passing| &passing.flow),
            _ => None,
        }
    }

    /// There is nothing to do for the outcome but to wait for upstream's credit or its Done.
    fn is_waiting(&self) -> bool {
        let flow = match &self.role {
            Role::Answered { reply, .. } => reply,
            Role::Relay(Relay { reply: Some(passing), .. }) => &passing.flow,
            Role::Severed { sent, .. } => return *sent,
            _ => return false,
        };
        flow.is_held() || flow.is_sent()
    }
}

impl Node {
    /// Counts the time up to now, and looks who has to act next.
    pub(crate) fn sample(&mut self, id: RequestId, moved: bool) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let open = |leg: &Leg| self.edges.get(&leg.peer).is_some_and(|edge| edge.open().is_some());
        let there = job.from().is_some_and(open);
        let hungry = job.is_hungry();
        let held = there && job.passing().is_some_and(Outflow::is_held);
        // Credit is left perhaps, but the downstream node's own is not given back by what stays here.
        let missing = !there && job.passing().is_some_and(Outflow::is_ready);
        let waits = there && job.is_waiting();
        let pace = &mut job.pace;
        pace.count(now);
        (pace.hungry, pace.held, pace.missing, pace.waits) = (hungry, held, missing, waits);
        if moved {
            pace.moved = now;
        }
    }

    /// A peer has come or gone: whose time it is from now on changes for all that it waits for.
    pub(crate) fn sample_owed(&mut self, peer: NodeKey) {
        let owed: Vec<RequestId> = self.edge(peer).owed.values().copied().collect();
        owed.into_iter().for_each(|id| self.sample(id, false));
    }

    /// Shifts the deadlines of a job by what upstream has taken so far: of an upload's time all beyond
    /// what the terms promise.
    pub(crate) fn shift_deadlines(&mut self, id: RequestId) {
        self.sample(id, false);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.pace.hungry_ms == 0 && job.pace.held_ms == 0 && job.pace.missing_ms == 0 {
            return;
        }
        let Some(leg) = job.from().or(job.to()) else { return };
        let rate = self.channels.get(&leg.channel).and_then(|channel| channel.info.as_ref());
        let rate = rate.map_or(u64::MAX, |info| info.terms.bytes_per_s.max(1));
        let promised = u128::from(job.head.body_len).saturating_mul(1000).div_ceil(u128::from(rate));
        let promised = u64::try_from(promised).unwrap_or(u64::MAX);
        let all = job.pace.hungry_ms.saturating_sub(promised).saturating_add(job.pace.held_ms);
        let below = all.saturating_add(job.pace.missing_ms);
        let before = job.pace.shifted_ms;
        let (more, more_below) = (all.saturating_sub(before.0), below.saturating_sub(before.1));
        if more == 0 && more_below == 0 {
            return;
        }
        job.pace.shifted_ms = (all.max(before.0), below.max(before.1));
        if let Role::Author(author) = &mut job.role {
            let told = !self.due.remove(&(author.to.clock.deadline, id));
            author.to.clock.shift(more_below);
            if !told {
                self.due.insert((author.to.clock.deadline, id));
            }
        } else {
            if let Some(from) = job.upstream_mut() {
                from.clock.shift(more);
            }
            if let Some(to) = job.downstream_mut() {
                to.clock.shift(more_below);
            }
            self.dirty_jobs.insert(id);
        }
    }

    /// A request's body has arrived from upstream, or left at its author.
    pub(crate) fn upload_over(&mut self, id: RequestId) {
        if let Some(Role::Author(author)) = self.jobs.get_mut(&id).map(|job| &mut job.role) {
            author.uploaded = true;
        }
        self.shift_deadlines(id);
    }

    /// Ends a request here, at its destination, whose body has not moved for longer than a silence is
    /// borne: it is declined, with the refund. Relays wait for that. Before the chain is read the refund would
    /// not be covered by anything.
    pub(crate) fn drop_abandoned(&mut self, id: RequestId, limit_ms: u64) {
        self.sample(id, false);
        if !self.judges() {
            return;
        }
        let Some(job) = self.jobs.get(&id) else { return };
        let uploading = matches!(&job.role, Role::Destination { stage: Asked::Uploading { .. }, .. });
        if !uploading || !job.pace.hungry || self.heeded_ms(job.pace.moved) <= limit_ms {
            return;
        }
        let app = job.head.app.clone();
        self.unqueue(&app, &id);
        let Some(job) = self.forget(&id) else { return };
        let Some(from) = job.from().cloned() else { return };
        self.refuse(id, from, Refusal::Reject(RejectReason::Abandoned), |role| Job { role, ..*job });
    }

    /// How long the edge's outstanding bytes may take, milliseconds: a request waits behind them.
    pub(crate) fn queued_ms(&self, peer: NodeKey) -> u64 {
        let waits = self.channels_with(peer).filter_map(|(_, channel)| {
            let rate = channel.info.as_ref()?.terms.bytes_per_s.max(1);
            let ms = u128::from(channel.outgoing.bytes).saturating_mul(1000).div_ceil(u128::from(rate));
            u64::try_from(ms).ok()
        });
        waits.max().unwrap_or_default()
    }
}

/// How a destination says why it declines.
pub(crate) fn declined(reason: RejectReason) -> InvalidReason {
    match reason {
        RejectReason::ServerPrice => InvalidReason::ServerPrice,
        _ => InvalidReason::Refused,
    }
}
