//! What each call needs and does.

use por_types::interface::*;
use por_types::{
    AccountId, ChannelId, DalekVerify, Network, NodeKey, RegistrationProof, Side, Signature, Signed,
    Statement, Yocto,
};

use super::calls::{Call, NO_DEPOSIT};
use super::{Channel, Found, Model, Node, Op, State, Then};

/// Why a call must be refused: every reason that holds.
pub(super) type Refused = Vec<&'static str>;
pub(super) type Outcome = Result<(), Refused>;

#[derive(Default)]
pub(super) struct Faults(Refused);

impl Faults {
    pub(super) fn need(&mut self, holds: bool, code: &'static str) -> &mut Self {
        if !holds {
            self.0.push(code);
        }
        self
    }

    pub(super) fn take(&mut self) -> Outcome {
        std::mem::take(self).done()
    }

    pub(super) fn done(self) -> Outcome {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

fn signed<T: Statement + Clone>(
    network: &Network,
    key: &NodeKey,
    statement: &T,
    signature: Signature,
) -> bool {
    Signed { statement: statement.clone(), signature }.verify(network, key, &DalekVerify)
}

fn side_index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

fn pair(totals: por_types::Totals) -> [u128; 2] {
    [totals.sent_a.0, totals.sent_b.0]
}

impl Channel {
    /// Open, also while a request to close waits for the other side.
    fn is_open(&self) -> bool {
        matches!(self.status, ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. })
    }

    fn side_of(&self, node: Option<usize>) -> Option<usize> {
        self.ends.iter().position(|end| Some(*end) == node)
    }
}

/// A two-signature act on an open channel.
struct Act {
    channel: ChannelId,
    sequence: u64,
    expires_ms: u64,
    totals: [u128; 2],
}

impl Model {
    pub fn network(&self) -> Network {
        Network { chain_id: self.chain_id.clone(), contract: self.contract.clone() }
    }

    /// What the contract must do with a call: refuse it for one of the reasons, or accept it. If it
    /// accepts, money and channels change here, and what has an order is appended to it.
    pub fn call(&mut self, who: &AccountId, call: &Call, attached: u128) -> Outcome {
        let takes_deposit = matches!(
            call,
            Call::Register(_)
                | Call::Stake
                | Call::Propose(_)
                | Call::Confirm(_)
                | Call::TopUp(_)
                | Call::Sever(_)
                | Call::Finalize(_)
        );
        if attached > 0 && !takes_deposit {
            return Err(vec![NO_DEPOSIT]);
        }
        match call {
            Call::Register(args) => self.register(who, args, attached),
            Call::Stake => self.stake(who, attached),
            Call::Unstake(args) => self.unstake(who, args.amount.0),
            Call::Propose(args) => self.propose(who, args, attached),
            Call::Confirm(args) => self.confirm(who, args, attached),
            Call::Cancel(args) => self.cancel(who, args.channel),
            Call::TopUp(args) => self.top_up(who, args.channel, attached),
            Call::RequestClose(args) => self.request_close(who, args),
            Call::ConfirmClose(args) => self.confirm_close(who, args),
            Call::CloseSigned(args) => self.close_signed(args),
            Call::SubmitState(args) => self.submit_state(args),
            Call::Sever(args) => self.sever(who, args),
            Call::Finalize(args) => self.finalize(who, args.channel),
            Call::Forget(args) => self.forget(args.channel),
            Call::Withdraw(args) => self.withdraw(who, args.amount.map(|amount| amount.0)),
            Call::Unregister => self.unregister(who),
            Call::Draw(args) => self.draw(args),
            Call::ReplaceTerms(args) => self.replace_terms(args),
            Call::Ping(args) => self.ping(who, &args.through),
            Call::Check(_) => {
                if self.waiting.is_empty() {
                    Err(vec![code::NO_CHECK])
                } else {
                    Ok(())
                }
            }
            Call::SetParams(_)
            | Call::SetOwner(_)
            | Call::SetTreasury(_)
            | Call::AnnounceUpgrade(_)
            | Call::CancelUpgrade => self.govern(who, call),
        }
    }

