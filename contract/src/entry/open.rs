//! Opening channels: proposal, confirmation, withdrawal of a proposal, top-up.

use near_sdk::near;
use por_types::interface::{ChannelArgs, ConfirmChannelArgs, Event, ProposeChannelArgs, code};
use por_types::{ChannelId, Funds, Side, Totals, Yocto};

use super::caller;
use crate::answers::{answer, emit};
use crate::args::args;
use crate::books::{Part, Purse};
use crate::channel::{ChannelRecord, Status};
use crate::config::CHANNEL_STORAGE;
use crate::fail::{OrStop, fail, require};
use crate::flow::Op;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Proposes a channel to `counterparty`. Attached: deposit, bond, storage.
    #[payable]
    pub fn propose_channel(&mut self) {
        let ProposeChannelArgs { counterparty, terms, deposit } = args();
        let a = Self::caller_index(&caller());
        let Some(b) = Self::node_index(&counterparty) else {
            fail!(code::NOT_REGISTERED, "{counterparty} has no node; it must register first");
        };
        require!(a != b, code::SELF_CHANNEL, "a channel needs two nodes; name another counterparty");
        if let Err(error) = terms.validate() {
            fail!(code::ARGUMENT, "{error}");
        }
        let bond = self.params().bond();
        let mut purse = Purse::attached();
        purse.pay(&mut self.books, Part::Storage, CHANNEL_STORAGE, "storage deposit");
        self.enter(a, purse, deposit, bond);

        let id = ChannelId(self.channels);
        self.channels += 1;
        let channel = ChannelRecord {
            a,
            b,
            funds: Funds { deposit_a: deposit, ..Funds::default() },
            bond,
            storage: CHANNEL_STORAGE,
            totals: Totals::default(),
            terms,
            sequence: 0,
            status: Status::Proposed,
            penalty: None,
        };
        self.channel_changed(id, &channel);
        answer(&id);
    }

    /// Confirms a proposal with exactly its terms; the channel is open. Attached: deposit, bond.
    #[payable]
    pub fn confirm_channel(&mut self) {
        let ConfirmChannelArgs { channel, terms, deposit } = args();
        let index = Self::caller_index(&caller());
        let mut record = Self::load_channel(channel);
        require!(
            index == record.b && Self::had_index(index, channel),
            code::NOT_ALLOWED,
            "only the counterparty of proposal {channel} may confirm it"
        );
        record.require_proposed(channel);
        require!(
            terms == record.terms,
            code::TERMS_DIFFER,
            "the proposal has other terms; read channel {channel} and confirm what it says"
        );
        self.enter(index, Purse::attached(), deposit, record.bond);
        record.funds.deposit_b = deposit;
        record.status = Status::Open { request: None };
        self.channel_changed(channel, &record);
        self.submit(Op::Link { a: record.a, b: record.b });
    }

    /// Withdraws the caller's own proposal; deposit and bond become withdrawable.
    pub fn cancel_proposal(&mut self) {
        let ChannelArgs { channel } = args();
        let index = Self::caller_index(&caller());
        let mut record = Self::load_channel(channel);
        require!(index == record.a, code::NOT_ALLOWED, "only the proposer of {channel} may withdraw it");
        record.require_proposed(channel);
        let (deposit, bond) = (record.funds.deposit_a, record.bond);
        self.books.transfer(Part::Deposits, Part::Withdrawable, deposit);
        self.books.transfer(Part::Bonds, Part::Withdrawable, bond);
        self.with_node(index, |node, _| {
            node.credit(deposit);
            node.credit(bond);
            node.unlock(bond);
        });
        record.funds.deposit_a = Yocto::ZERO;
        record.status = Status::Cancelled;
        self.channel_changed(channel, &record);
    }

    /// Adds what is attached to the caller's deposit in an open channel.
    #[payable]
    pub fn top_up(&mut self) {
        let ChannelArgs { channel } = args();
        let index = Self::caller_index(&caller());
        let mut record = Self::load_channel(channel);
        let side = record.side_of(channel, index);
        record.require_open(channel);
        let amount = Purse::attached().rest(&mut self.books, Part::Deposits);
        require!(!amount.is_zero(), code::DEPOSIT, "nothing is attached; attach what to add");
        let held = match side {
            Side::A => &mut record.funds.deposit_a,
            Side::B => &mut record.funds.deposit_b,
        };
        *held = held.checked_add(amount).or_stop();
        self.channel_changed(channel, &record);
    }
}

impl Contract {
    /// One side enters a channel: its deposit and bond are paid, its stake is locked, the rest
    /// of the purse becomes withdrawable.
    fn enter(&mut self, index: u32, mut purse: Purse, deposit: Yocto, bond: Yocto) {
        purse.pay(&mut self.books, Part::Deposits, deposit, "channel deposit");
        purse.pay(&mut self.books, Part::Bonds, bond, "bond");
        let rest = purse.rest(&mut self.books, Part::Withdrawable);
        let params = self.params().clone();
        self.with_node(index, |node, _| {
            node.credit(rest);
            node.lock(bond, &params);
            node.later.channels += 1;
        });
    }

    /// Saves a channel, logs the change and emits it.
    pub(super) fn channel_changed(&mut self, id: ChannelId, channel: &ChannelRecord) {
        Self::save_channel(id, channel);
        self.log_channel(id);
        emit(&Event::ChannelChanged(vec![channel.event(id)]));
    }
}

impl ChannelRecord {
    fn require_proposed(&self, id: ChannelId) {
        require!(
            matches!(self.status, Status::Proposed),
            code::NOT_PROPOSED,
            "channel {id} is {}, no longer a proposal",
            self.status.name()
        );
    }
}
