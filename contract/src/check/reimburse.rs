//! What a partition costs the smaller side (protocol section 7).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::{CutOffEvent, Event, ReimbursedEvent};
use por_types::{ChannelId, Yocto};

use super::{Job, Kind, Phase, Smaller, Work};
use crate::Contract;
use crate::adjacency::GROUP;
use crate::answers::emit;
use crate::books::Part;
use crate::budget::EVENT_LOG;
use crate::fail::OrStop;
use crate::node::NodeRecord;
use crate::penalties::Penalty;
use crate::weights::Weights;

/// Bytes of state that a step touches.
const NODE_BYTES: usize = 2_000;
/// Bytes that a step adds to an event.
const CUT_LOG: usize = 120;
const CLAIM_LOG: usize = 200;

/// One end's half of a penalty, as former code gathered them.
#[derive(BorshSerialize, BorshDeserialize)]
struct Claim {
    channel: ChannelId,
    /// The node of the larger side.
    to: u32,
    half: Yocto,
}

/// The sums of one reimbursement. Its size does not depend on how many penalties are claimed: every
/// call that continues the check reads and writes it.
#[derive(Default, BorshSerialize, BorshDeserialize)]
pub struct Bill {
    /// Empty, but for a check that former code has begun; its first claims are then here.
    claims: Vec<Claim>,
    /// Sum of the halves.
    claimed: Yocto,
    /// What endpoints did not cover.
    rest: Yocto,
    /// Stake of the smaller side after its endpoints were charged.
    stake: Yocto,
    /// What division rounded down: yoctos still to be taken, one a node.
    leftover: Yocto,
    collected: Yocto,
    paid: Yocto,
    /// Numbers of the first penalty that was claimed and of the one after the last.
    first: u64,
    end: u64,
}

impl Bill {
    /// Bytes that records of former code are short of.
    pub const ADDED: usize = 16;

    /// The rest is more than the side has.
    fn takes_all(&self) -> bool {
        self.rest > self.stake
    }

    /// What a node with `stake` pays of the rest.
    fn share(&mut self, stake: Yocto) -> Yocto {
        if self.takes_all() {
            return stake;
        }
        let share = self.floor_share(stake);
        if self.leftover.is_zero() || stake.is_zero() {
            return share;
        }
        self.leftover = self.leftover.checked_sub(Yocto(1)).or_stop();
        share.checked_add(Yocto(1)).or_stop()
    }

    fn floor_share(&self, stake: Yocto) -> Yocto {
        if self.rest.is_zero() { Yocto::ZERO } else { self.rest.portion(stake, self.stake).or_stop() }
    }

    /// The penalty with this number is claimed.
    fn list(&mut self, number: u64) {
        if self.first == self.end {
            self.first = number;
        }
        self.end = number + 1;
    }

    /// What a claim is paid.
    fn payment(&self, half: Yocto) -> Yocto {
        if self.takes_all() { half.portion(self.collected, self.claimed).or_stop() } else { half }
    }
}

impl Contract {
    /// Claims the penalties between the sides. They leave the list when they are paid; what is not to be
    /// paid leaves it now.
    pub(super) fn step_claim(&mut self, job: &mut Job, work: &mut Work<'_>, mut from: u64) -> (Phase, bool) {
        let side = Self::side(job, work);
        let mut lasts = true;
        while from < self.flow.penalties.next && lasts {
            match Self::penalty(from) {
                Some(penalty) if penalty.is_claimed(job.at_ms, &side) => {
                    self.claim(job, &side, &penalty);
                    job.bill.list(from);
                }
                // A late order must find that its ends are apart already. Nothing asks for what is over.
                Some(penalty) if side.separates(penalty.a, penalty.b) || penalty.is_over(job.at_ms) => {
                    self.remove_penalty(from);
                }
                _ => {}
            }
            from += 1;
            work.budget.bytes += NODE_BYTES;
            lasts = work.lasts();
        }
        let finished = from >= self.flow.penalties.next;
        work.side = Some(side);
        match (finished, job.bill.rest.is_zero()) {
            (false, _) => (Phase::Claim { from }, false),
            (true, true) => (Phase::Cut { from: 0 }, true),
            (true, false) => (Phase::Total { from: 0 }, true),
        }
    }

