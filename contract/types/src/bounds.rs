//! Hard bounds of a network's parameters (protocol section 2), for the contract and for whoever
//! wants to know before it refuses.

use crate::Yocto;
use crate::interface::Params;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

impl Params {
    /// What is wrong with these parameters, if anything. A `test` network is free of all bounds
    /// but those that keep sums within their types.
    pub fn out_of_bounds(&self, test: bool) -> Option<&'static str> {
        let durations = [self.challenge_ms, self.notice_ms, self.activation_ms, self.reimbursement_ms];
        let amounts = [self.late_fee, self.sever_penalty, self.min_stake];
        if !self.sever_penalty.0.is_multiple_of(2) {
            return Some("sever_penalty must be even");
        }
        if self.slash_bps > 10_000 {
            return Some("slash_bps must be at most 10000");
        }
        if durations.iter().any(|ms| *ms > 3_650 * DAY) {
            return Some("durations must be at most ten years");
        }
        if amounts.iter().any(|amount| *amount > Yocto::near(1_000_000)) {
            return Some("amounts must be at most a million NEAR");
        }
        if test { None } else { self.out_of_hard_bounds() }
    }

    fn out_of_hard_bounds(&self) -> Option<&'static str> {
        if self.late_fee > Yocto::millinear(1) {
            return Some("late_fee must be at most 0.001 NEAR a millisecond");
        }
        if !(Yocto::millinear(100)..=Yocto::near(1_000)).contains(&self.sever_penalty) {
            return Some("sever_penalty must be 0.1 to 1000 NEAR");
        }
        if !(HOUR..=30 * DAY).contains(&self.challenge_ms) {
            return Some("challenge_ms must be one hour to 30 days");
        }
        if !(60 * SECOND..=7 * DAY).contains(&self.notice_ms) {
            return Some("notice_ms must be one minute to 7 days");
        }
        if !(self.bond()..=Yocto::near(100_000)).contains(&self.min_stake) {
            return Some("min_stake must be half the penalty to 100000 NEAR");
        }
        if !(HOUR..=30 * DAY).contains(&self.activation_ms) {
            return Some("activation_ms must be one hour to 30 days");
        }
        if !(self.challenge_ms..=90 * DAY).contains(&self.reimbursement_ms) {
            return Some("reimbursement_ms must be the challenge window to 90 days");
        }
        if self.slash_bps > 5_000 {
            return Some("slash_bps must be at most 5000");
        }
        None
    }
}
