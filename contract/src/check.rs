//! The check for a partition after an edge has left the graph (protocol section 7): find out
//! whether its ends are still connected, if not which side is smaller, let that side reimburse
//! the penalties between the two, slash it after a sever, and cut it off.
//!
//! A check is a [`Job`] that runs through [`Phase`]s; every phase can stop between two steps
//! and go on in a later call.

mod cut;
mod reimburse;
mod search;
mod sides;

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::interface::{CheckedEvent, Event, Witness, code};
use por_types::{AccountId, ChannelId, Side, Yocto};

use crate::Contract;
use crate::adjacency::Graph;
use crate::answers::emit;
use crate::bits::Bits;
use crate::books::Part;
use crate::budget::{Budget, EVENT_LOG};
use crate::config::{GAS_PRICE, check_storage, crank_deposit, cut_storage};
use crate::fail::{OrStop, require};
use crate::store::{self, Table};
pub use cut::{CutRecord, Smaller};
use reimburse::Bill;
use search::{Found, Half, SavedHalf, search};
use sides::{Decision, Stats};

/// Entries of ripening stake taken at a time.
const RIPEN_STEP: usize = 1;

#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    Severed,
    Cooperative,
    /// A SeverOrder after a cooperative close.
    Late,
}

#[derive(BorshSerialize, BorshDeserialize)]
pub struct Job {
    pub channel: ChannelId,
    pub a: u32,
    pub b: u32,
    pub kind: Kind,
    /// Block time of the close.
    pub at_ms: u64,
    /// Parameters at that time.
    pub window_ms: u64,
    pub slash_bps: u16,
    pub closer: AccountId,
    /// What is left of the closer's deposit.
    pub prepaid: Yocto,
    phase: Phase,
    bill: Bill,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
enum Phase {
    /// Stake that is active by now is given its weight.
    Ripen,
    /// Both ends are searched from.
    Search,
    /// One half is exhausted: what both have visited is weighed, from this node on.
    Weigh {
        exhausted: u8,
        from: u32,
        stats: [Stats; 2],
    },
    /// The other half is searched, and both weighed again, until it is clear which is smaller.
    Compare {
        exhausted: u8,
        stats: [Stats; 2],
    },
    /// Penalties between the sides are claimed, from this one on.
    Claim {
        from: u64,
    },
    /// Stake of the smaller side is added up.
    Total {
        from: u32,
    },
    /// What division rounds down is added up.
    Round {
        from: u32,
    },
    /// The smaller side is charged, slashed and cut off.
    Cut {
        from: u32,
    },
    /// Claims that former code gathered are paid.
    Pay {
        from: u32,
    },
    Done,
    /// Penalties that were claimed are paid and leave the list, from this one on.
    Settle {
        from: u64,
    },
}

/// What a job works on within one call.
struct Work<'a> {
    graph: Graph,
    halves: Option<[Half; 2]>,
    side: Option<Smaller>,
    only: Option<usize>,
    path: Vec<u32>,
    /// Gas that was burnt for nothing, by the caller's choice.
    unpaid: u64,
    budget: &'a mut Budget,
}

impl Work<'_> {
    fn lasts(&self) -> bool {
        self.budget.lasts(self.graph.bytes)
    }
}

impl Job {
    /// Bytes of what was added at the end of its [`Bill`].
    pub const ADDED: usize = Bill::ADDED;

    pub fn is_sever(&self) -> bool {
        self.kind == Kind::Severed
    }

    pub fn is_late(&self) -> bool {
        self.kind == Kind::Late
    }
}

impl Contract {
    /// A check of the edge of `channel` between `a` and `b`, as of now.
    pub(crate) fn new_job(&self, channel: ChannelId, a: u32, b: u32, kind: Kind, closer: AccountId) -> Job {
        let params = self.params();
        Job {
            channel,
            a,
            b,
            kind,
            at_ms: env::block_timestamp_ms(),
            window_ms: params.reimbursement_ms,
            slash_bps: params.slash_bps,
            closer,
            prepaid: Yocto::ZERO,
            phase: Phase::Ripen,
            bill: Bill::default(),
        }
    }

