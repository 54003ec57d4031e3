//! A registered node: its identity, its stake and what it may withdraw.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::{NodeView, code};
use por_types::{AccountId, NodeKey, Yocto};

use crate::Contract;
use crate::books::{Books, Part};
use crate::config::StoredParams;
use crate::fail::{OrStop, fail, require};
use crate::store::{self, Table};
use crate::weights::Weights;

/// Most deposits and most withdrawals of stake that may wait at once, so that a record has a
/// bounded size. Those that waited in the queue come on top.
const MAX_PENDING: usize = 8;
/// Most changes of a node's stake that may wait in the queue.
pub const MAX_QUEUED: u8 = 4;
/// Ended attachments that a node's record remembers.
const MAX_PAST: usize = 16;

/// Stake that changes its standing at a time.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Tranche {
    amount: Yocto,
    /// Block time, milliseconds.
    at_ms: u64,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct NodeRecord {
    pub account: AccountId,
    pub key: NodeKey,
    /// Stake that weighs.
    active: Yocto,
    /// Stake that will weigh, in order of time. Each has its entry in the order of all nodes' stake, so
    /// it stays until its time even when nothing of it is left: entries that are stored are as few.
    maturing: Vec<Tranche>,
    /// Withdrawn stake that is still chargeable, in order of time.
    unstaking: Vec<Tranche>,
    /// Half a penalty for each channel whose bonds are not released.
    locked: Yocto,
    pub withdrawable: Yocto,
    pub attached_since_ms: Option<u64>,
    pub later: Later,
}

/// Bytes of [`Later`] at its beginning, all zero.
const LATER: usize = 51;

/// What state version 2 added.
#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
pub struct Later {
    /// Channels with a record that needs this node: own proposals, confirmed ones of either side.
    pub channels: u32,
    /// Stake that the queue will add and withdraw.
    pub arriving: Yocto,
    pub leaving: Yocto,
    /// How many changes of stake wait in the queue.
    pub queued: u8,
    /// A ping waits in the queue.
    pub pinging: bool,
    pub slashed_ms: Option<u64>,
    /// Ended attachments, oldest first: block times of begin and end.
    pub past: Vec<(u64, u64)>,
    /// End of the last attachment that was forgotten.
    pub forgotten_ms: u64,
}

fn sum(tranches: &[Tranche]) -> Yocto {
    Yocto::checked_sum(tranches.iter().map(|tranche| tranche.amount)).or_stop()
}

/// Takes what is due at `now_ms` off the front.
fn take_due(tranches: &mut Vec<Tranche>, now_ms: u64) -> Yocto {
    let due = tranches.iter().take_while(|tranche| tranche.at_ms <= now_ms).count();
    let amount = sum(&tranches[..due]);
    tranches.drain(..due);
    amount
}

/// Adds at the end; true if that made one more.
fn push(tranches: &mut Vec<Tranche>, amount: Yocto, at_ms: u64) -> bool {
    // Parameters may shorten a delay; the order of time stays.
    let at_ms = tranches.last().map_or(at_ms, |last| last.at_ms.max(at_ms));
    let joined = tranches.last_mut().filter(|last| last.at_ms == at_ms);
    let more = joined.is_none();
    match joined {
        Some(last) => last.amount = last.amount.checked_add(amount).or_stop(),
        None => tranches.push(Tranche { amount, at_ms }),
    }
    more
}

/// Stops when too many tranches wait to add one that is due at `at_ms`.
fn require_room(tranches: &[Tranche], at_ms: u64) {
    let joins = tranches.last().is_some_and(|last| last.at_ms >= at_ms);
    require!(
        joins || tranches.len() < MAX_PENDING,
        code::TOO_MANY_PENDING,
        "{MAX_PENDING} changes of stake are waiting; try again at {} ms",
        tranches[0].at_ms
    );
}

/// Takes up to `left` out of tranches, youngest first; those that are emptied stay.
fn take_youngest(tranches: &mut [Tranche], left: &mut Yocto) {
    for tranche in tranches.iter_mut().rev() {
        let taken = tranche.amount.min(*left);
        tranche.amount = tranche.amount.checked_sub(taken).or_stop();
        *left = left.checked_sub(taken).or_stop();
    }
}

