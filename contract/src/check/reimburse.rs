//! What a partition costs the smaller side (protocol section 7).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::{CutOffEvent, Event, ReimbursedEvent};
use por_types::{ChannelId, Yocto};

use super::{Job, Kind, Phase, Work};
use crate::Contract;
use crate::answers::emit;
use crate::bits::Bits;
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

/// One end's half of a penalty.
#[derive(BorshSerialize, BorshDeserialize)]
struct Claim {
    channel: ChannelId,
    /// The node of the larger side.
    to: u32,
    half: Yocto,
}

/// The sums of one reimbursement.
#[derive(Default, BorshSerialize, BorshDeserialize)]
pub struct Bill {
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
}

impl Bill {
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

    /// What a claim is paid.
    fn payment(&self, half: Yocto) -> Yocto {
        if self.takes_all() { half.portion(self.collected, self.claimed).or_stop() } else { half }
    }
}

impl Contract {
    /// Takes the penalties between the sides off the list; those in their window are claimed.
    pub(super) fn step_claim(&mut self, job: &mut Job, work: &mut Work<'_>, mut from: u64) -> (Phase, bool) {
        let side = Self::side(job, work);
        let mut lasts = true;
        while from < self.flow.penalties.next && lasts {
            if let Some(penalty) = Self::penalty(from)
                && side.has(penalty.a) != side.has(penalty.b)
            {
                // Also out of its window: a late order must find that its ends are apart already.
                self.remove_penalty(from);
                if penalty.forfeited && job.at_ms < penalty.until_ms {
                    self.claim(job, &side, &penalty);
                }
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
    fn claim(&mut self, job: &mut Job, side: &Bits, penalty: &Penalty) {
        let (charged, to) = if side.has(penalty.a) { (penalty.a, penalty.b) } else { (penalty.b, penalty.a) };
        let clock = self.clock_ms();
        let mut taken = Yocto::ZERO;
        self.with_node(charged, |node, books| {
            taken = node.chargeable(clock).min(penalty.half);
            node.charge(taken);
            books.transfer(Part::Stakes, Part::Escrow, taken);
        });
        let bill = &mut job.bill;
        bill.claims.push(Claim { channel: penalty.channel, to, half: penalty.half });
        bill.claimed = bill.claimed.checked_add(penalty.half).or_stop();
        bill.collected = bill.collected.checked_add(taken).or_stop();
        bill.rest = bill.rest.checked_add(penalty.half.checked_sub(taken).or_stop()).or_stop();
    }

    /// A SeverOrder after the close claims with the sides found then.
    pub(super) fn claim_late(&mut self, job: &mut Job, side: &Bits) {
        let half = Self::load_channel(job.channel).bond;
        let (channel, a, b) = (job.channel, job.a, job.b);
        let penalty = Penalty { channel, a, b, half, until_ms: u64::MAX, forfeited: true };
        self.claim(job, side, &penalty);
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
        for node in side.from(from) {
            if !work.lasts() {
                reached = Some(node);
                break;
            }
            // A node that has left since a cooperative close cut it off had no stake any more.
            if let Some(record) = Self::try_node(node) {
                visit(job, &record);
            }
            work.budget.bytes += NODE_BYTES;
        }
        work.side = Some(side);
        reached
    }

    /// Takes each node's share and slash, and cuts it off.
    pub(super) fn step_cut(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        let side = Self::side(job, work);
        let mut weights = Weights::default();
        let mut events = Vec::new();
        let mut reached = None;
        for node in side.from(from) {
            if !work.lasts() {
                reached = Some(node);
                break;
            }
            if !job.is_late() || Self::try_node(node).is_some() {
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

    /// Pays the claims; what rounding leaves goes to the treasury.
    pub(super) fn step_pay(&mut self, job: &mut Job, work: &mut Work<'_>, from: u32) -> (Phase, bool) {
        let mut events = Vec::new();
        let mut at = from as usize;
        while let Some(Claim { channel, to, half }) = job.bill.claims.get(at)
            && work.lasts()
        {
            let amount = job.bill.payment(*half);
            let mut account = None;
            self.with_node(*to, |node, books| {
                books.transfer(Part::Escrow, Part::Withdrawable, amount);
                node.credit(amount);
                account = Some(node.account.clone());
            });
            job.bill.paid = job.bill.paid.checked_add(amount).or_stop();
            events.extend(account.map(|account| ReimbursedEvent { channel: *channel, account, amount }));
            at += 1;
            work.budget.bytes += NODE_BYTES;
            work.budget.logged += CLAIM_LOG;
        }
        if !events.is_empty() {
            work.budget.logged += EVENT_LOG;
            emit(&Event::Reimbursed(events));
        }
        if at < job.bill.claims.len() {
            // Claims are fewer than penalties of nodes that exist.
            return (Phase::Pay { from: at as u32 }, false);
        }
        let left = job.bill.collected.checked_sub(job.bill.paid).or_stop();
        self.books.transfer(Part::Escrow, Part::Treasury, left);
        let side = Self::side(job, work);
        (self.finish(job, Some(&side)), true)
    }
}
