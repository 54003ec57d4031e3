//! One channel's money: totals, evidence, and what is in flight (protocol section 3).
//!
//! A request is admitted only while what was accounted for so far plus its payment stays within
//! what the counterparty has signed (`applied_in + payment <= their_total`), so the order of Sync,
//! Request and repetitions never matters. This node's own total is the sum of the items it owes,
//! by construction.

use std::collections::BTreeMap;

use por_types::{
    AmountError, ChannelId, ChannelState, DalekVerify, Hash, Item, Items, Network, NodeKey, NodeSecret, Side,
    Signed, Totals, Yocto,
};

use crate::api::{ChannelSnapshot, MyChannel, Time};
use crate::fault::Fault;
use crate::rows::ChannelRow;

/// Unanswered requests of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Prepayments.
    pub amount: Yocto,
    pub requests: u32,
    /// Bodies and response limits.
    pub bytes: u64,
}

impl Load {
    pub fn plus(self, amount: Yocto, bytes: u64) -> Result<Load, AmountError> {
        Ok(Load {
            amount: self.amount.checked_add(amount)?,
            requests: self.requests.saturating_add(1),
            bytes: self.bytes.saturating_add(bytes),
        })
    }

    pub fn minus(self, amount: Yocto, bytes: u64) -> Load {
        Load {
            amount: self.amount.saturating_sub(amount),
            requests: self.requests.saturating_sub(1),
            bytes: self.bytes.saturating_sub(bytes),
        }
    }
}

/// What one neighbour's requests may take of a resource that several share: this many times as much as
/// is left. What it asks for at once cannot keep the others out.
pub(crate) const SHARE_OF_FREE: u32 = 8;

/// Unanswered requests of one direction by the neighbours that they came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(BTreeMap<NodeKey, Load>);

impl Shares {
    /// Everything of one neighbour.
    pub fn of(&self, from: &NodeKey) -> Load {
        self.0.get(from).copied().unwrap_or_default()
    }

    pub fn add(&mut self, from: NodeKey, amount: Yocto, bytes: u64) {
        let share = self.0.entry(from).or_default();
        *share = share.plus(amount, bytes).unwrap_or(*share);
    }

    pub fn remove(&mut self, from: &NodeKey, amount: Yocto, bytes: u64) {
        let Some(share) = self.0.get_mut(from) else { return };
        *share = share.minus(amount, bytes);
        if share.requests == 0 {
            self.0.remove(from);
        }
    }

    #[cfg(feature = "testing")]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub row: ChannelRow,
    /// As confirmed on chain; `None` until the chain was read after a start.
    pub info: Option<MyChannel>,
    /// This node's deposit as the counterparty says that it sees it on chain.
    pub heard: Option<Yocto>,
    /// Raised in this flush, not signed yet.
    owed: Yocto,
    /// Requests of this node over the channel without an outcome.
    pub outgoing: Load,
    /// Those of them that this node relays, by whom they came from.
    pub relayed: Shares,
    /// Requests of the counterparty without an outcome.
    pub incoming: Load,
    /// The first own total that the counterparty has not counter-signed, and when that was seen.
    unsigned: Option<(Yocto, Time)>,
    /// The batch of writes with the row's order, if this process has brought that.
    pub ordered: u64,
    /// When [`crate::Event::Short`] was told last.
    pub short: Option<Time>,
}

impl Channel {
    pub fn new(channel: ChannelId, peer: NodeKey, side: Side) -> Channel {
        Channel::restore(ChannelRow::new(channel, peer, side))
    }

    pub fn restore(row: ChannelRow) -> Channel {
        let (outgoing, incoming) = (Load::default(), Load::default());
        let relayed = Shares::default();
        Channel {
            row,
            info: None,
            heard: None,
            owed: Yocto::ZERO,
            outgoing,
            relayed,
            incoming,
            unsigned: None,
            ordered: 0,
            short: None,
        }
    }

    /// Takes the chain's view; totals below proven floors are raised to them. True if the row changed.
    pub fn set_info(&mut self, info: MyChannel) -> bool {
        let mine = info.floors.sent_by(self.row.side);
        let theirs = info.floors.sent_by(self.row.side.other());
        let changed = mine > self.row.own_total || theirs > self.row.their_total;
        self.row.own_total = self.row.own_total.max(mine);
        self.row.their_total = self.row.their_total.max(theirs);
        self.info = Some(info);
        changed
    }

    /// The chain's view while new requests may be admitted.
    pub fn open_info(&self) -> Option<&MyChannel> {
        self.info.as_ref().filter(|info| info.open && self.row.order.is_none())
    }

