//! Leaving: cooperative close, sever, and the evidence that either admits (protocol
//! sections 3, 6 and 7).

use near_sdk::near;
use por_types::interface::{
    CloseArgs, Event, SeverArgs, StateSubmittedEvent, SubmitStateArgs, Witness, code,
};
use por_types::{ChannelId, NodeKey, Side, Totals};

use super::{caller, now_ms};
use crate::answers::emit;
use crate::args::args;
use crate::books::{Part, Purse};
use crate::channel::{ChannelRecord, CloseRequest, Status};
use crate::check::Kind;
use crate::fail::{OrStop, fail, require};
use crate::verify::check_signed;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Asks the other side to close with these totals. Replaces an unconfirmed request.
    pub fn request_close(&mut self) {
        let CloseArgs { channel, totals } = args();
        let index = Self::caller_index(&caller());
        let mut record = Self::load_channel(channel);
        let by = record.side_of(channel, index);
        record.require_open(channel);
        record.require_possible(totals);
        record.status = Status::Open { request: Some(CloseRequest { by, totals }) };
        self.channel_changed(channel, &record);
    }

    /// Agrees to the other side's request; the edge leaves the graph one notice later.
    pub fn confirm_close(&mut self) {
        let CloseArgs { channel, totals } = args();
        let index = Self::caller_index(&caller());
        let record = Self::load_channel(channel);
        let side = record.side_of(channel, index);
        record.require_open(channel);
        let Status::Open { request: Some(request) } = &record.status else {
            fail!(code::NOT_REQUESTED, "nobody asked to close channel {channel}; request it");
        };
        require!(request.by != side, code::NOT_ALLOWED, "the other side has to confirm this request");
        require!(
            request.totals == totals,
            code::TOTALS_DIFFER,
            "the request states {} and {}; confirm those or request others",
            request.totals.sent_a,
            request.totals.sent_b
        );
        // Funds only grow while a channel is open, so the request's totals are still covered.
        record.require_possible(totals);
        let by = request.by;
        self.announce_close(channel, record, by, totals);
    }

    /// Evidence within the window of a close or sever: a state that `signer` signed proves
    /// that side's own total, and nothing about the other's. Anyone may submit it.
    pub fn submit_state(&mut self) {
        let SubmitStateArgs { state, signer } = args();
        let id = state.statement.channel;
        let mut record = Self::load_channel(id);
        let until = match record.status {
            Status::Closing { closes_ms, .. } => closes_ms,
            Status::Severed { settles_ms, .. } => settles_ms,
            _ => fail!(
                code::NOT_CLOSING,
                "channel {id} is {}; evidence counts while it is closing or severed",
                record.status.name()
            ),
        };
        require!(now_ms() < until, code::WINDOW_OVER, "evidence was taken until {until} ms; finalize {id}");
        check_signed(&self.config.network, &record.key_of(id, signer), &state);
        let total = state.statement.totals.sent_by(signer);
        let proven = record.totals.sent_by(signer);
        require!(total > proven, code::NOTHING_NEW, "{proven} is already proven; submit a higher total");
        record.totals.set(signer, total);
        Self::save_channel(id, &record);
        self.log_channel(id);
        emit(&Event::StateSubmitted(vec![StateSubmittedEvent { channel: id, totals: record.totals }]));
    }

    /// Executes a SeverOrder of either side; anyone who holds it may call. The edge leaves the
    /// graph in this call and both bonds are forfeited.
    #[payable]
    pub fn sever(&mut self) {
        let SeverArgs { order, witness } = args();
        let id = order.statement.channel;
        let mut record = Self::load_channel(id);
        let by = record.side_with_key(id, &order.statement.signer);
        let Some(by) = by else {
            fail!(code::NOT_ALLOWED, "{} is no side of channel {id}", order.statement.signer);
        };
        check_signed(&self.config.network, &order.statement.signer, &order);
        let now = now_ms();
        let held_until = now + self.params().reimbursement_ms;
        let settles_ms = now + self.params().challenge_ms;
        let kind = match &mut record.status {
            Status::Open { .. } | Status::Closing { .. } => {
                record.status =
                    Status::Severed { by, severed_ms: now, settles_ms, held_until_ms: held_until };
                Kind::Severed
            }
            Status::Closed { held_until_ms: Some(until), severed, .. } if !*severed && now < *until => {
                *severed = true;
                *until = held_until;
                Kind::Late
            }
            status => fail!(
                code::NOT_SEVERABLE,
                "channel {id} is {} and no bond of it is held; nothing is left to sever",
                status.name()
            ),
        };
        let forfeited = record.bond.checked_mul(2).or_stop();
        self.books.transfer(Part::Bonds, Part::Escrow, forfeited);
        self.channel_changed(id, &record);
        self.close_with_check(id, &record, kind, witness);
    }
}

impl Contract {
    /// The edge leaves the graph; what is attached pays for its check, as far as it needs.
    pub(super) fn close_with_check(
        &mut self,
        id: ChannelId,
        record: &ChannelRecord,
        kind: Kind,
        witness: Option<Witness>,
    ) {
        let mut job = self.new_job(id, record.a, record.b, kind, caller());
        job.prepaid = Purse::attached().rest(&mut self.books, Part::Storage);
        self.close_edge(job, witness);
    }

    /// What is attached and not needed becomes withdrawable.
    pub(super) fn refund_attached(&mut self) {
        let rest = Purse::attached().rest(&mut self.books, Part::Storage);
        self.credit(&caller(), rest, Part::Storage);
    }

    pub(super) fn announce_close(
        &mut self,
        id: ChannelId,
        mut record: ChannelRecord,
        by: Side,
        totals: Totals,
    ) {
        // Both sides stand for these totals, so nothing below them is ever paid out.
        record.totals = totals;
        let closes_ms = now_ms() + self.params().notice_ms;
        record.status = Status::Closing { by, totals, closes_ms };
        self.channel_changed(id, &record);
    }
}

impl ChannelRecord {
    /// The key of a side, whose node is here; stops otherwise.
    pub(super) fn key_of(&self, id: ChannelId, side: Side) -> NodeKey {
        match self.node_of(id, side) {
            Some(node) => node.key,
            None => fail!(code::NOT_REGISTERED, "a node of channel {id} has left; there is nothing to do"),
        }
    }

    fn side_with_key(&self, id: ChannelId, key: &NodeKey) -> Option<Side> {
        [Side::A, Side::B].into_iter().find(|side| self.key_of(id, *side) == *key)
    }
}
