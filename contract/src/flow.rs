//! One order of events: what a partition check depends on is applied at once while no check is
//! pending, and otherwise waits in a queue behind it (docs/decisions/contract.md).

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::Yocto;
use por_types::interface::{AttachedEvent, CheckedEvent, Event, Witness, code};

use crate::Contract;
use crate::adjacency;
use crate::answers::emit;
use crate::budget::{Budget, EVENT_LOG};
use crate::channel::Status;
use crate::check::Job;
use crate::fail::{OrStop, require};
use crate::node::MAX_QUEUED;
use crate::penalties::Penalty;
use crate::store::{self, Span, Table};

/// Most checks that may be pending for a cooperative close to add another.
const MAX_CHECKS: u32 = 64;
/// Entries of ripening stake that an ordinary call takes care of.
const RIPEN_PER_CALL: usize = 2;

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct Flow {
    /// The genesis anchor, once it is registered.
    pub anchor: Option<u32>,
    /// The anchor was cut off together with others: attached nodes may be in two components.
    pub split: bool,
    pub attached_stake: Yocto,
    /// Stake that becomes active, and when the last of it does.
    ripening: Span,
    last_ripe_ms: u64,
    queue: Span,
    /// Unfinished checks, queued ones included.
    pub checks: u32,
    /// A check is under way; its records exist.
    job: bool,
    /// Time of the last operation that left the queue.
    clock_ms: u64,
    pub penalties: Span,
}

impl Flow {
    pub fn new() -> Flow {
        Flow {
            anchor: None,
            split: false,
            attached_stake: Yocto::ZERO,
            ripening: Span::default(),
            last_ripe_ms: 0,
            queue: Span::default(),
            checks: 0,
            job: false,
            clock_ms: 0,
            penalties: Span::default(),
        }
    }

    /// Nothing waits.
    pub fn is_idle(&self) -> bool {
        self.checks == 0 && self.queue.is_empty()
    }

    pub fn waiting(&self) -> u64 {
        self.queue.len() + u64::from(self.job)
    }
}

// There is one of them at a time, so its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(BorshSerialize, BorshDeserialize)]
pub enum Op {
    Link { a: u32, b: u32 },
    Stake { node: u32, amount: Yocto, active_at_ms: u64 },
    Unstake { node: u32, amount: Yocto, release_ms: u64 },
    Ping { node: u32, through: u32 },
    Close(Job),
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Queued {
    at_ms: u64,
    op: Op,
}

/// Stake of `node` that becomes active at `at_ms`.
#[derive(BorshSerialize, BorshDeserialize)]
struct Ripe {
    at_ms: u64,
    node: u32,
}

impl Contract {
    /// Block time, or the time of what is being checked (docs/decisions/contract.md).
    pub(crate) fn clock_ms(&self) -> u64 {
        if self.flow.is_idle() { env::block_timestamp_ms() } else { self.flow.clock_ms }
    }

    /// Stops a cooperative close while too many checks are pending.
    pub(crate) fn require_few_checks(&self) {
        require!(
            self.flow.checks < MAX_CHECKS,
            code::CHECKS_PENDING,
            "{} checks are pending; continue them with `check`, then try again",
            self.flow.checks
        );
    }

    /// Applies an operation, or lets it wait for its turn.
    pub(crate) fn submit(&mut self, op: Op) {
        if self.flow.is_idle() {
            self.ripen(self.clock_ms(), RIPEN_PER_CALL);
            self.apply(op, env::block_timestamp_ms());
        } else {
            self.enqueue(op);
        }
    }

    fn enqueue(&mut self, op: Op) {
        match &op {
            Op::Stake { node, amount, .. } => self.with_queued(*node, |later| {
                later.arriving = later.arriving.checked_add(*amount).or_stop();
            }),
            Op::Unstake { node, amount, .. } => self.with_queued(*node, |later| {
                later.leaving = later.leaving.checked_add(*amount).or_stop();
            }),
            Op::Ping { node, .. } => self.with_node(*node, |node, _| node.later.pinging = true),
            Op::Link { .. } | Op::Close(_) => {}
        }
        self.flow.queue.push(Table::Queue, &Queued { at_ms: env::block_timestamp_ms(), op });
    }