    /// Charges a penalty's end on the smaller side as far as its stake goes.
    fn claim(&mut self, job: &mut Job, side: &Smaller, penalty: &Penalty) {
        let charged = if side.has(penalty.a) { penalty.a } else { penalty.b };
        let clock = self.clock_ms();
        let mut taken = Yocto::ZERO;
        self.with_node(charged, |node, books| {
            taken = node.chargeable(clock).min(penalty.half);
            node.charge(taken);
            books.transfer(Part::Stakes, Part::Escrow, taken);
        });
        let bill = &mut job.bill;
        bill.claimed = bill.claimed.checked_add(penalty.half).or_stop();
        bill.collected = bill.collected.checked_add(taken).or_stop();
        bill.rest = bill.rest.checked_add(penalty.half.checked_sub(taken).or_stop()).or_stop();
    }

    /// A SeverOrder after the close claims with the sides found then.
    pub(super) fn claim_late(&mut self, job: &mut Job, side: &Smaller) {
        self.claim(job, side, &Self::late_penalty(job));
    }

    fn late_penalty(job: &Job) -> Penalty {
        let half = Self::load_channel(job.channel).bond;
        Penalty { channel: job.channel, a: job.a, b: job.b, half, until_ms: u64::MAX, forfeited: true }
    }

    /// A SeverOrder after a close that separated nothing: its penalty joins the others, unless
    /// a later check has separated the ends.
    pub(super) fn revive_penalty(&mut self, job: &Job) {
        let Some(number) = Self::try_channel(job.channel).and_then(|channel| channel.penalty) else { return };
        if Self::penalty(number).is_some() {
            self.remove_penalty(number);
            self.list_penalty(job, true);
        }
    }

    /// Adds up the smaller side's stake.
    pub(super) fn step_total(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        if from == 0 && job.bill.rest.is_zero() {
            return (Phase::Cut { from: 0 }, true);
        }
        let clock = self.clock_ms();
        let reached = Self::each_node(job, work, from, |job, node| {
            job.bill.stake = job.bill.stake.checked_add(node.chargeable(clock)).or_stop();
        });
        match reached {
            Some(from) => (Phase::Total { from }, false),
            None if job.bill.takes_all() => (Phase::Cut { from: 0 }, true),
            None => {
                job.bill.leftover = job.bill.rest;
                (Phase::Round { from: 0 }, true)
            }
        }
    }

    /// Finds out what rounding down leaves.
    pub(super) fn step_round(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        let clock = self.clock_ms();
        let reached = Self::each_node(job, work, from, |job, node| {
            let share = job.bill.floor_share(node.chargeable(clock));
            job.bill.leftover = job.bill.leftover.checked_sub(share).or_stop();
        });
        match reached {
            Some(from) => (Phase::Round { from }, false),
            None => (Phase::Cut { from: 0 }, true),
        }
    }

    /// Reads the side's nodes from index `from` on; answers where to go on.
    fn each_node(
        job: &mut Job,
        work: &mut Work<'_>,
        from: u32,
        mut visit: impl FnMut(&mut Job, &NodeRecord),
    ) -> Option<u32> {
        let side = Self::side(job, work);
        let mut reached = None;
        for node in side.nodes.from(from) {
            if !work.lasts() {
                reached = Some(node);
                break;
            }
            if let Some(record) = Self::member(job, &side, node) {
                visit(job, &record);
            }
            work.budget.bytes += NODE_BYTES;
        }
        work.side = Some(side);
        reached
    }

    /// A node of the side. `None`: it has left since a cooperative close cut it off, without stake.
    fn member(job: &Job, side: &Smaller, node: u32) -> Option<NodeRecord> {
        if job.is_late() && !side.still_has(node) { None } else { Self::try_node(node) }
    }

    /// Takes each node's share and slash, and cuts it off.
    pub(super) fn step_cut(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        let side = Self::side(job, work);
        let mut weights = Weights::default();
        let mut group = 0;
        let mut events = Vec::new();
        let mut reached = None;
        for node in side.nodes.from(from) {
            // Written as soon as they are done with, so that the budget counts it.
            if node / GROUP != group {
                std::mem::take(&mut weights).save();
                group = node / GROUP;
            }
            if !work.lasts() {
                reached = Some(node);
                break;
            }
            if !job.is_late() || Self::member(job, &side, node).is_some() {
                events.push(self.cut(job, &mut weights, node));
            }
            work.budget.bytes += NODE_BYTES;
            work.budget.logged += CUT_LOG;
        }
        weights.save();
        let nodes: Vec<u32> = events.iter().map(|event| event.index).collect();
        self.log_nodes(&nodes);
        if !events.is_empty() {
            work.budget.logged += EVENT_LOG;
            emit(&Event::CutOff(events));
        }
        work.side = Some(side);
        match reached {
            Some(from) => (Phase::Cut { from }, false),
            None => (Phase::Pay { from: 0 }, true),
        }
    }

