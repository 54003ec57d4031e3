//! Stake, withdrawable money and settlement.

use num_bigint::{BigInt, BigUint};
use por_types::interface::ChannelStatus;
use por_types::{AccountId, ChannelId};

use super::{Channel, Due, Model, Node, Op, PURSE_STORAGE};

/// `floor(x * part / whole)`.
pub fn share(x: u128, part: u128, whole: u128) -> u128 {
    let exact = BigUint::from(x) * BigUint::from(part) / BigUint::from(whole);
    u128::try_from(exact).expect("a share is not more than the whole")
}

impl Node {
    pub fn staked(&self) -> u128 {
        self.active + self.maturing.iter().map(|due| due.amount).sum::<u128>()
    }

    pub fn withdrawing_sum(&self) -> u128 {
        self.withdrawing.iter().map(|due| due.amount).sum()
    }

    /// All stake, active or not, locked or withdrawing.
    pub fn chargeable(&self) -> u128 {
        self.staked() + self.withdrawing_sum()
    }

    /// Takes as much of `amount` as there is: withdrawn stake first, then maturing, the youngest
    /// first, then active. Answers what it took.
    pub fn charge(&mut self, amount: u128) -> u128 {
        let mut left = amount;
        take_youngest(&mut self.withdrawing, &mut left);
        self.withdrawing.retain(|due| due.amount > 0);
        take_youngest(&mut self.maturing, &mut left);
        let last = left.min(self.active);
        self.active -= last;
        amount - (left - last)
    }

    /// Moves stake to what is being withdrawn: maturing first, the youngest first, then active.
    pub fn unstake(&mut self, amount: u128, due_ms: u64) {
        let amount = amount.min(self.staked());
        let mut left = amount;
        take_youngest(&mut self.maturing, &mut left);
        self.active -= left;
        if amount > 0 {
            let earlier = self.withdrawing.last().map_or(0, |due| due.at_ms);
            self.withdrawing.push(Due { at_ms: due_ms.max(earlier), amount });
        }
    }

    fn age(&mut self, clock_ms: u64) {
        let due = |list: &mut Vec<Due>| {
            let (over, rest): (Vec<Due>, Vec<Due>) = list.iter().partition(|due| due.at_ms <= clock_ms);
            *list = rest;
            over.iter().map(|due| due.amount).sum::<u128>()
        };
        self.active += due(&mut self.maturing);
        self.owed += due(&mut self.withdrawing);
    }
}

/// What is emptied stays: of deposits that wait, so many as were made count towards how many may.
fn take_youngest(list: &mut [Due], left: &mut u128) {
    for due in list.iter_mut().rev() {
        let taken = (*left).min(due.amount);
        due.amount -= taken;
        *left -= taken;
    }
}

impl Channel {
    pub fn pot(&self) -> u128 {
        self.deposits[0] + self.deposits[1] - self.drawn[0] - self.drawn[1]
    }

    /// `deposit - drawn - sent + received` of a side.
    pub fn balance(&self, side: usize, totals: [u128; 2]) -> BigInt {
        BigInt::from(self.deposits[side]) - BigInt::from(self.drawn[side]) - BigInt::from(totals[side])
            + BigInt::from(totals[1 - side])
    }

    pub fn covers(&self, totals: [u128; 2]) -> bool {
        (0..2).all(|side| self.balance(side, totals) >= BigInt::ZERO)
    }

    /// Protocol section 3: what settlement pays each side.
    pub fn payout(&self) -> [u128; 2] {
        let pot = self.pot();
        let a = self.balance(0, self.totals).clamp(BigInt::ZERO, BigInt::from(pot));
        let a = u128::try_from(a).expect("clamped to the pot");
        [a, pot - a]
    }

    /// Whether a node is an end that has agreed to it.
    pub fn binds(&self, node: usize) -> bool {
        let confirmed = !matches!(self.status, ChannelStatus::Proposed | ChannelStatus::Cancelled);
        self.ends[0] == node || confirmed && self.ends[1] == node
    }