    /// Runs the check under way; true when it is finished. Its records are then removed, and
    /// are up to date otherwise.
    pub(crate) fn run_job(&mut self, witness: Option<Witness>, budget: &mut Budget) -> bool {
        let Some(mut job) = Self::current_job() else { return true };
        let started = env::used_gas().as_gas();
        let witness = witness.unwrap_or_default();
        let only = witness.closed.map(|side| usize::from(side == Side::B));
        let (path, graph) = (witness.path, Graph::default());
        let mut work = Work { graph, halves: None, side: None, only, path, unpaid: 0, budget };
        while !matches!(job.phase, Phase::Done) {
            let phase = std::mem::replace(&mut job.phase, Phase::Done);
            let (next, finished) = self.step(&mut job, &mut work, phase);
            job.phase = next;
            if !finished {
                self.reward(&mut job, &work, started, check_storage(self.nodes));
                self.suspend(&job, work);
                return false;
            }
        }
        work.budget.bytes += work.graph.bytes;
        // What the check found.
        work.budget.logged += EVENT_LOG;
        self.reward(&mut job, &work, started, Yocto::ZERO);
        for table in [Table::Job, Table::Search, Table::Side] {
            store::remove(table, &[]);
        }
        let rest = job.prepaid;
        self.credit(&job.closer, rest, Part::Storage);
        true
    }

    /// One phase as far as the budget lasts: where to go on, and whether there is budget left.
    fn step(&mut self, job: &mut Job, work: &mut Work<'_>, phase: Phase) -> (Phase, bool) {
        match phase {
            Phase::Ripen => self.step_ripen(job, work),
            Phase::Search => self.step_search(job, work),
            Phase::Weigh { exhausted, from, stats } => self.step_weigh(job, work, exhausted, from, stats),
            Phase::Compare { exhausted, stats } => self.step_compare(job, work, exhausted, stats),
            Phase::Claim { from } => self.step_claim(job, work, from),
            Phase::Total { from } => self.step_total(job, work, from),
            Phase::Round { from } => self.step_round(job, work, from),
            Phase::Cut { from } => self.step_cut(job, work, from),
            Phase::Pay { from } => self.step_pay(job, work, from),
            Phase::Settle { from } => self.step_settle(job, work, from),
            Phase::Done => (Phase::Done, true),
        }
    }

    fn step_ripen(&mut self, job: &mut Job, work: &mut Work<'_>) -> (Phase, bool) {
        while work.lasts() {
            if self.ripen(job.at_ms, RIPEN_STEP) {
                return (self.after_ripen(job, work), true);
            }
            work.budget.bytes += 3_000;
        }
        (Phase::Ripen, false)
    }

    /// A late order has its sides already, if there are any.
    fn after_ripen(&mut self, job: &mut Job, work: &mut Work<'_>) -> Phase {
        if !job.is_late() {
            return Phase::Search;
        }
        if let Some(cut) = CutRecord::read(job.channel) {
            let side = cut.side();
            self.claim_late(job, &side);
            work.side = Some(side);
            return Phase::Total { from: 0 };
        }
        self.revive_penalty(job);
        self.finish(job, None)
    }

    fn halves(&self, job: &Job) -> [Half; 2] {
        match store::read::<[SavedHalf; 2]>(Table::Search, &[]) {
            Some(saved) => saved.map(Half::restore),
            None => [Half::new(job.a, self.nodes), Half::new(job.b, self.nodes)],
        }
    }

    fn step_search(&mut self, job: &mut Job, work: &mut Work<'_>) -> (Phase, bool) {
        let before = env::used_gas().as_gas();
        if self.is_path(job, work) {
            return (self.finish(job, None), true);
        }
        work.unpaid += env::used_gas().as_gas() - before;
        let mut halves = work.halves.take().unwrap_or_else(|| self.halves(job));
        let found = search(&mut halves, work.only, &mut work.graph, work.budget);
        work.halves = Some(halves);
        match found {
            Found::Path => (self.finish(job, None), true),
            // There are two halves.
            Found::Exhausted(half) => {
                (Phase::Weigh { exhausted: half as u8, from: 0, stats: Default::default() }, true)
            }
            Found::Unfinished => (Phase::Search, false),
        }
    }