    fn cut(&mut self, job: &mut Job, weights: &mut Weights, index: u32) -> CutOffEvent {
        let clock = self.clock_ms();
        let stays = job.is_late() || self.flow.anchor == Some(index);
        let mut event = CutOffEvent { index, charged: Yocto::ZERO, slashed: Yocto::ZERO };
        self.with_weighed_node(weights, index, |node, books| {
            let stake = node.chargeable(clock);
            event.charged = job.bill.share(stake);
            let left = stake.checked_sub(event.charged).or_stop();
            let recently = node.later.slashed_ms.is_some_and(|at| job.at_ms < at + job.window_ms);
            if job.kind != Kind::Cooperative && !recently {
                event.slashed = left.portion(Yocto(u128::from(job.slash_bps)), Yocto(10_000)).or_stop();
            }
            if !event.slashed.is_zero() {
                node.later.slashed_ms = Some(job.at_ms);
            }
            node.charge(event.charged.checked_add(event.slashed).or_stop());
            books.transfer(Part::Stakes, Part::Escrow, event.charged);
            books.transfer(Part::Stakes, Part::Treasury, event.slashed);
            if !stays {
                node.detach(job.at_ms);
            }
        });
        job.bill.collected = job.bill.collected.checked_add(event.charged).or_stop();
        event
    }

    /// Pays claims that former code gathered.
    pub(super) fn step_pay(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        let mut events = Vec::new();
        let mut at = from as usize;
        while let Some(&Claim { channel, to, half }) = job.bill.claims.get(at)
            && work.lasts()
        {
            events.extend(self.pay(job, work, channel, to, half));
            at += 1;
        }
        reimbursed(work, events);
        if at < job.bill.claims.len() {
            // Claims are fewer than penalties of nodes that exist.
            return (Phase::Pay { from: at as u32 }, false);
        }
        (Phase::Settle { from: job.bill.first }, true)
    }

    /// Pays the penalties that were claimed, in their order; what rounding leaves goes to the treasury.
    pub(super) fn step_settle(&mut self, job: &mut Job, work: &mut Work<'_>, mut from: u64) -> (Phase, bool) {
        let side = Self::side(job, work);
        let mut events = Vec::new();
        while from < job.bill.end && work.lasts() {
            // Those in the list are as they were when they were claimed.
            if let Some(penalty) = Self::penalty(from).filter(|found| found.is_claimed(job.at_ms, &side)) {
                self.remove_penalty(from);
                events.extend(self.pay_penalty(job, work, &side, &penalty));
            } else {
                work.budget.bytes += NODE_BYTES;
            }
            from += 1;
        }
        if from >= job.bill.end && job.is_late() && job.bill.claims.is_empty() {
            events.extend(self.pay_penalty(job, work, &side, &Self::late_penalty(job)));
        }
        reimbursed(work, events);
        if from < job.bill.end {
            work.side = Some(side);
            return (Phase::Settle { from }, false);
        }
        let left = job.bill.collected.checked_sub(job.bill.paid).or_stop();
        self.books.transfer(Part::Escrow, Part::Treasury, left);
        (self.finish(job, Some(&side)), true)
    }

    /// Pays the penalty's end on the larger side.
    fn pay_penalty(
        &mut self,
        job: &mut Job,
        work: &mut Work<'_>,
        side: &Smaller,
        penalty: &Penalty,
    ) -> Option<ReimbursedEvent> {
        let to = if side.has(penalty.a) { penalty.b } else { penalty.a };
        self.pay(job, work, penalty.channel, to, penalty.half)
    }

    /// Pays a claim of `half` to node `to`.
    fn pay(
        &mut self,
        job: &mut Job,
        work: &mut Work<'_>,
        channel: ChannelId,
        to: u32,
        half: Yocto,
    ) -> Option<ReimbursedEvent> {
        let amount = job.bill.payment(half);
        let mut account = None;
        self.with_node(to, |node, books| {
            books.transfer(Part::Escrow, Part::Withdrawable, amount);
            node.credit(amount);
            account = Some(node.account.clone());
        });
        job.bill.paid = job.bill.paid.checked_add(amount).or_stop();
        work.budget.bytes += NODE_BYTES;
        work.budget.logged += CLAIM_LOG;
        account.map(|account| ReimbursedEvent { channel, account, amount })
    }
}

/// Emits what was paid.
fn reimbursed(work: &mut Work<'_>, events: Vec<ReimbursedEvent>) {
    if !events.is_empty() {
        work.budget.logged += EVENT_LOG;
        emit(&Event::Reimbursed(events));
    }
}