    fn with_queued(&mut self, node: u32, change: impl FnOnce(&mut crate::node::Later)) {
        self.with_node(node, |node, _| {
            require!(
                node.later.queued < MAX_QUEUED,
                code::TOO_MANY_PENDING,
                "{MAX_QUEUED} changes of your stake wait for checks; continue those with `check`"
            );
            node.later.queued += 1;
            change(&mut node.later);
        });
    }

    /// Applies what comes out of the queue; `enqueue` backwards first.
    fn apply_queued(&mut self, queued: Queued) {
        match &queued.op {
            Op::Stake { node, amount, .. } => self.with_node(*node, |node, _| {
                node.later.queued -= 1;
                node.later.arriving = node.later.arriving.checked_sub(*amount).or_stop();
            }),
            Op::Unstake { node, amount, .. } => self.with_node(*node, |node, _| {
                node.later.queued -= 1;
                node.later.leaving = node.later.leaving.checked_sub(*amount).or_stop();
            }),
            Op::Ping { node, .. } => self.with_node(*node, |node, _| node.later.pinging = false),
            Op::Link { .. } | Op::Close(_) => {}
        }
        if let Op::Ping { node, through } = queued.op {
            let attached = self.try_attach(node, through, queued.at_ms);
            let account = Self::load_node(node).account;
            return emit(&Event::Attached(vec![AttachedEvent { account, attached }]));
        }
        self.apply(queued.op, queued.at_ms);
    }

    /// Applies an operation of time `at_ms`; a close only puts its check under way.
    fn apply(&mut self, op: Op, at_ms: u64) {
        match op {
            Op::Link { a, b } => adjacency::link(a, b),
            Op::Stake { node, amount, active_at_ms } => {
                let at_ms = active_at_ms.max(self.flow.last_ripe_ms);
                let mut first = false;
                self.with_node(node, |node, _| first = node.add_stake(amount, at_ms));
                if first {
                    self.ripen_later(node, at_ms);
                }
            }
            Op::Unstake { node, amount, release_ms } => {
                self.with_node(node, |node, _| node.unstake(amount, release_ms));
            }
            Op::Ping { node, through } => {
                let attached = self.try_attach(node, through, at_ms);
                require!(
                    attached,
                    code::NOT_ATTACHED,
                    "no open channel leads to that node, or it is not attached; ping through another"
                );
            }
            Op::Close(job) => self.begin(&job),
        }
    }

    /// Counts the node's stake at `at_ms` again, which is not before any such time so far.
    pub(crate) fn ripen_later(&mut self, node: u32, at_ms: u64) {
        self.flow.last_ripe_ms = at_ms;
        self.flow.ripening.push(Table::Ripening, &Ripe { at_ms, node });
    }

    /// Takes up to `most` entries of stake that is active at `clock_ms`; true if none is left.
    pub(crate) fn ripen(&mut self, clock_ms: u64, most: usize) -> bool {
        for _ in 0..most {
            match self.flow.ripening.front::<Ripe>(Table::Ripening) {
                Some(ripe) if ripe.at_ms <= clock_ms => {
                    self.flow.ripening.pop(Table::Ripening);
                    // It may have left since. For another that has its index now nothing changes: what
                    // of its stake is due by the clock counts anyway.
                    if Self::try_node(ripe.node).is_some() {
                        self.with_node(ripe.node, |_, _| {});
                    }
                }
                _ => return true,
            }
        }
        false
    }