impl NodeRecord {
    pub fn new(account: AccountId, key: NodeKey) -> NodeRecord {
        NodeRecord {
            account,
            key,
            active: Yocto::ZERO,
            maturing: Vec::new(),
            unstaking: Vec::new(),
            locked: Yocto::ZERO,
            withdrawable: Yocto::ZERO,
            attached_since_ms: None,
            later: Later::default(),
        }
    }

    /// Stake that has not been withdrawn, active or not.
    pub fn stake(&self) -> Yocto {
        self.active.checked_add(sum(&self.maturing)).or_stop()
    }

    /// Stake as its owner may use it: with the changes that wait.
    pub fn usable_stake(&self) -> Yocto {
        let stake = self.stake().checked_add(self.later.arriving).or_stop();
        stake.saturating_sub(self.later.leaving)
    }

    pub fn unstaking(&self) -> Yocto {
        sum(&self.unstaking).checked_add(self.later.leaving).or_stop()
    }

    /// Active stake if attached.
    pub fn weight(&self) -> Option<Yocto> {
        self.attached_since_ms.map(|_| self.active)
    }

    /// All stake that a reimbursement or slash may take at `clock_ms`.
    pub fn chargeable(&self, clock_ms: u64) -> Yocto {
        let held = self.unstaking.partition_point(|tranche| tranche.at_ms <= clock_ms);
        self.stake().checked_add(sum(&self.unstaking[held..])).or_stop()
    }

    /// Nothing of value, and nothing that waits, is in this record.
    pub fn is_unused(&self) -> bool {
        let money = [self.stake(), self.unstaking(), self.later.arriving, self.locked, self.withdrawable];
        let waits = self.later.queued > 0 || self.later.pinging;
        money.into_iter().all(Yocto::is_zero) && self.later.channels == 0 && !waits
    }

    /// Takes `amount`, which is chargeable: withdrawn stake first, then maturing, then active.
    pub fn charge(&mut self, amount: Yocto) {
        let mut left = amount;
        take_youngest(&mut self.unstaking, &mut left);
        self.unstaking.retain(|tranche| !tranche.amount.is_zero());
        take_youngest(&mut self.maturing, &mut left);
        self.active = self.active.checked_sub(left).or_stop();
    }

    /// Ends the attachment at `at_ms`.
    pub fn detach(&mut self, at_ms: u64) {
        let Some(since) = self.attached_since_ms.take() else { return };
        if self.later.past.len() == MAX_PAST {
            self.later.forgotten_ms = self.later.past.remove(0).1;
        }
        self.later.past.push((since, at_ms));
    }

    /// Milliseconds of `from..to` in which the node was attached, `now` being the present.
    pub fn attached_within(&self, from: u64, to: u64, now: u64) -> u64 {
        let current = self.attached_since_ms.map(|since| (since, now));
        let forgotten = (0, self.later.forgotten_ms);
        let all = self.later.past.iter().copied().chain(current).chain([forgotten]);
        all.map(|(since, until)| until.min(to).saturating_sub(since.max(from))).sum()
    }

    /// Lets time pass: stake becomes active, withdrawn stake becomes withdrawable.
    pub fn advance(&mut self, books: &mut Books, now_ms: u64) {
        let matured = take_due(&mut self.maturing, now_ms);
        self.active = self.active.checked_add(matured).or_stop();
        let released = take_due(&mut self.unstaking, now_ms);
        books.transfer(Part::Stakes, Part::Withdrawable, released);
        self.withdrawable = self.withdrawable.checked_add(released).or_stop();
    }

    /// Adds stake; true if none of this node's waited for that time yet.
    pub fn add_stake(&mut self, amount: Yocto, active_at_ms: u64) -> bool {
        push(&mut self.maturing, amount, active_at_ms)
    }

    /// Stops unless stake that is active at `active_at_ms` may be added.
    pub fn require_stakeable(&self, active_at_ms: u64) {
        require_room(&self.maturing, active_at_ms);
    }

    /// Stops unless `amount` may be withdrawn.
    pub fn require_unstakeable(&self, amount: Yocto, release_ms: u64, params: &StoredParams) {
        let stake = self.usable_stake();
        require!(
            stake >= amount,
            code::STAKE_TOO_LOW,
            "the stake is {stake}, which is less than {amount}; ask for less"
        );
        let floor = if self.locked.is_zero() { Yocto::ZERO } else { self.locked.max(params.min_stake) };
        require!(
            stake.checked_sub(amount).or_stop() >= floor,
            code::STAKE_LOCKED,
            "of the stake of {stake}, {floor} must stay until channels are closed and released"
        );
        require_room(&self.unstaking, release_ms);
    }