    pub fn holds_pot(&self) -> bool {
        !matches!(self.status, ChannelStatus::Closed { .. } | ChannelStatus::Cancelled)
    }

    /// How many of the two bonds (and locks of stake) are held, and whether they are forfeited.
    pub fn bonds(&self) -> (u128, bool) {
        match self.status {
            ChannelStatus::Proposed => (1, false),
            ChannelStatus::Open | ChannelStatus::Closing { .. } => (2, false),
            ChannelStatus::Severed { .. } => (2, true),
            ChannelStatus::Closed { bonds_until_ms: Some(_), severed, .. } => (2, severed),
            ChannelStatus::Closed { .. } | ChannelStatus::Cancelled => (0, false),
        }
    }
}

impl Model {
    pub fn age(&mut self, clock_ms: u64) {
        for node in &mut self.nodes {
            node.age(clock_ms);
        }
    }

    /// Changes of a node's stake that wait: what arrives, and what leaves as asked for.
    pub fn waiting_sums(&self, of: usize) -> (u128, u128) {
        self.waiting.iter().fold((0, 0), |(arriving, leaving), (_, op)| match op {
            Op::Stake { node, amount, .. } if *node == of => (arriving + amount, leaving),
            Op::Unstake { node, amount, .. } if *node == of => (arriving, leaving + amount),
            _ => (arriving, leaving),
        })
    }

    /// Stake of a node with what waits, as the caller sees and may use it: never more than there
    /// will be, less if a withdrawal that waits takes effect on what a check has left.
    pub fn stake_seen(&self, of: usize) -> u128 {
        let (arriving, leaving) = self.waiting_sums(of);
        (self.nodes[of].staked() + arriving).saturating_sub(leaving)
    }

    /// What channels lock of a node's stake.
    pub fn locked(&self, node: usize) -> u128 {
        let lock = |channel: &Channel| match channel.bonds().0 {
            2 if channel.ends.contains(&node) => channel.bond,
            1 if channel.ends[0] == node => channel.bond,
            _ => 0,
        };
        self.channels.values().map(lock).sum()
    }

    /// To a node, or to the purse of an account without one.
    pub fn credit(&mut self, account: &AccountId, amount: u128) {
        if let Some(node) = self.index_of(account) {
            self.nodes[node].owed += amount;
        } else if let Some(purse) = self.purses.get_mut(account) {
            *purse += amount;
        } else if amount > PURSE_STORAGE {
            self.purses.insert(account.clone(), amount);
        } else {
            self.treasury += amount;
        }
    }

    /// What `withdraw` could take.
    pub fn owed(&self, account: &AccountId) -> u128 {
        let node = self.index_of(account).map_or(0, |node| self.nodes[node].owed);
        let treasury = if *account == self.treasury_account { self.treasury } else { 0 };
        node + treasury + self.purses.get(account).copied().unwrap_or_default()
    }

    /// Out of the node first, then the purse, then the treasury. The storage of a purse goes with
    /// the last of it, if the amount reaches that far. Answers whether there was enough.
    pub fn pay_out(&mut self, account: &AccountId, amount: u128) -> bool {
        let mut left = amount;
        let mut take = |from: &mut u128, most: u128| {
            let taken = left.min(most);
            *from -= taken;
            left -= taken;
            left
        };
        if let Some(node) = self.index_of(account) {
            let owed = &mut self.nodes[node].owed;
            take(owed, *owed);
        }
        if let Some(purse) = self.purses.get_mut(account) {
            let rest = take(purse, *purse - PURSE_STORAGE);
            if *purse == PURSE_STORAGE && rest >= PURSE_STORAGE {
                take(purse, PURSE_STORAGE);
                self.purses.remove(account);
            }
        }
        if *account == self.treasury_account {
            let treasury = &mut self.treasury;
            take(treasury, *treasury);
        }
        left == 0
    }

    pub fn settle(&mut self, id: ChannelId) -> [u128; 2] {
        let channel = &self.channels[&id];
        let (ends, paid) = (channel.ends, channel.payout());
        for side in 0..2 {
            self.nodes[ends[side]].owed += paid[side];
        }
        paid
    }
}