    /// Judges a ping: the node is attached from `at_ms` on if an edge leads to an attached one.
    fn try_attach(&mut self, node: u32, through: u32, at_ms: u64) -> bool {
        let attached = Self::try_node(through).is_some_and(|node| node.attached_since_ms.is_some());
        let judged = attached && adjacency::Graph::default().linked(node, through);
        if judged {
            self.with_node(node, |node, _| {
                node.attached_since_ms.get_or_insert(at_ms);
            });
            self.log_node(node);
        }
        judged
    }

    /// An edge leaves the graph, or a SeverOrder came after it: with its check, now or later.
    /// `job.prepaid` is counted as storage already.
    pub(crate) fn close_edge(&mut self, job: Job, witness: Option<Witness>) {
        let channel = job.channel;
        let needed = self.check_deposit();
        let paid = job.prepaid;
        let idle = self.flow.is_idle();
        self.flow.checks += 1;
        if idle {
            self.flow.clock_ms = job.at_ms;
            self.begin(&job);
            let mut budget = Budget::of_call(self.nodes, None);
            self.pump(witness, &mut budget);
        } else {
            self.enqueue(Op::Close(job));
        }
        if self.flow.is_idle() {
            return;
        }
        require!(
            paid >= needed,
            code::DEPOSIT,
            "the check does not finish in this call; attach {needed} yocto for it, or more gas"
        );
        emit(&Event::Checked(vec![CheckedEvent { channel, partition: None, cut_off: 0 }]));
    }

    /// Puts a check under way.
    fn begin(&mut self, job: &Job) {
        self.flow.job = true;
        store::write(Table::Job, &[], job);
        self.enter_penalty(job);
    }

    /// A close enters the list of penalties, and its edge leaves the graph.
    fn enter_penalty(&mut self, job: &Job) {
        if job.is_late() {
            return;
        }
        adjacency::unlink(job.a, job.b);
        self.list_penalty(job, job.is_sever());
    }

    pub(crate) fn list_penalty(&mut self, job: &Job, forfeited: bool) {
        let Some(mut channel) = Self::try_channel(job.channel) else { return };
        // A SeverOrder for a cooperative close is taken while the bonds are held.
        let until_ms = match channel.status {
            Status::Closed { held_until_ms: Some(until), .. } if !forfeited => until,
            _ => job.at_ms + job.window_ms,
        };
        let (a, b, half) = (job.a, job.b, channel.bond);
        let penalty = Penalty { channel: job.channel, a, b, half, until_ms, forfeited };
        channel.penalty = Some(self.add_penalty(&penalty));
        Self::save_channel(job.channel, &channel);
    }

    /// Continues the check under way and what waits behind it while the budget lasts.
    pub(crate) fn pump(&mut self, mut witness: Option<Witness>, budget: &mut Budget) {
        loop {
            if self.flow.job {
                if !self.run_job(witness.take(), budget) {
                    return;
                }
                self.flow.job = false;
                self.flow.checks -= 1;
            }
            let Some(queued) = self.queued() else { return };
            // What waits keeps the contract from being idle until it is applied.
            self.flow.clock_ms = queued.at_ms;
            if !budget.lasts(0) {
                return;
            }
            budget.bytes += 2_000;
            if matches!(queued.op, Op::Ping { .. }) {
                budget.logged += EVENT_LOG;
            }
            self.apply_queued(queued);
            self.flow.queue.pop(Table::Queue);
        }
    }

    pub(crate) fn current_job() -> Option<Job> {
        store::read_grown(Table::Job, &[], Job::ADDED)
    }

    /// The check at the head: under way, or what comes next. `None` while other operations come first.
    pub(crate) fn head_job(&self) -> Option<Job> {
        if self.flow.job {
            return Self::current_job();
        }
        match self.queued()?.op {
            Op::Close(job) => Some(job),
            _ => None,
        }
    }

    /// The operation that comes next. A check, whose record grew, is the last of what it holds.
    fn queued(&self) -> Option<Queued> {
        let queue = self.flow.queue;
        if queue.is_empty() {
            None
        } else {
            store::read_grown(Table::Queue, &queue.first.to_le_bytes(), Job::ADDED)
        }
    }
}