    /// Whether the witness is a path between the ends that comes to no node twice: it then costs about
    /// what a search may, and not as much as somebody likes.
    fn is_path(&self, job: &Job, work: &mut Work<'_>) -> bool {
        let path = std::mem::take(&mut work.path);
        let mut ends = [path.first(), path.last()];
        if ends[0] != Some(&job.a) {
            ends.swap(0, 1);
        }
        if ends != [Some(&job.a), Some(&job.b)] {
            return false;
        }
        let mut passed = Bits::new(self.nodes);
        let once = path.iter().all(|node| {
            let first = *node < self.nodes && !passed.has(*node);
            passed.add(*node);
            first
        });
        once && path.windows(2).all(|pair| work.lasts() && work.graph.linked(pair[0], pair[1]))
    }

    /// The smaller side is known.
    fn decided(&mut self, job: &mut Job, work: &mut Work<'_>, decision: Decision) -> Phase {
        let Some(halves) = work.halves.take() else { return Phase::Search };
        let side = halves.into_iter().nth(decision.smaller);
        let side = side.map(|half| half.visited.trimmed()).unwrap_or_default();
        if let Some(anchor) = self.flow.anchor
            && side.has(anchor)
        {
            self.flow.split = true;
        }
        if job.kind == Kind::Cooperative {
            self.keep_cut(job, side.clone(), work.budget);
        }
        store::write(Table::Side, &[], &side);
        store::remove(Table::Search, &[]);
        work.side = Some(Smaller { nodes: side, at_ms: job.at_ms });
        Phase::Claim { from: self.flow.penalties.first }
    }

    /// Keeps the smaller side for a late order. Small sides are within the channel's storage.
    fn keep_cut(&mut self, job: &mut Job, side: Bits, budget: &Budget) {
        // Those who continue a check must not be stopped; its deposit covered the network as it
        // was at the close.
        let continued = budget.paid.is_some();
        let storage = cut_storage(side.size());
        let storage = if continued { storage.min(job.prepaid) } else { storage };
        require!(
            job.prepaid >= storage,
            code::DEPOSIT,
            "this close cuts off many nodes; attach {storage} yocto for their storage"
        );
        job.prepaid = job.prepaid.checked_sub(storage).or_stop();
        CutRecord::new(side, storage, job).write(job.channel);
    }

    /// The smaller side, from this call or an earlier one.
    fn side(job: &Job, work: &mut Work<'_>) -> Smaller {
        let stored = || match job.kind {
            Kind::Late => CutRecord::read(job.channel).map(CutRecord::side),
            _ => store::read(Table::Side, &[]).map(|nodes| Smaller { nodes, at_ms: job.at_ms }),
        };
        work.side.take().or_else(stored).unwrap_or_default()
    }

    fn finish(&mut self, job: &Job, side: Option<&Smaller>) -> Phase {
        // A set holds fewer than 2^24 nodes.
        let cut_off = side.map_or(0, |side| side.nodes.from(0).count() as u32);
        let partition = Some(side.is_some());
        emit(&Event::Checked(vec![CheckedEvent { channel: job.channel, partition, cut_off }]));
        Phase::Done
    }

    fn suspend(&mut self, job: &Job, work: Work<'_>) {
        work.budget.bytes += work.graph.bytes;
        store::write(Table::Job, &[], job);
        if let Some(halves) = work.halves {
            store::write(Table::Search, &[], &halves.map(|half| half.save(self.nodes)));
        }
    }

    /// What a closer attaches for a check that is left to others.
    pub(crate) fn check_deposit(&self) -> Yocto {
        let crank = crank_deposit(self.nodes, self.flow.penalties.len());
        check_storage(self.nodes).checked_add(crank).or_stop()
    }

    /// Pays whoever continues a check for the gas since `started`, but for what a wrong witness has
    /// burnt, leaving `kept` of the deposit.
    fn reward(&mut self, job: &mut Job, work: &Work<'_>, started: u64, kept: Yocto) {
        let Some(account) = &work.budget.paid else { return };
        let gas = env::used_gas().as_gas().saturating_sub(started.saturating_add(work.unpaid));
        let owed = GAS_PRICE.checked_mul(u128::from(gas)).or_stop();
        let amount = owed.min(job.prepaid.saturating_sub(kept));
        job.prepaid = job.prepaid.checked_sub(amount).or_stop();
        self.credit(account, amount, Part::Storage);
    }
}
