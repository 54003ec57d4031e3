//! What the owner may do, and how a node leaves.

use por_types::AccountId;
use por_types::interface::*;

use super::acts::{Faults, Outcome};
use super::calls::Call;
use super::{INDEX_STORAGE, Model, State};

impl Model {
    /// A node leaves for good.
    pub(super) fn unregister(&mut self, who: &AccountId) -> Outcome {
        let index = self.node(who)?;
        let node = &self.nodes[index];
        let unused = node.chargeable() == 0
            && node.owed == 0
            && self.waiting_stakes(index) == 0
            && !self.waiting_ping(index)
            && self.channels.values().all(|channel| !channel.binds(index))
            && !self.is_anchor(index);
        Faults::default().need(unused, code::IN_USE).take()?;
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        let attached = node.attached_ms.is_some();
        node.gone = true;
        node.past.extend(node.attached_ms.take().map(|since| (since, now_ms)));
        self.note(State::Left);
        if attached {
            self.note(State::LeftAttached);
        }
        if !self.waiting.is_empty() {
            self.note(State::LeftWhileChecksWait);
        }
        let index = self.nodes[index].index;
        self.vacant.push_back((index, now_ms));
        let kept = if self.once_left.insert(index) { INDEX_STORAGE } else { 0 };
        self.storage -= self.register_storage - kept;
        self.credit(who, self.register_storage - kept);
        Ok(())
    }

    pub(super) fn govern(&mut self, who: &AccountId, call: &Call) -> Outcome {
        let notice_ms = if self.test { self.params.notice_ms } else { 14 * 24 * 3_600_000 };
        let from_ms = self.now_ms + notice_ms;
        let mut faults = Faults::default();
        faults.need(*who == self.owner, code::NOT_ALLOWED);
        if let Call::SetParams(args) = call {
            faults.need(args.params.out_of_bounds(self.test).is_none(), code::PARAMS);
        }
        if matches!(call, Call::CancelUpgrade) {
            faults.need(self.next_code.is_some(), code::NOT_ANNOUNCED);
        }
        faults.done()?;
        match call {
            Call::SetParams(args) => {
                self.next_params = Some(NextParams { params: args.params.clone(), from_ms });
            }
            Call::SetOwner(args) => self.owner = args.account.clone(),
            Call::SetTreasury(args) => self.treasury_account = args.account.clone(),
            Call::AnnounceUpgrade(args) => {
                self.next_code = Some(NextCode { code_hash: args.code_hash, from_ms });
            }
            _ => self.next_code = None,
        }
        Ok(())
    }
}