    /// Since when the counterparty has not counter-signed what this node pays it, as far as looks at it
    /// have shown.
    pub fn unsigned_since(&mut self, now: Time) -> Option<Time> {
        let own = |receipt: &Signed<ChannelState>| receipt.statement.totals.sent_by(self.row.side);
        let signed = self.row.receipt.as_ref().map_or(Yocto::ZERO, own);
        if signed >= self.row.own_total {
            self.unsigned = None;
            return None;
        }
        match self.unsigned {
            Some((total, seen)) if signed < total => Some(seen),
            _ => {
                self.unsigned = Some((self.row.own_total, now));
                None
            }
        }
    }

    /// The chain's view while the edge is in the graph, be it closing.
    pub fn there(&self) -> Option<&MyChannel> {
        self.info.as_ref().filter(|info| !info.gone && self.row.order.is_none())
    }

    fn totals(&self, own: Yocto, theirs: Yocto) -> Totals {
        let mut totals = Totals::default();
        totals.set(self.row.side, own);
        totals.set(self.row.side.other(), theirs);
        totals
    }

    /// What this node owns, with what it owes in this flush deducted.
    pub fn balance_mine(&self) -> Yocto {
        self.info.as_ref().map_or(Yocto::ZERO, |info| self.balance_with(info.deposit_mine, info))
    }

    /// As much of [`Channel::balance_mine`] as the counterparty knows of: it takes no payment beyond that.
    fn covered(&self) -> Yocto {
        let Some(info) = &self.info else { return Yocto::ZERO };
        let deposit = self.heard.map_or(info.deposit_mine, |heard| heard.min(info.deposit_mine));
        self.balance_with(deposit, info)
    }

    fn balance_with(&self, deposit: Yocto, info: &MyChannel) -> Yocto {
        let own = self.row.own_total.checked_add(self.owed);
        own.and_then(|own| {
            self.totals(own, self.row.their_total).balance(self.row.side, deposit, info.drawn_mine)
        })
        .unwrap_or(Yocto::ZERO)
    }

    pub fn balance_theirs(&self) -> Yocto {
        let Some(info) = &self.info else { return Yocto::ZERO };
        let totals = self.totals(self.row.own_total, self.row.their_total);
        totals.balance(self.row.side.other(), info.deposit_theirs, info.drawn_theirs).unwrap_or(Yocto::ZERO)
    }

    /// What may be spent on new requests: not what may have to be refunded.
    pub fn available(&self) -> Yocto {
        self.unreserved(self.covered())
    }

    /// The same of all that this node has, whatever the counterparty says that it knows of: what that
    /// one takes is its own affair, and no reason to give up others.
    pub fn funds(&self) -> Yocto {
        self.unreserved(self.balance_mine())
    }

    fn unreserved(&self, balance: Yocto) -> Yocto {
        let unapplied = self.row.their_total.saturating_sub(self.row.applied_in);
        balance.saturating_sub(self.incoming.amount).saturating_sub(unapplied)
    }

    /// Raises the own total by `amount` with the next signature, for something new.
    pub fn spend(&mut self, amount: Yocto) -> Result<(), AmountError> {
        self.covered().checked_sub(amount)?;
        self.owe(amount)
    }

    /// The same for what this node has to pay, whatever the counterparty knows of its balance by now.
    pub fn owe(&mut self, amount: Yocto) -> Result<(), AmountError> {
        self.balance_mine().checked_sub(amount)?;
        self.owed = self.owed.checked_add(amount)?;
        Ok(())
    }

    /// Takes back what was raised and not signed.
    pub fn disown(&mut self, amount: Yocto) {
        self.owed = self.owed.saturating_sub(amount);
    }

    /// Signs the payment for items that were owed before.
    pub fn sign(
        &mut self,
        network: &Network,
        secret: &NodeSecret,
        items: Vec<Item>,
    ) -> Result<Signed<ChannelState>, AmountError> {
        let list = Items { channel: self.row.channel, payer: self.row.side, items };
        let sum = list.sum()?;
        let total = self.row.own_total.checked_add(sum)?;
        self.owed = self.owed.checked_sub(sum)?;
        self.row.own_total = total;
        let totals = self.totals(total, self.row.their_total);
        let state = ChannelState { channel: self.row.channel, totals, items: list.hash(network) };
        let signed = secret.sign(network, state);
        self.row.own_payment = Some(signed.clone());
        Ok(signed)
    }

    /// Counter-signature of the counterparty's best payment, which is its receipt.
    pub fn countersign(&self, network: &Network, secret: &NodeSecret) -> Option<Signed<ChannelState>> {
        let payment = self.row.their_payment.as_ref()?;
        Some(secret.sign(network, payment.statement.clone()))
    }