    /// Withdraws stake, or what is left of it: it weighs nothing from now on and is released at
    /// `release_ms`. The youngest stake goes first.
    pub fn unstake(&mut self, amount: Yocto, release_ms: u64) {
        let amount = amount.min(self.stake());
        let mut left = amount;
        take_youngest(&mut self.maturing, &mut left);
        self.active = self.active.checked_sub(left).or_stop();
        if !amount.is_zero() {
            push(&mut self.unstaking, amount, release_ms);
        }
    }

    /// Locks stake for one more channel.
    pub fn lock(&mut self, amount: Yocto, params: &StoredParams) {
        let locked = self.locked.checked_add(amount).or_stop();
        let floor = locked.max(params.min_stake);
        let stake = self.usable_stake();
        require!(
            stake >= floor,
            code::STAKE_TOO_LOW,
            "the stake is {stake}; this channel needs {floor} at stake, so stake more"
        );
        self.locked = locked;
    }

    pub fn unlock(&mut self, amount: Yocto) {
        self.locked = self.locked.checked_sub(amount).or_stop();
    }

    /// Credits what the books already count as withdrawable.
    pub fn credit(&mut self, amount: Yocto) {
        self.withdrawable = self.withdrawable.checked_add(amount).or_stop();
    }

    pub fn view(&self, index: u32, now_ms: u64) -> NodeView {
        let not_due = |tranches: &[Tranche]| {
            sum(&tranches[tranches.partition_point(|tranche| tranche.at_ms <= now_ms)..])
        };
        let maturing = not_due(&self.maturing);
        NodeView {
            index,
            account: self.account.clone(),
            node_key: self.key,
            stake: self.usable_stake(),
            active_stake: self.stake().checked_sub(maturing).or_stop(),
            locked: self.locked,
            unstaking: not_due(&self.unstaking).checked_add(self.later.leaving).or_stop(),
            attached: self.attached_since_ms.is_some(),
            attached_since_ms: self.attached_since_ms,
        }
    }

    /// What a withdrawal at `now_ms` could take.
    pub fn withdrawable_at(&self, now_ms: u64) -> Yocto {
        let due = self.unstaking.partition_point(|tranche| tranche.at_ms <= now_ms);
        self.withdrawable.checked_add(sum(&self.unstaking[..due])).or_stop()
    }
}

impl Contract {
    pub(crate) fn node_index(account: &AccountId) -> Option<u32> {
        store::read(Table::Accounts, account.as_bytes())
    }

    pub(crate) fn node_index_by_key(key: &NodeKey) -> Option<u32> {
        store::read(Table::Keys, &key.0)
    }

    /// The index of the caller's node; stops if it has none.
    pub(crate) fn caller_index(caller: &AccountId) -> u32 {
        match Self::node_index(caller) {
            Some(index) => index,
            None => fail!(code::NOT_REGISTERED, "{caller} has no node; register one first"),
        }
    }

    pub(crate) fn load_node(index: u32) -> NodeRecord {
        match Self::try_node(index) {
            Some(node) => node,
            None => fail!(code::NOT_REGISTERED, "there is no node {index}"),
        }
    }

    pub(crate) fn try_node(index: u32) -> Option<NodeRecord> {
        store::read_grown(Table::Nodes, &index.to_le_bytes(), LATER)
    }

    pub(crate) fn save_node(index: u32, node: &NodeRecord) {
        store::write(Table::Nodes, &index.to_le_bytes(), node);
    }

    /// Changes one node's record, after letting time pass for it up to the clock.
    pub(crate) fn with_node(&mut self, index: u32, change: impl FnOnce(&mut NodeRecord, &mut Books)) {
        let mut weights = Weights::default();
        self.with_weighed_node(&mut weights, index, change);
        weights.save();
    }

    /// As [`Contract::with_node`], for many nodes.
    pub(crate) fn with_weighed_node(
        &mut self,
        weights: &mut Weights,
        index: u32,
        change: impl FnOnce(&mut NodeRecord, &mut Books),
    ) {
        let mut node = Self::load_node(index);
        let before = node.weight();
        let clock_ms = self.clock_ms();
        node.advance(&mut self.books, clock_ms);
        change(&mut node, &mut self.books);
        self.reweigh(weights, index, before, node.weight());
        Self::save_node(index, &node);
    }
}
