//! Some nodes end what they have and go, while the others carry on; others come in their place.

use por_types::interface::*;
use por_types::{AccountId, ChannelId, CooperativeClose, SeverOrder, SeverReason, Totals, Yocto};
use rand::Rng;
use rand::rngs::StdRng;

use super::{MAX_NAMES, Sequence, new_args};
use crate::compare::Checked;
use crate::host::Host;
use crate::model::{Call, Channel, Model};
use crate::vm::{account, secret, terms};

/// Calls of nodes that go, and of others in between.
const STEPS: usize = 60;
/// Nodes that go.
const LEAVING: usize = 3;

impl Model {
    /// Channels that keep a node from leaving: its own proposals, and all that were ever open.
    fn channels_of(&self, node: usize) -> Vec<ChannelId> {
        self.channels.iter().filter(|(_, channel)| channel.binds(node)).map(|(id, _)| *id).collect()
    }
}

impl<H: Host> Sequence<H> {
    pub(super) fn departures(&mut self) -> Checked<()> {
        if self.chance(60) {
            self.close_some()?;
            self.shorten_windows()?;
        }
        let leaving = self.leaving();
        for _ in 0..STEPS {
            match self.rng.random_range(0..100) {
                0..12 => self.step()?,
                12..24 => self.late_order()?,
                24..40 if !self.model().waiting.is_empty() => self.continue_checks()?,
                _ => {
                    let who = leaving[self.rng.random_range(0..leaving.len())].clone();
                    self.towards_exit(&who)?
                }
            };
        }
        Ok(())
    }

    /// Those with few channels are through first.
    fn leaving(&self) -> Vec<AccountId> {
        let mut leaving: Vec<AccountId> = self.names.clone();
        leaving.sort_by_key(|name| {
            let node = self.model().index_of(name);
            node.map_or(usize::MAX, |node| self.model().channels_of(node).len())
        });
        leaving.truncate(LEAVING);
        leaving
    }

    /// Nodes go and new accounts get their indices, while checks, proposals and orders from before
    /// are pending.
    pub(super) fn successions(&mut self) -> Checked<()> {
        self.exact = true;
        let mut leaving = self.leaving();
        if self.chance(60) {
            self.succeed_in_a_cut(&mut leaving)?;
        } else {
            self.close_some()?;
            self.shorten_windows()?;
        }
        for _ in 0..2 * STEPS {
            match self.rng.random_range(0..100) {
                0..10 => self.step()?,
                10..22 => self.late_order()?,
                22..30 => {
                    let (from, to) = (self.node(), self.rng.random_range(0..leaving.len()));
                    let to = self.names.iter().position(|name| *name == leaving[to]).unwrap_or_default();
                    self.propose(from, to)?
                }
                30..40 if !self.model().waiting.is_empty() => self.continue_checks()?,
                40..50 => self.succeed(&mut leaving)?,
                _ => {
                    let who = leaving[self.rng.random_range(0..leaving.len())].clone();
                    self.towards_exit(&who)?
                }
            };
        }
        Ok(())
    }

    /// A chain of new nodes is cut off by a cooperative close, the last of it leaves and another gets
    /// its index; then comes an order for the close.
    fn succeed_in_a_cut(&mut self, leaving: &mut Vec<AccountId>) -> Checked<()> {
        self.set_windows(|rng| [rng.random_range(2_000..4_000), 5_000, 50])?;
        let (first, mut to) = (self.names.len(), self.node());
        let channel = ChannelId(self.model().proposed);
        for _ in 0..3 {
            let index = self.new_name();
            if !(self.register(index)? && self.open(to, index)?) {
                return Ok(());
            }
            self.ping(index, to)?;
            to = index;
        }
        let status = self.model().channels.get(&channel).map(|channel| channel.status.clone());
        if status != Some(ChannelStatus::Open) || !self.close_honestly(channel)? {
            return Ok(());
        }
        self.wait_until(self.now_ms() + self.model().params.notice_ms);
        let (witness, who, attached) = (self.witness(channel), self.anybody(), self.pair.check_deposit());
        self.call(&who, &Call::Finalize(FinalizeArgs { channel, witness }), attached)?;
        self.shorten_windows()?;
        let last = self.names[to].clone();
        for _ in 0..30 {
            if self.model().index_of(&last).is_none() {
                break;
            }
            let waits = !self.model().waiting.is_empty();
            let _ =
                if waits && self.chance(50) { self.continue_checks()? } else { self.towards_exit(&last)? };
        }
        self.wait_until(self.now_ms() + 1);
        self.succeed(leaving)?;
        leaving.extend([self.names[first + 1].clone(), last]);
        let end = self.rng.random_range(0..2);
        let end = self.ends(channel)[end];
        self.order(channel, end)?;
        Ok(())
    }

