//! How much a node takes on: what terms and bonds allow, what its balances cover, and what it may owe for
//! lateness (protocol section 4, exposure).

use por_types::{ChannelId, NodeKey, Yocto};

use crate::api::{Event, MyChannel, RejectReason};
use crate::job::{Job, Leg, Relay, Role};
use crate::ledger::{Channel, Load, SHARE_OF_FREE};
use crate::node::Node;

/// That a balance is too small is told this often at most, for each channel.
const SHORT_TOLD_MS: u64 = 60_000;

impl Node {
    /// Whether the own balance on the channel that a request came over pays for the lateness of all that is unanswered
    /// there, for as long as the next node may be silent. With less this node would have to sever one that is away
    /// for a moment.
    pub(crate) fn can_be_late(&self, channel: &Channel, from: &Leg, next: NodeKey) -> bool {
        let requests = channel.incoming.requests.saturating_add(1);
        self.is_late_covered(channel, from.amount, requests, next)
    }

    /// Whether the balance that this next leg is paid from still pays for the lateness of what came in over the same
    /// channel: else what others have relayed would use it up, and this node would have to sever whom that waits for.
    pub(crate) fn can_still_be_late(&self, to: &Leg) -> bool {
        let Some(channel) = self.channels.get(&to.channel) else { return false };
        let requests = channel.incoming.requests;
        requests == 0 || self.is_late_covered(channel, to.amount, requests, to.peer)
    }

    fn is_late_covered(&self, channel: &Channel, without: Yocto, requests: u32, silent: NodeKey) -> bool {
        let noticed_ms = u128::from(self.borne_ms(silent));
        let reserve = noticed_ms.saturating_mul(u128::from(requests));
        let reserve = self.late_fee.paid(self.now).checked_mul(reserve);
        reserve.is_ok_and(|reserve| channel.funds().saturating_sub(without) >= reserve)
    }

    /// What a second of the lateness costs that this node passes on to where these requests came from: next nodes that
    /// only are silent will not cost it for long.
    pub(crate) fn late_per_s(&self, channel: &Channel) -> Yocto {
        let edge = self.edges.get(&channel.row.peer).filter(|_| channel.incoming.requests > 0);
        let jobs = edge.into_iter().flat_map(|edge| edge.owed.values()).filter_map(|id| self.jobs.get(id));
        let passed_on = jobs.filter(|job| {
            let Role::Relay(Relay { from, to, .. }) = &job.role else { return false };
            let open = from.open && to.open && from.channel == channel.row.channel;
            open && self.now > from.clock.deadline && !to.clock.late.is_zero()
        });
        let requests = u128::try_from(passed_on.count()).unwrap_or(u128::MAX);
        // More than exists is more than any balance.
        let fee = self.late_fee.paid(self.now);
        fee.checked_mul(requests.saturating_mul(1_000)).unwrap_or(Yocto(u128::MAX >> 1))
    }

    /// The balance on this channel was too small for something; told now and then.
    pub(crate) fn tell_short(&mut self, id: ChannelId) {
        let now = self.now;
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.short.is_none_or(|told| now.since_ms(told) >= SHORT_TOLD_MS) {
            channel.short = Some(now);
            let peer = channel.row.peer;
            self.notify(Event::Short { channel: id, peer });
        }
    }

    /// Whether this node could pay for the next leg, with all that waits to be paid for, if the next node
    /// knew of its deposit: that it does not is to come to light there, and not at this node's own edge.
    pub(crate) fn can_pay_later(&self, to: &Leg) -> bool {
        let sum = self.set_aside(to.channel).checked_add(to.amount);
        sum.is_ok_and(|sum| sum <= self.funds(to.channel))
    }

    /// What this node keeps on a channel to ask again with: who has refused has given it back.
    fn set_aside(&self, id: ChannelId) -> Yocto {
        let Some(channel) = self.channels.get(&id) else { return Yocto::ZERO };
        let asked = self.edges.get(&channel.row.peer).into_iter().flat_map(|edge| edge.asked.values());
        let refused = asked.filter_map(|id| self.jobs.get(id)).filter(|job| job.is_refused());
        let legs = refused.filter_map(Job::to).filter(|leg| leg.channel == id);
        // Part of the channel's load, which is a sum that exists.
        Yocto::checked_sum(legs.map(|leg| leg.amount)).unwrap_or(channel.outgoing.amount)
    }

    /// Whether the balance covers something new, and what is to be asked again beside it.
    pub(crate) fn covers_more(&self, channel: &Channel, amount: Yocto) -> bool {
        let left = channel.available().checked_sub(amount);
        // What has been refused is part of what is under way.
        let ample = |left| self.retries.is_empty() || left >= channel.outgoing.amount;
        left.is_ok_and(|left| ample(left) || left >= self.set_aside(channel.row.channel))
    }

    /// Caps of the terms and exposure: what absconding could gain stays below the bond lost.
    pub(crate) fn check_load(&self, load: Load, info: &MyChannel, leg: &Leg) -> Result<(), RejectReason> {
        if leg.bytes > info.terms.max_bytes {
            return Err(RejectReason::TooLarge);
        }
        let load = load.plus(leg.amount, leg.bytes).map_err(|_| RejectReason::Busy)?;
        let most = info.terms.max_requests.min(self.config.limits.max_exchanges);
        if load.requests > most || load.bytes > info.terms.max_bytes {
            return Err(RejectReason::Busy);
        }
        // A bond of zero means that the network has no penalty: nothing to compare with.
        let exposure = load.amount.checked_add(self.late_reserve(&load, info));
        if !info.bond.is_zero() && exposure.is_ok_and(|exposure| exposure >= info.bond) {
            return Err(RejectReason::Busy);
        }
        Ok(())
    }

    /// Whether the neighbour that the request came from may take more of what the next edge can carry. One
    /// that has nothing there may always.
    pub(crate) fn has_share(&self, to: &Leg) -> bool {
        let Some(channel) = self.channels.get(&to.channel) else { return false };
        let Some(info) = channel.open_info() else { return false };
        let (all, held) = (channel.outgoing, channel.relayed.of(&to.via));
        if held.requests == 0 {
            return true;
        }
        let most = info.terms.max_requests.min(self.config.limits.max_exchanges);
        let requests = most.saturating_sub(all.requests).saturating_mul(SHARE_OF_FREE);
        let bytes = info.terms.max_bytes.saturating_sub(all.bytes).saturating_mul(u64::from(SHARE_OF_FREE));
        let exposure =
            |load: Load| load.amount.checked_add(self.late_reserve(&load, info)).unwrap_or(info.bond);
        let free = info.bond.saturating_sub(exposure(all));
        let exposed = info.bond.is_zero() || exposure(held).0 / u128::from(SHARE_OF_FREE) < free.0;
        held.requests < requests && held.bytes < bytes && exposed
    }

    /// Late fees possible until a breach is noticed (protocol section 4).
    fn late_reserve(&self, load: &Load, info: &MyChannel) -> Yocto {
        let noticed_ms = u128::from(info.terms.heartbeat_ms) + u128::from(info.terms.grace_ms);
        let fee = self.late_fee.paid(self.now);
        // More than exists is more than any bond.
        fee.checked_mul(noticed_ms * u128::from(load.requests)).unwrap_or(Yocto(u128::MAX >> 1))
    }
}