    fn then(&self) -> Then {
        Then { slash_bps: self.params.slash_bps, window_ms: self.params.reimbursement_ms }
    }

    fn enqueue(&mut self, op: Op) {
        self.waiting.push_back((self.now_ms, op));
    }

    pub(super) fn node(&self, who: &AccountId) -> Result<usize, Refused> {
        self.index_of(who).ok_or(vec![code::NOT_REGISTERED])
    }

    fn channel(&self, id: ChannelId) -> Result<&Channel, Refused> {
        self.channels.get(&id).ok_or(vec![code::NO_CHANNEL])
    }

    /// A node may leave a channel that never opened.
    fn both_here(&self, channel: &Channel) -> bool {
        channel.ends.iter().all(|end| !self.nodes[*end].gone)
    }

    fn status(&mut self, id: ChannelId, status: ChannelStatus) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.status = status;
        }
    }

    fn register(&mut self, who: &AccountId, args: &RegisterArgs, attached: u128) -> Outcome {
        let statement = RegistrationProof { account: who.clone(), node_key: args.node_key };
        let mut faults = Faults::default();
        faults
            .need(self.index_of(who).is_none(), code::ACCOUNT_TAKEN)
            .need(self.nodes.iter().all(|node| node.gone || node.key != args.node_key), code::KEY_TAKEN)
            .need(!args.node_key.is_weak(), code::WEAK_KEY)
            .need(attached >= self.register_storage, code::DEPOSIT)
            .need(signed(&self.network(), &args.node_key, &statement, args.proof), code::SIGNATURE);
        faults.done()?;
        let anchor = *who == self.anchor && self.nodes.iter().all(|node| node.account != self.anchor);
        let index = self.next_index();
        self.nodes.push(Node {
            index,
            account: who.clone(),
            key: args.node_key,
            active: 0,
            maturing: Vec::new(),
            withdrawing: Vec::new(),
            owed: 0,
            attached_ms: anchor.then_some(self.now_ms),
            past: Vec::new(),
            slashed_ms: None,
            gone: false,
        });
        self.storage += self.register_storage;
        let node = self.nodes.len() - 1;
        let amount = attached - self.register_storage;
        if amount > 0 {
            self.enqueue(Op::Stake { node, amount, activation_ms: self.params.activation_ms });
        }
        Ok(())
    }

    /// Of those that are free the one that has been for longest, if its node left before the clock's
    /// time; else a new one.
    fn next_index(&mut self) -> u32 {
        let clock_ms = self.clock_ms();
        match self.vacant.front().copied() {
            Some((index, left_ms)) if left_ms < clock_ms => {
                self.note(State::IndexUsedAgain);
                self.vacant.pop_front();
                return index;
            }
            Some(_) => self.note(State::IndexNotFreeYet),
            None => {}
        }
        self.indices += 1;
        self.indices - 1
    }

    fn stake(&mut self, who: &AccountId, attached: u128) -> Outcome {
        let node = self.node(who)?;
        Faults::default().need(attached > 0, code::DEPOSIT).take()?;
        self.enqueue(Op::Stake { node, amount: attached, activation_ms: self.params.activation_ms });
        Ok(())
    }

    fn unstake(&mut self, who: &AccountId, amount: u128) -> Outcome {
        let node = self.node(who)?;
        let (stake, locked) = (self.stake_seen(node), self.locked(node));
        let rest = stake.saturating_sub(amount);
        let floor = if locked > 0 { locked.max(self.params.min_stake.0) } else { 0 };
        Faults::default()
            .need(amount > 0, code::ARGUMENT)
            .need(amount <= stake, code::STAKE_TOO_LOW)
            .need(amount > stake || rest >= floor, code::STAKE_LOCKED)
            .take()?;
        let due_ms = self.now_ms + self.params.reimbursement_ms;
        self.enqueue(Op::Unstake { node, amount, due_ms });
        Ok(())
    }

    fn may_lock(&self, node: usize, bond: u128) -> bool {
        self.stake_seen(node) >= (self.locked(node) + bond).max(self.params.min_stake.0)
    }

    fn propose(&mut self, who: &AccountId, args: &ProposeChannelArgs, attached: u128) -> Outcome {
        let node = self.node(who)?;
        let other = self.node(&args.counterparty)?;
        let bond = self.params.sever_penalty.0 / 2;
        let cost = args.deposit.0.checked_add(bond + self.channel_storage);
        Faults::default()
            .need(node != other, code::SELF_CHANNEL)
            .need(args.terms.validate().is_ok(), code::ARGUMENT)
            .need(cost.is_some(), code::OVERFLOW)
            .need(cost.is_none_or(|cost| attached >= cost), code::DEPOSIT)
            .need(self.may_lock(node, bond), code::STAKE_TOO_LOW)
            .take()?;
        let id = ChannelId(self.proposed);
        self.proposed += 1;
        self.storage += self.channel_storage;
        self.nodes[node].owed += attached - cost.unwrap_or(attached);
        let channel = Channel {
            ends: [node, other],
            deposits: [args.deposit.0, 0],
            drawn: [0, 0],
            bond,
            totals: [0, 0],
            terms: args.terms.clone(),
            sequence: 0,
            status: ChannelStatus::Proposed,
            release_ms: 0,
            found: Found::NotYet,
        };
        self.channels.insert(id, channel);
        Ok(())
    }

    fn confirm(&mut self, who: &AccountId, args: &ConfirmChannelArgs, attached: u128) -> Outcome {
        let node = self.node(who)?;
        let channel = self.channel(args.channel)?;
        let cost = args.deposit.0.checked_add(channel.bond);
        Faults::default()
            .need(channel.ends[1] == node, code::NOT_ALLOWED)
            .need(channel.status == ChannelStatus::Proposed, code::NOT_PROPOSED)
            .need(channel.terms == args.terms, code::TERMS_DIFFER)
            .need(cost.is_some(), code::OVERFLOW)
            .need(cost.is_none_or(|cost| attached >= cost), code::DEPOSIT)
            .need(self.may_lock(node, channel.bond), code::STAKE_TOO_LOW)
            .take()?;
        self.nodes[node].owed += attached - cost.unwrap_or(attached);
        if let Some(channel) = self.channels.get_mut(&args.channel) {
            channel.deposits[1] = args.deposit.0;
            channel.status = ChannelStatus::Open;
        }
        self.enqueue(Op::Edge(args.channel));
        Ok(())
    }

    fn cancel(&mut self, who: &AccountId, id: ChannelId) -> Outcome {
        let node = self.node(who)?;
        let channel = self.channel(id)?;
        Faults::default()
            .need(channel.ends[0] == node, code::NOT_ALLOWED)
            .need(channel.status == ChannelStatus::Proposed, code::NOT_PROPOSED)
            .take()?;
        self.nodes[node].owed += channel.deposits[0] + channel.bond;
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.deposits[0] = 0;
        }
        self.status(id, ChannelStatus::Cancelled);
        Ok(())
    }

    fn top_up(&mut self, who: &AccountId, id: ChannelId, attached: u128) -> Outcome {
        let node = self.node(who)?;
        let channel = self.channel(id)?;
        let side = channel.side_of(Some(node));
        Faults::default()
            .need(side.is_some(), code::NOT_ALLOWED)
            .need(channel.is_open(), code::NOT_OPEN)
            .need(attached > 0, code::DEPOSIT)
            .take()?;
        if let (Some(channel), Some(side)) = (self.channels.get_mut(&id), side) {
            channel.deposits[side] += attached;
        }
        Ok(())
    }

    fn totals_fit(channel: &Channel, totals: [u128; 2], faults: &mut Faults) {
        let proven = (0..2).all(|side| totals[side] >= channel.totals[side]);
        faults.need(proven, code::TOTALS_BELOW_PROVEN).need(channel.covers(totals), code::TOTALS_EXCEED_POT);
    }

    fn request_close(&mut self, who: &AccountId, args: &CloseArgs) -> Outcome {
        let node = self.node(who)?;
        let channel = self.channel(args.channel)?;
        let side = channel.side_of(Some(node));
        let mut faults = Faults::default();
        faults.need(side.is_some(), code::NOT_ALLOWED).need(channel.is_open(), code::NOT_OPEN);
        Self::totals_fit(channel, pair(args.totals), &mut faults);
        faults.done()?;
        let by = if side == Some(0) { Side::A } else { Side::B };
        let totals = args.totals;
        self.status(args.channel, ChannelStatus::Closing { by, totals, confirmed: false, closes_ms: 0 });
        Ok(())
    }

    fn confirm_close(&mut self, who: &AccountId, args: &CloseArgs) -> Outcome {
        let node = self.node(who)?;
        let channel = self.channel(args.channel)?;
        let side = channel.side_of(Some(node));
        let ChannelStatus::Closing { by, totals, confirmed: false, .. } = channel.status else {
            return Err(vec![code::NOT_REQUESTED, code::NOT_OPEN, code::NOT_ALLOWED]);
        };
        let mut faults = Faults::default();
        faults
            .need(side.is_some_and(|side| side != side_index(by)), code::NOT_ALLOWED)
            .need(args.totals == totals, code::TOTALS_DIFFER);
        Self::totals_fit(channel, pair(args.totals), &mut faults);
        faults.done()?;
        self.agree(args.channel, by, args.totals);
        Ok(())
    }

    fn agree(&mut self, id: ChannelId, by: Side, totals: por_types::Totals) {
        let closes_ms = self.now_ms + self.params.notice_ms;
        self.status(id, ChannelStatus::Closing { by, totals, confirmed: true, closes_ms });
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.totals = pair(totals);
        }
    }

    /// What every act with two signatures on an open channel needs.
    fn act<T: Statement + Clone>(
        &self,
        act: &Act,
        statement: &T,
        signatures: [Signature; 2],
    ) -> Result<Faults, Refused> {
        let channel = self.channel(act.channel)?;
        let network = self.network();
        let mut faults = Faults::default();
        for (end, signature) in channel.ends.into_iter().zip(signatures) {
            let holds = signed(&network, &self.nodes[end].key, statement, signature);
            faults.need(holds, code::SIGNATURE);
        }
        faults
            .need(self.both_here(channel), code::NOT_REGISTERED)
            .need(channel.is_open(), code::NOT_OPEN)
            .need(Some(act.sequence) == channel.sequence.checked_add(1), code::SEQUENCE)
            .need(self.now_ms <= act.expires_ms, code::EXPIRED);
        Self::totals_fit(channel, act.totals, &mut faults);
        Ok(faults)
    }

    fn acted(&mut self, act: &Act) {
        if let Some(channel) = self.channels.get_mut(&act.channel) {
            channel.sequence = act.sequence;
            channel.totals = act.totals;
        }
    }

    fn close_signed(&mut self, args: &CloseSignedArgs) -> Outcome {
        let close = &args.close;
        let act = Act {
            channel: close.channel,
            sequence: close.sequence,
            expires_ms: close.expires_ms,
            totals: pair(close.totals),
        };
        self.act(&act, close, [args.signature_a, args.signature_b])?.done()?;
        self.acted(&act);
        self.agree(close.channel, Side::A, close.totals);
        Ok(())
    }

    fn draw(&mut self, args: &DrawArgs) -> Outcome {
        let draw = &args.draw;
        let act = Act {
            channel: draw.channel,
            sequence: draw.sequence,
            expires_ms: draw.expires_ms,
            totals: pair(draw.totals),
        };
        let mut faults = self.act(&act, draw, [args.signature_a, args.signature_b])?;
        let channel = self.channel(draw.channel)?;
        let draws = [draw.draw_a.0, draw.draw_b.0];
        let covered = (0..2).all(|side| channel.balance(side, act.totals) >= draws[side].into());
        faults.need(covered, code::TOTALS_EXCEED_POT);
        faults.done()?;
        let ends = channel.ends;
        self.acted(&act);
        if let Some(channel) = self.channels.get_mut(&draw.channel) {
            for side in 0..2 {
                channel.drawn[side] += draws[side];
                self.nodes[ends[side]].owed += draws[side];
            }
        }
        Ok(())
    }

    fn replace_terms(&mut self, args: &ReplaceTermsArgs) -> Outcome {
        let new = &args.act;
        let act = Act {
            channel: new.channel,
            sequence: new.sequence,
            expires_ms: new.expires_ms,
            totals: pair(new.totals),
        };
        let mut faults = self.act(&act, new, [args.signature_a, args.signature_b])?;
        faults.need(new.terms.validate().is_ok(), code::ARGUMENT);
        faults.done()?;
        self.acted(&act);
        if let Some(channel) = self.channels.get_mut(&new.channel) {
            channel.terms = new.terms.clone();
        }
        Ok(())
    }

    fn submit_state(&mut self, args: &SubmitStateArgs) -> Outcome {
        let statement = &args.state.statement;
        let network = self.network();
        let now_ms = self.now_ms;
        let channel = self.channel(statement.channel)?;
        let (open, in_time) = match channel.status {
            ChannelStatus::Closing { confirmed: true, closes_ms, .. } => (true, now_ms < closes_ms),
            ChannelStatus::Severed { settles_ms, .. } => (true, now_ms < settles_ms),
            _ => (false, true),
        };
        let side = side_index(args.signer);
        let key = self.nodes[channel.ends[side]].key;
        let total = pair(statement.totals)[side];
        Faults::default()
            .need(self.both_here(channel), code::NOT_REGISTERED)
            .need(open, code::NOT_CLOSING)
            .need(in_time, code::WINDOW_OVER)
            .need(signed(&network, &key, statement, args.state.signature), code::SIGNATURE)
            .need(total > channel.totals[side], code::NOTHING_NEW)
            .take()?;
        if let Some(channel) = self.channels.get_mut(&statement.channel) {
            channel.totals[side] = total;
        }
        Ok(())
    }

    fn sever(&mut self, who: &AccountId, args: &SeverArgs) -> Outcome {
        let order = &args.order.statement;
        let channel = self.channel(order.channel)?;
        let by = channel.ends.iter().position(|end| self.nodes[*end].key == order.signer);
        let late = matches!(channel.status, ChannelStatus::Closed { severed: false,
            bonds_until_ms: Some(until_ms), .. } if self.now_ms < until_ms);
        let in_graph = matches!(channel.status, ChannelStatus::Open | ChannelStatus::Closing { .. });
        let holds = args.order.verify(&self.network(), &order.signer, &DalekVerify);
        Faults::default()
            .need(by.is_some(), code::NOT_ALLOWED)
            .need(self.both_here(channel), code::NOT_REGISTERED)
            .need(holds, code::SIGNATURE)
            .need(late || in_graph, code::NOT_SEVERABLE)
            .take()?;
        let (then, now_ms) = (self.then(), self.now_ms);
        let release_ms = now_ms + then.window_ms;
        let settles_ms = now_ms + self.params.challenge_ms;
        let by = if by == Some(0) { Side::A } else { Side::B };
        if let Some(channel) = self.channels.get_mut(&order.channel) {
            channel.release_ms = release_ms;
            match &mut channel.status {
                ChannelStatus::Closed { severed, bonds_until_ms, .. } => {
                    *severed = true;
                    *bonds_until_ms = Some(release_ms);
                }
                status => *status = ChannelStatus::Severed { by, severed_ms: now_ms, settles_ms },
            }
        }
        let (channel, closer) = (order.channel, who.clone());
        self.enqueue(if late {
            Op::Late { channel, closer, then }
        } else {
            Op::Close { channel, severed: true, closer, then }
        });
        Ok(())
    }

    fn finalize(&mut self, who: &AccountId, id: ChannelId) -> Outcome {
        let status = self.channel(id)?.status.clone();
        let now_ms = self.now_ms;
        let early = |until_ms: u64| if now_ms < until_ms { Err(vec![code::TOO_EARLY]) } else { Ok(()) };
        match status {
            ChannelStatus::Closing { confirmed: true, closes_ms, .. } => {
                early(closes_ms)?;
                let [a, b] = self.settle(id);
                self.status(
                    id,
                    ChannelStatus::Closed {
                        paid_a: Yocto(a),
                        paid_b: Yocto(b),
                        bonds_until_ms: Some(now_ms + self.params.challenge_ms),
                        severed: false,
                    },
                );
                let (closer, then) = (who.clone(), self.then());
                self.enqueue(Op::Close { channel: id, severed: false, closer, then });
            }
            ChannelStatus::Severed { settles_ms, .. } => {
                early(settles_ms)?;
                let [a, b] = self.settle(id);
                let bonds_until_ms = Some(self.channels[&id].release_ms);
                let (paid_a, paid_b) = (Yocto(a), Yocto(b));
                self.status(id, ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms, severed: true });
            }
            ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms: Some(until_ms), severed } => {
                early(until_ms)?;
                let (ends, bond) = (self.channels[&id].ends, self.channels[&id].bond);
                if severed {
                    self.treasury += 2 * bond;
                } else {
                    ends.into_iter().for_each(|end| self.nodes[end].owed += bond);
                }
                self.status(id, ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms: None, severed });
            }
            _ => return Err(vec![code::NOTHING_TO_FINALIZE]),
        }
        Ok(())
    }

    fn forget(&mut self, id: ChannelId) -> Outcome {
        let channel = self.channel(id)?;
        let over = matches!(
            channel.status,
            ChannelStatus::Cancelled | ChannelStatus::Closed { bonds_until_ms: None, .. }
        );
        Faults::default().need(over, code::TOO_EARLY).take()?;
        let proposer = channel.ends[0];
        self.nodes[proposer].owed += self.channel_storage;
        self.storage -= self.channel_storage;
        self.channels.remove(&id);
        Ok(())
    }

    fn withdraw(&mut self, who: &AccountId, amount: Option<u128>) -> Outcome {
        let owed = self.owed(who);
        let amount = amount.unwrap_or(owed);
        Faults::default().need(amount > 0 && amount <= owed, code::WITHDRAWABLE).take()?;
        // A copy of the model is called: what a refusal leaves half done is thrown away.
        Faults::default().need(self.pay_out(who, amount), code::WITHDRAWABLE).take()?;
        *self.received.entry(who.clone()).or_default() += amount;
        Ok(())
    }

    fn ping(&mut self, who: &AccountId, through: &AccountId) -> Outcome {
        let node = self.node(who)?;
        let other = self.index_of(through);
        let attached = self.nodes[node].attached_ms.is_some();
        let idle = self.waiting.is_empty();
        let leads = other.is_some_and(|other| !idle || self.leads_to_attached(node, other));
        let mut faults = Faults::default();
        faults
            .need(!(self.waiting_ping(node) || attached && idle), code::ATTACHED)
            .need(other.is_some(), code::NOT_REGISTERED)
            .need(leads, code::NOT_ATTACHED);
        faults.done()?;
        if let Some(through) = other {
            self.enqueue(Op::Ping { node, through });
        }
        Ok(())
    }
}