    /// A further account, without a node.
    fn new_name(&mut self) -> usize {
        let name = account(&format!("n{}.test", self.names.len()));
        self.secrets.push(secret(name.as_str()));
        self.names.push(name);
        self.names.len() - 1
    }

    /// Somebody new registers where an index is free, confirms what was proposed to the node that had
    /// it, and opens a channel. Later it may leave like those before.
    fn succeed(&mut self, leaving: &mut Vec<AccountId>) -> Checked<bool> {
        if self.model().vacant.is_empty() || self.names.len() >= MAX_NAMES {
            return self.step();
        }
        let (index, gone) = (self.new_name(), self.model().vacant[0].0);
        let name = self.names[index].clone();
        if !self.register(index)? {
            return Ok(false);
        }
        leaving.push(name.clone());
        let meant = |channel: &Channel| {
            let node = &self.model().nodes[channel.ends[1]];
            channel.status == ChannelStatus::Proposed && node.gone && node.index == gone
        };
        let proposals = self.model().channels.iter().filter(|(_, channel)| meant(channel));
        let proposals: Vec<(ChannelId, u128)> = proposals.map(|(id, channel)| (*id, channel.bond)).collect();
        for (channel, bond) in proposals {
            let args = ConfirmChannelArgs { channel, terms: terms(), deposit: Yocto::ZERO };
            self.call(&name, &Call::Confirm(args), bond)?;
        }
        let other = self.node();
        Ok(self.open(other, index)? && self.ping(index, other)?)
    }

    /// Cooperatively, so that orders for these channels may come late.
    fn close_some(&mut self) -> Checked<()> {
        let mut closing = Vec::new();
        for _ in 0..3 {
            let id = self.channel(|status| *status == ChannelStatus::Open);
            let status = self.model().channels.get(&id).map(|channel| &channel.status);
            if status == Some(&ChannelStatus::Open) && self.close_honestly(id)? {
                closing.push(id);
            }
        }
        self.wait_until(self.now_ms() + self.model().params.notice_ms);
        for channel in closing {
            let (witness, who, attached) = (self.witness(channel), self.anybody(), self.pair.check_deposit());
            self.call(&who, &Call::Finalize(FinalizeArgs { channel, witness }), attached)?;
        }
        Ok(())
    }

    /// What closes from now on is over before some of what has closed already.
    fn shorten_windows(&mut self) -> Checked<bool> {
        self.set_windows(|rng| [rng.random_range(1..200), rng.random_range(1..400), rng.random_range(1..50)])
    }

    /// Challenge, reimbursement and notice, milliseconds.
    fn set_windows(&mut self, windows: impl FnOnce(&mut StdRng) -> [u64; 3]) -> Checked<bool> {
        let unit = self.unit;
        let mut params = new_args(&mut self.rng, unit).params;
        [params.challenge_ms, params.reimbursement_ms, params.notice_ms] = windows(&mut self.rng);
        let owner = self.model().owner.clone();
        let announced = self.call(&owner, &Call::SetParams(SetParamsArgs { params }), 0)?;
        self.wait_until(self.now_ms() + self.model().params.notice_ms);
        Ok(announced)
    }

    /// For a channel that was closed cooperatively and whose bonds are held.
    fn late_order(&mut self) -> Checked<bool> {
        let now_ms = self.now_ms();
        let channel = self.channel(|status| {
            matches!(status, ChannelStatus::Closed { severed: false, bonds_until_ms: Some(until_ms), .. }
                if now_ms < *until_ms)
        });
        let end = self.rng.random_range(0..2);
        let end = self.ends(channel)[end];
        self.order(channel, end)
    }

