//! What lateness costs (protocol section 5). The rate is the network's; where it changes on chain, each node learns
//! of it at another moment, and what is late for long was paid for at the rate before. So for a while after a change
//! a node pays the higher rate and expects the lower one, and nobody is blamed for what it could not know.

use por_types::Yocto;

use crate::api::Time;

/// How long after a node has learned of a change others may not have, milliseconds.
const LAG_MS: u64 = 600_000;

/// Changes that are told apart.
const CHANGES: usize = 16;

/// The late fee per request and millisecond.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateFee {
    /// As the chain has it; `None` until that was read.
    current: Option<Yocto>,
    /// The rate before, if it was higher, and until when it is paid.
    higher: Option<(Yocto, Time)>,
    /// What others are held to from each of these moments on, in order.
    expected: Vec<(Time, Yocto)>,
}

impl LateFee {
    /// The chain has this rate.
    pub fn set(&mut self, now: Time, rate: Yocto) {
        if self.current == Some(rate) {
            return;
        }
        let Some(before) = self.current.map(|_| self.paid(now)) else {
            (self.current, self.expected) = (Some(rate), vec![(Time(0), rate)]);
            return;
        };
        let least = self.expected_at(now).min(rate);
        let settled = now.after_ms(LAG_MS);
        self.current = Some(rate);
        self.higher = (before > rate).then_some((before, settled));
        self.expected.retain(|(from, _)| *from <= now);
        self.expected.extend([(now, least), (settled, rate)]);
        while self.expected.len() > CHANGES {
            let (from, rate) = self.expected.remove(0);
            if let Some(next) = self.expected.first_mut() {
                *next = (from, rate.min(next.1));
            }
        }
    }

    /// What this node pays; nothing before the chain was read.
    pub fn paid(&self, now: Time) -> Yocto {
        let current = self.current.unwrap_or_default();
        self.higher.filter(|(_, until)| now < *until).map_or(current, |(rate, _)| rate.max(current))
    }

    fn expected_at(&self, time: Time) -> Yocto {
        let rate = self.expected.iter().rev().find(|(from, _)| *from <= time);
        rate.map_or(Yocto::ZERO, |(_, rate)| *rate)
    }

    /// What others have to have paid for so many milliseconds of lateness from then on; the most that there is where
    /// it cannot be told.
    pub fn expected(&self, since: Time, late_ms: u64) -> Yocto {
        let end = since.after_ms(late_ms);
        let ends = self.expected.iter().skip(1).map(|(from, _)| *from).chain([Time(u64::MAX)]);
        let parts = self.expected.iter().zip(ends).map(|(&(from, rate), until)| {
            let ms = until.min(end).since_ms(from.max(since));
            rate.checked_mul(u128::from(ms))
        });
        let sum = parts.into_iter().try_fold(Yocto::ZERO, |sum, part| sum.checked_add(part?));
        sum.unwrap_or(Yocto(u128::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fee(changes: &[(u64, u128)]) -> LateFee {
        let mut fee = LateFee::default();
        for (at, rate) in changes {
            fee.set(Time(*at), Yocto(*rate));
        }
        fee
    }

    #[test]
    fn an_unchanged_rate_is_paid_and_expected() {
        let mut fee = fee(&[(500, 3)]);
        fee.set(Time(900), Yocto(3));
        assert_eq!(fee.paid(Time(1)), Yocto(3));
        assert_eq!(fee.expected(Time(0), 1_000), Yocto(3_000), "from before it was read as well");
        assert_eq!(LateFee::default().paid(Time(1)), Yocto::ZERO);
        assert_eq!(LateFee::default().expected(Time(0), 1_000), Yocto::ZERO);
    }

    #[test]
    fn a_higher_rate_is_paid_at_once_and_expected_later() {
        let fee = fee(&[(0, 1), (10_000, 10)]);
        assert_eq!((fee.paid(Time(9_999)), fee.paid(Time(10_000))), (Yocto(10), Yocto(10)));
        assert_eq!(fee.expected(Time(5_000), 10_000), Yocto(10_000));
        let settled = 10_000 + LAG_MS;
        assert_eq!(fee.expected(Time(settled - 1_000), 3_000), Yocto(1_000 + 20_000));
    }

    #[test]
    fn a_lower_rate_is_expected_at_once_and_paid_later() {
        let fee = fee(&[(0, 10), (10_000, 1)]);
        let settled = 10_000 + LAG_MS;
        assert_eq!((fee.paid(Time(settled - 1)), fee.paid(Time(settled))), (Yocto(10), Yocto(1)));
        assert_eq!(fee.expected(Time(9_000), 3_000), Yocto(10_000 + 2_000));
    }

    #[test]
    fn changes_in_a_row_are_expected_at_the_lowest_and_forgotten_in_favour_of_others() {
        let quick = fee(&[(0, 5), (1_000, 9), (2_000, 7)]);
        assert_eq!(quick.expected(Time(1_000), 10_000), Yocto(50_000));
        assert_eq!(quick.paid(Time(3_000)), Yocto(9));
        let changes: Vec<(u64, u128)> = (0..50).map(|n| (n * 2 * LAG_MS, 10 + u128::from(n))).collect();
        let many = fee(&changes);
        assert!(many.expected.len() <= CHANGES);
        assert_eq!(many.expected(Time(0), 1_000), Yocto(10_000));
        assert_eq!(many.expected(Time(98 * LAG_MS + LAG_MS), 1_000), Yocto(59_000));
    }
}
