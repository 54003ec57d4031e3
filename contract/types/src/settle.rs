use borsh::{BorshDeserialize, BorshSerialize};

use crate::{AmountError, Side, Totals, Yocto};

/// What a channel holds on chain, apart from bonds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Funds {
    pub deposit_a: Yocto,
    pub deposit_b: Yocto,
    /// Already drawn from the open channel.
    pub drawn_a: Yocto,
    pub drawn_b: Yocto,
}

/// What settlement pays each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payout {
    pub a: Yocto,
    pub b: Yocto,
}

impl Funds {
    /// What there is to divide: deposits minus draws.
    pub fn pot(&self) -> Result<Yocto, AmountError> {
        let deposits = self.deposit_a.checked_add(self.deposit_b)?;
        deposits.checked_sub(self.drawn_a.checked_add(self.drawn_b)?)
    }

    /// Settlement (protocol section 3): `deposit_a - drawn_a - sent_a + sent_b`, clamped to
    /// `0..=pot`, goes to a, the rest to b. Defined for every pair of totals, also such as no
    /// honest side would sign; the payouts always sum to the pot.
    pub fn settle(&self, totals: Totals) -> Result<Payout, AmountError> {
        let pot = self.pot()?;
        let a = Wide::difference(self.deposit_a, self.drawn_a)
            .plus(Wide::difference(totals.sent_b, totals.sent_a))
            .clamp_to(pot);
        Ok(Payout { a, b: pot.checked_sub(a)? })
    }

    /// True if neither side's balance falls below zero, so that settlement does not clamp.
    pub fn covers(&self, totals: Totals) -> bool {
        let covered = |side, deposit, drawn| totals.balance(side, deposit, drawn).is_ok();
        covered(Side::A, self.deposit_a, self.drawn_a) && covered(Side::B, self.deposit_b, self.drawn_b)
    }
}

/// A signed amount of up to 2^129, so that no sum of settlement can overflow.
#[derive(Clone, Copy)]
enum Wide {
    /// Zero or more; `None` stands for more than 2^128 - 1.
    Positive(Option<u128>),
    /// Below zero, by how much does not matter once it is final.
    Negative(Option<u128>),
}

impl Wide {
    fn difference(plus: Yocto, minus: Yocto) -> Wide {
        match plus.0.checked_sub(minus.0) {
            Some(rest) => Wide::Positive(Some(rest)),
            None => Wide::Negative(Some(minus.0 - plus.0)),
        }
    }

    fn plus(self, other: Wide) -> Wide {
        let sum = |x: Option<u128>, y: Option<u128>| x?.checked_add(y?);
        match (self, other) {
            (Wide::Positive(x), Wide::Positive(y)) => Wide::Positive(sum(x, y)),
            (Wide::Negative(x), Wide::Negative(y)) => Wide::Negative(sum(x, y)),
            (Wide::Positive(Some(x)), Wide::Negative(Some(y)))
            | (Wide::Negative(Some(y)), Wide::Positive(Some(x))) => Wide::difference(Yocto(x), Yocto(y)),
            // A difference of two amounts always fits; only the sum above does not.
            (Wide::Positive(_), Wide::Negative(_)) => Wide::Positive(None),
            (Wide::Negative(_), Wide::Positive(_)) => Wide::Negative(None),
        }
    }

    fn clamp_to(self, pot: Yocto) -> Yocto {
        match self {
            Wide::Positive(amount) => amount.map_or(pot, |amount| Yocto(amount).min(pot)),
            Wide::Negative(_) => Yocto::ZERO,
        }
    }
}