    /// By an end's account.
    fn order(&mut self, channel: ChannelId, end: usize) -> Checked<bool> {
        let end = if self.exact { end } else { self.name_of_node(end).unwrap_or(end) };
        let signer = self.secrets[end].public();
        let statement = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
        let network = self.model().network();
        let order = self.secrets[end].sign(&network, statement);
        let (witness, who, attached) = (self.witness(channel), self.anybody(), self.prepaid());
        self.call(&who, &Call::Sever(SeverArgs { order, witness }), attached)
    }

    fn towards_exit(&mut self, who: &AccountId) -> Checked<bool> {
        let Some(node) = self.model().index_of(who) else { return self.after_exit(who) };
        let channels = self.model().channels_of(node);
        if !channels.is_empty() {
            let id = channels[self.rng.random_range(0..channels.len())];
            return self.end_channel(who, node, id);
        }
        let stake = self.model().stake_seen(node);
        if stake > 0 {
            return self.call(who, &Call::Unstake(UnstakeArgs { amount: Yocto(stake) }), 0);
        }
        let due_ms = self.model().nodes[node].withdrawing.last().map(|due| due.at_ms);
        self.wait_until(due_ms.unwrap_or_default());
        if self.model().owed(who) > 0 || self.pair.is_closer(who) {
            return self.call(who, &Call::Withdraw(WithdrawArgs { amount: None }), 0);
        }
        self.call(who, &Call::Unregister, 0)
    }

    /// It takes its storage deposit, or comes back.
    fn after_exit(&mut self, who: &AccountId) -> Checked<bool> {
        if self.model().owed(who) > 0 && self.chance(50) {
            return self.call(who, &Call::Withdraw(WithdrawArgs { amount: None }), 0);
        }
        let index = self.names.iter().position(|name| name == who).unwrap_or_default();
        if self.chance(30) { self.register(index) } else { self.step() }
    }

    fn end_channel(&mut self, who: &AccountId, node: usize, id: ChannelId) -> Checked<bool> {
        let args = ChannelArgs { channel: id };
        match self.model().channels[&id].status.clone() {
            ChannelStatus::Proposed => return self.call(who, &Call::Cancel(args), 0),
            ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. } => {
                if self.chance(70) {
                    return self.close_honestly(id);
                }
                let end = if self.exact { self.name_of(node) } else { node };
                return self.order(id, end);
            }
            ChannelStatus::Cancelled | ChannelStatus::Closed { bonds_until_ms: None, .. } => {
                return self.call(who, &Call::Forget(args), 0);
            }
            ChannelStatus::Closing { closes_ms, .. } => self.wait_until(closes_ms),
            ChannelStatus::Severed { settles_ms, .. } => self.wait_until(settles_ms),
            ChannelStatus::Closed { bonds_until_ms: Some(until_ms), .. } => self.wait_until(until_ms),
        }
        let (witness, who, attached) = (self.witness(id), self.anybody(), self.prepaid());
        self.call(&who, &Call::Finalize(FinalizeArgs { channel: id, witness }), attached)
    }

    fn close_honestly(&mut self, channel: ChannelId) -> Checked<bool> {
        let record = &self.model().channels[&channel];
        let [sent_a, sent_b] = record.totals.map(Yocto);
        let sequence = record.sequence + 1;
        let accounts = record.ends.map(|end| self.model().nodes[end].account.clone());
        let expires_ms = self.now_ms() + self.pair.vm.delay_ms();
        let close = CooperativeClose { channel, sequence, expires_ms, totals: Totals { sent_a, sent_b } };
        let network = self.model().network();
        let [signature_a, signature_b] = accounts.map(|account| {
            let at = self.names.iter().position(|name| *name == account).unwrap_or_default();
            self.secrets[at].sign(&network, close.clone()).signature
        });
        let who = self.anybody();
        self.call(&who, &Call::CloseSigned(CloseSignedArgs { close, signature_a, signature_b }), 0)
    }
}