    /// Hash that a payment of the counterparty for `items` must name.
    pub fn items_hash(&self, network: &Network, items: Vec<Item>) -> Hash {
        Items { channel: self.row.channel, payer: self.row.side.other(), items }.hash(network)
    }

    /// Takes the counterparty's payment. `Ok(false)` if it says nothing new.
    pub fn receive(&mut self, network: &Network, payment: &Signed<ChannelState>) -> Result<bool, Fault> {
        let state = &payment.statement;
        let theirs = state.totals.sent_by(self.row.side.other());
        if theirs <= self.row.their_total {
            return Ok(false);
        }
        if state.totals.sent_by(self.row.side) > self.row.own_total {
            return Err(Fault::new("payment names more of this node's total than it ever signed"));
        }
        let Some(info) = &self.info else {
            return Err(Fault::new("payment on a channel that the chain does not show yet"));
        };
        let merged = self.totals(self.row.own_total, theirs);
        if merged.balance(self.row.side.other(), info.deposit_theirs, info.drawn_theirs).is_err() {
            return Err(Fault::new("payment is not covered by the payer's balance"));
        }
        if !payment.verify(network, &self.row.peer, &DalekVerify) {
            return Err(Fault::new("payment has a wrong signature"));
        }
        self.row.their_total = theirs;
        self.row.their_payment = Some(payment.clone());
        Ok(true)
    }

    /// Takes the counterparty's counter-signature of one of this node's payments. `Ok(false)` if it
    /// says nothing new.
    pub fn receive_receipt(
        &mut self,
        network: &Network,
        receipt: &Signed<ChannelState>,
    ) -> Result<bool, Fault> {
        let totals = &receipt.statement.totals;
        let own = totals.sent_by(self.row.side);
        let newest = self.row.receipt.as_ref().map(|r| r.statement.totals.sent_by(self.row.side));
        if newest.is_some_and(|newest| own <= newest) {
            return Ok(false);
        }
        if own > self.row.own_total || totals.sent_by(self.row.side.other()) > self.row.their_total {
            return Err(Fault::new("counter-signature of a state that this node never signed"));
        }
        if !receipt.verify(network, &self.row.peer, &DalekVerify) {
            return Err(Fault::new("counter-signature is wrong"));
        }
        self.row.receipt = Some(receipt.clone());
        Ok(true)
    }

    /// Takes this node's own payment as the counterparty holds it. A higher total than the store
    /// knows means that the store is an old copy: adopted, so that nothing is signed below it.
    pub fn recall(
        &mut self,
        network: &Network,
        me: &NodeKey,
        held: &Signed<ChannelState>,
    ) -> Result<bool, Fault> {
        let own = held.statement.totals.sent_by(self.row.side);
        if own <= self.row.own_total {
            return Ok(false);
        }
        if !held.verify(network, me, &DalekVerify) {
            return Err(Fault::new("names a payment of this node with a wrong signature"));
        }
        self.row.own_total = own;
        self.row.own_payment = Some(held.clone());
        Ok(true)
    }

    /// Accounts for an item of the counterparty: false if what it has signed does not cover it.
    pub fn apply(&mut self, amount: Yocto) -> bool {
        match self.row.applied_in.checked_add(amount) {
            Ok(applied) if applied <= self.row.their_total => {
                self.row.applied_in = applied;
                true
            }
            _ => false,
        }
    }

