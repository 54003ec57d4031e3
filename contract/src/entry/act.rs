//! Acts of both sides together: anyone who holds both signatures may submit them (protocol
//! section 2).

use near_sdk::near;
use por_types::interface::{CloseSignedArgs, DrawArgs, ReplaceTermsArgs, code};
use por_types::{ChannelId, Side, Signature, Statement};

use super::now_ms;
use crate::args::args;
use crate::books::Part;
use crate::channel::ChannelRecord;
use crate::fail::{OrStop, fail, require};
use crate::verify::check_message;
use crate::{Contract, ContractExt};

/// What every act of both sides names.
struct Act {
    channel: ChannelId,
    sequence: u64,
    expires_ms: u64,
    message: Vec<u8>,
}

#[near]
impl Contract {
    /// Closes with both signatures.
    pub fn close_signed(&mut self) {
        let CloseSignedArgs { close, signature_a, signature_b } = args();
        let message = close.signed_bytes(&self.config.network);
        let (channel, totals) = (close.channel, close.totals);
        let head = Act { channel, sequence: close.sequence, expires_ms: close.expires_ms, message };
        let record = self.require_act(&head, &signature_a, &signature_b);
        record.require_possible(totals);
        self.announce_close(channel, record, Side::A, totals);
    }

    /// Pays money out of an open channel; the totals become floors.
    pub fn draw(&mut self) {
        let DrawArgs { draw, signature_a, signature_b } = args();
        let message = draw.signed_bytes(&self.config.network);
        let (channel, totals) = (draw.channel, draw.totals);
        let head = Act { channel, sequence: draw.sequence, expires_ms: draw.expires_ms, message };
        let mut record = self.require_act(&head, &signature_a, &signature_b);
        record.require_possible(totals);
        record.funds.drawn_a = record.funds.drawn_a.checked_add(draw.draw_a).or_stop();
        record.funds.drawn_b = record.funds.drawn_b.checked_add(draw.draw_b).or_stop();
        // Each side draws from its own balance at these totals.
        record.require_possible(totals);
        record.totals = totals;
        let both = draw.draw_a.checked_add(draw.draw_b).or_stop();
        self.books.transfer(Part::Deposits, Part::Withdrawable, both);
        self.with_node(record.a, |node, _| node.credit(draw.draw_a));
        self.with_node(record.b, |node, _| node.credit(draw.draw_b));
        self.channel_changed(channel, &record);
    }

    /// Replaces the terms of an open channel; the totals become floors.
    pub fn replace_terms(&mut self) {
        let ReplaceTermsArgs { act, signature_a, signature_b } = args();
        let message = act.signed_bytes(&self.config.network);
        let (channel, totals) = (act.channel, act.totals);
        let head = Act { channel, sequence: act.sequence, expires_ms: act.expires_ms, message };
        let mut record = self.require_act(&head, &signature_a, &signature_b);
        record.require_possible(totals);
        if let Err(error) = act.terms.validate() {
            fail!(code::ARGUMENT, "{error}");
        }
        record.totals = totals;
        record.terms = act.terms;
        self.channel_changed(channel, &record);
    }
}

impl Contract {
    /// The open channel of an act that is the next one, in time, and signed by both sides. Its
    /// sequence is advanced.
    fn require_act(&self, act: &Act, a: &Signature, b: &Signature) -> ChannelRecord {
        let mut record = Self::load_channel(act.channel);
        record.require_open(act.channel);
        require!(
            record.sequence.checked_add(1) == Some(act.sequence),
            code::SEQUENCE,
            "sequence {} is not the next after {}; sign the next one",
            act.sequence,
            record.sequence
        );
        let now = now_ms();
        require!(
            now <= act.expires_ms,
            code::EXPIRED,
            "this expired at {} ms and it is {now}; sign a new one",
            act.expires_ms
        );
        check_message(&self.config.network, &record.key_of(act.channel, Side::A), &act.message, a);
        check_message(&self.config.network, &record.key_of(act.channel, Side::B), &act.message, b);
        record.sequence = act.sequence;
        record
    }
}
