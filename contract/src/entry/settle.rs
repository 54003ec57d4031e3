//! The end of a channel: settlement, release of bonds and locks, removal of the record.
//! Anyone may call, so no side can keep the other's money waiting (protocol section 7).

use near_sdk::near;
use por_types::interface::{ChannelArgs, FinalizeArgs, code};
use por_types::{ChannelId, Payout};

use super::now_ms;
use crate::args::args;
use crate::books::Part;
use crate::channel::{ChannelRecord, Status};
use crate::check::{CutRecord, Kind};
use crate::fail::{OrStop, fail, require};
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Takes the next step that time allows: pays a closing or severed channel out, or
    /// releases what a closed one still holds.
    #[payable]
    pub fn finalize(&mut self) {
        let FinalizeArgs { channel, witness } = args();
        let mut record = Self::load_channel(channel);
        match record.status {
            Status::Closing { closes_ms, .. } => {
                self.require_past(channel, closes_ms);
                self.require_few_checks();
                let held_until = now_ms() + self.params().challenge_ms;
                self.pay_out(&mut record, held_until, false);
                self.channel_changed(channel, &record);
                return self.close_with_check(channel, &record, Kind::Cooperative, witness);
            }
            Status::Severed { settles_ms, held_until_ms, .. } => {
                self.require_past(channel, settles_ms);
                self.pay_out(&mut record, held_until_ms, true);
            }
            Status::Closed { paid_a, paid_b, held_until_ms: Some(until), severed } => {
                self.require_past(channel, until);
                self.require_checked(channel, until);
                self.release(channel, &record, severed);
                record.status = Status::Closed { paid_a, paid_b, held_until_ms: None, severed };
            }
            _ => fail!(
                code::NOTHING_TO_FINALIZE,
                "channel {channel} is {}; close or sever it first, unless it is over",
                record.status.name()
            ),
        }
        self.channel_changed(channel, &record);
        self.refund_attached();
    }

    /// Removes the record of a channel that is over; the proposer gets its storage deposit
    /// back.
    pub fn forget_channel(&mut self) {
        let ChannelArgs { channel } = args();
        let record = Self::load_channel(channel);
        let over = matches!(record.status, Status::Cancelled | Status::Closed { held_until_ms: None, .. });
        require!(
            over,
            code::TOO_EARLY,
            "channel {channel} is {}; finalize it until nothing is held",
            record.status.name()
        );
        self.books.transfer(Part::Storage, Part::Withdrawable, record.storage);
        self.with_node(record.a, |node, _| {
            node.credit(record.storage);
            node.later.channels -= 1;
        });
        if !matches!(record.status, Status::Cancelled) {
            self.with_node(record.b, |node, _| node.later.channels -= 1);
        }
        Self::remove_channel(channel);
        self.log_channel(channel);
    }
}

impl Contract {
    /// Stops while a check from before `until_ms` may still need what the channel holds.
    fn require_checked(&self, channel: ChannelId, until_ms: u64) {
        require!(
            self.clock_ms() >= until_ms,
            code::CHECKS_PENDING,
            "checks from before the release of channel {channel} are pending; continue them with `check`"
        );
    }

    fn require_past(&self, channel: ChannelId, until_ms: u64) {
        let now = now_ms();
        require!(
            now >= until_ms,
            code::TOO_EARLY,
            "channel {channel} has to wait until {until_ms} ms and it is {now}; call again then"
        );
    }

    /// Divides the pot by the totals proven (protocol section 3).
    fn pay_out(&mut self, record: &mut ChannelRecord, held_until: u64, severed: bool) {
        let Payout { a, b } = record.funds.settle(record.totals).or_stop();
        let pot = record.funds.pot().or_stop();
        self.books.transfer(Part::Deposits, Part::Withdrawable, pot);
        self.with_node(record.a, |node, _| node.credit(a));
        self.with_node(record.b, |node, _| node.credit(b));
        record.status = Status::Closed { paid_a: a, paid_b: b, held_until_ms: Some(held_until), severed };
    }

    /// Returns both bonds, or gives forfeited ones to the treasury, and unlocks both stakes.
    fn release(&mut self, id: ChannelId, record: &ChannelRecord, severed: bool) {
        if let Some(number) = record.penalty {
            self.remove_penalty(number);
        }
        if let Some(cut) = CutRecord::take(id) {
            self.credit(&cut.closer, cut.storage, Part::Storage);
        }
        let both = record.bond.checked_mul(2).or_stop();
        if severed {
            self.books.transfer(Part::Escrow, Part::Treasury, both);
        } else {
            self.books.transfer(Part::Bonds, Part::Withdrawable, both);
        }
        for index in [record.a, record.b] {
            self.with_node(index, |node, _| {
                node.unlock(record.bond);
                if !severed {
                    node.credit(record.bond);
                }
            });
        }
    }
}