    pub fn snapshot(&self, late_per_s: Yocto) -> ChannelSnapshot {
        ChannelSnapshot {
            channel: self.row.channel,
            peer: self.row.peer,
            side: self.row.side,
            totals: self.totals(self.row.own_total, self.row.their_total),
            pending_out: self.outgoing.amount,
            pending_in: self.incoming.amount,
            balance_mine: self.balance_mine(),
            balance_theirs: self.balance_theirs(),
            unfinished: self.outgoing.requests.saturating_add(self.incoming.requests),
            late_per_s,
            their_payment: self.row.their_payment.clone(),
            their_receipt: self.row.receipt.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use por_types::{ItemKind, RequestId, Terms};
    use proptest::prelude::*;

    use super::*;

    const DEPOSIT: Yocto = Yocto(1000);

    fn network() -> Network {
        Network { chain_id: "localnet".into(), contract: "por.test.near".parse().unwrap() }
    }

    fn info(peer: NodeKey, side: Side) -> MyChannel {
        let terms = Terms {
            rtt_ms: 1,
            bytes_per_s: 1,
            base_fee: Yocto::ZERO,
            byte_fee: Yocto::ZERO,
            heartbeat_ms: 1,
            grace_ms: 1,
            max_requests: 1,
            max_bytes: 1,
        };
        MyChannel {
            channel: ChannelId(1),
            peer,
            peer_account: "peer.near".parse().unwrap(),
            side,
            deposit_mine: DEPOSIT,
            deposit_theirs: DEPOSIT,
            drawn_mine: Yocto::ZERO,
            drawn_theirs: Yocto::ZERO,
            bond: Yocto::ZERO,
            floors: Totals::default(),
            terms,
            open: true,
            gone: false,
        }
    }

    /// Both ends of one channel.
    fn ends() -> [(NodeSecret, Channel); 2] {
        let secrets = [NodeSecret::from_seed(&[1; 32]), NodeSecret::from_seed(&[2; 32])];
        let mut index = 0;
        secrets.clone().map(|secret| {
            let side = if index == 0 { Side::A } else { Side::B };
            let peer = secrets[1 - index].public();
            index += 1;
            let mut channel = Channel::new(ChannelId(1), peer, side);
            channel.set_info(info(peer, side));
            (secret, channel)
        })
    }

    fn item(amount: u128) -> Item {
        Item { request: RequestId([0; 32]), amount: Yocto(amount), kind: ItemKind::Request }
    }

    proptest! {
        /// Payments cross, are lost, repeated and arrive in any order.
        #[test]
        fn crossing_payments_never_conflict_and_money_is_conserved(
            steps in prop::collection::vec((0usize..2, 1u128..400, any::<bool>(), 0usize..8), 1..40),
        ) {
            let network = network();
            let mut ends = ends();
            let mut sent: [Vec<Signed<ChannelState>>; 2] = [vec![], vec![]];
            for (payer, amount, deliver, which) in steps {
                let (secret, channel) = &mut ends[payer];
                if channel.available() >= Yocto(amount) {
                    channel.owe(Yocto(amount)).unwrap();
                    sent[payer].push(channel.sign(&network, secret, vec![item(amount)]).unwrap());
                } else if channel.balance_mine() < Yocto(amount) {
                    prop_assert!(channel.owe(Yocto(amount)).is_err(), "an uncovered state was signed");
                }
                if deliver && !sent[payer].is_empty() {
                    let payment = sent[payer][which % sent[payer].len()].clone();
                    ends[1 - payer].1.receive(&network, &payment).unwrap();
                }
            }
            for payer in 0..2 {
                if let Some(last) = sent[payer].last() {
                    ends[1 - payer].1.receive(&network, last).unwrap();
                }
            }
            let [(_, a), (_, b)] = &ends;
            prop_assert_eq!(a.snapshot(Yocto::ZERO).totals, b.snapshot(Yocto::ZERO).totals);
            prop_assert_eq!(a.balance_mine(), b.balance_theirs());
            let sum = a.balance_mine().checked_add(b.balance_mine());
            prop_assert_eq!(sum, DEPOSIT.checked_add(DEPOSIT));
        }
    }

    #[test]
    fn nothing_is_accounted_for_beyond_what_was_signed() {
        let network = network();
        let [(secret, mut a), (_, mut b)] = ends();
        a.owe(Yocto(10)).unwrap();
        let payment = a.sign(&network, &secret, vec![item(10)]).unwrap();
        assert!(!b.apply(Yocto(1)), "nothing was paid yet");
        assert_eq!(b.receive(&network, &payment), Ok(true));
        assert_eq!(b.receive(&network, &payment), Ok(false), "says nothing new");
        assert!(b.apply(Yocto(7)));
        assert!(!b.apply(Yocto(4)));
        assert!(b.apply(Yocto(3)));
        assert!(!b.apply(Yocto(u128::MAX)), "sums are checked");
    }

    /// After a restart its endpoint may be behind.
    #[test]
    fn what_is_owed_is_paid_also_if_the_counterparty_knows_less_than_before() {
        let network = network();
        let [(secret, mut a), _] = ends();
        a.spend(Yocto(900)).unwrap();
        a.sign(&network, &secret, vec![item(900)]).unwrap();
        a.heard = Some(Yocto(500));
        assert_eq!(a.available(), Yocto::ZERO);
        assert!(a.spend(Yocto(1)).is_err());
        a.owe(Yocto(100)).unwrap();
        assert!(a.owe(Yocto(1)).is_err());
    }

    #[test]
    fn floors_proven_on_chain_raise_the_totals() {
        let [(_, mut a), _] = ends();
        let mut proven = info(a.row.peer, Side::A);
        proven.floors = Totals { sent_a: Yocto(5), sent_b: Yocto(6) };
        assert!(a.set_info(proven.clone()));
        assert_eq!(a.snapshot(Yocto::ZERO).totals, proven.floors);
        assert!(!a.set_info(proven));
    }
}
