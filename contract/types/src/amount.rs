use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// An amount of money in yoctoNEAR (10^-24 NEAR), `0..=u128::MAX`.
///
/// There are no operators on purpose: every sum says what happens when it does not fit.
/// In JSON an amount is a decimal string, since JSON numbers lose digits; in CBOR it is a
/// byte string, big endian without leading zero bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Yocto(pub u128);

/// Why an amount could not be read or computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("amount exceeds 2^128 - 1 yoctoNEAR")]
    Overflow,
    #[error("amount would fall below zero")]
    Underflow,
    #[error("not an amount: {0:?} (write yoctoNEAR as digits, or NEAR as `0.5 NEAR`)")]
    Syntax(String),
}

impl Yocto {
    pub const ZERO: Yocto = Yocto(0);
    pub const ONE_NEAR: Yocto = Yocto(1_000_000_000_000_000_000_000_000);

    /// Whole NEAR; for constants and tests.
    pub const fn near(n: u128) -> Yocto {
        Yocto(n * Self::ONE_NEAR.0)
    }

    /// Thousandths of a NEAR; for constants and tests.
    pub const fn millinear(n: u128) -> Yocto {
        Yocto(n * (Self::ONE_NEAR.0 / 1000))
    }

    pub fn checked_add(self, other: Yocto) -> Result<Yocto, AmountError> {
        self.0.checked_add(other.0).map(Yocto).ok_or(AmountError::Overflow)
    }

    pub fn checked_sub(self, other: Yocto) -> Result<Yocto, AmountError> {
        self.0.checked_sub(other.0).map(Yocto).ok_or(AmountError::Underflow)
    }

    pub fn checked_mul(self, factor: u128) -> Result<Yocto, AmountError> {
        self.0.checked_mul(factor).map(Yocto).ok_or(AmountError::Overflow)
    }

    pub fn saturating_sub(self, other: Yocto) -> Yocto {
        Yocto(self.0.saturating_sub(other.0))
    }

    /// `floor(self * part / whole)`, exact whatever the product is.
    ///
    /// Errors: [`AmountError::Overflow`] if the result does not fit or `whole` is zero.
    pub fn portion(self, part: Yocto, whole: Yocto) -> Result<Yocto, AmountError> {
        if let Some(product) = self.0.checked_mul(part.0) {
            return product.checked_div(whole.0).map(Yocto).ok_or(AmountError::Overflow);
        }
        divide_wide(multiply_wide(self.0, part.0), whole.0).map(Yocto).ok_or(AmountError::Overflow)
    }

    /// Sum with overflow check; there is no `Sum` impl because it would have to panic.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Yocto>) -> Result<Yocto, AmountError> {
        amounts.into_iter().try_fold(Yocto::ZERO, Yocto::checked_add)
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As NEAR with all significant digits, e.g. `0.0021 NEAR`.
    pub fn to_near_string(self) -> String {
        let whole = self.0 / Self::ONE_NEAR.0;
        let fraction = self.0 % Self::ONE_NEAR.0;
        if fraction == 0 {
            return format!("{whole} NEAR");
        }
        let digits = format!("{fraction:024}");
        format!("{whole}.{} NEAR", digits.trim_end_matches('0'))
    }

    /// Reads what people type: `0.5 NEAR`, `0.5NEAR`, `12 mNEAR` or plain yocto digits.
    pub fn parse_human(text: &str) -> Result<Yocto, AmountError> {
        let syntax = || AmountError::Syntax(text.to_owned());
        let trimmed = text.trim();
        let lower = trimmed.to_ascii_lowercase();
        let (number, unit) = if let Some(n) = lower.strip_suffix("mnear") {
            (n, Self::ONE_NEAR.0 / 1000)
        } else if let Some(n) = lower.strip_suffix("near") {
            (n, Self::ONE_NEAR.0)
        } else {
            let digits = lower.strip_suffix("yocto").unwrap_or(&lower).trim();
            return digits.parse();
        };
        let number = number.trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 24 {
            return Err(syntax());
        }
        let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits_only(whole) || !digits_only(fraction) {
            return Err(syntax());
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| syntax())? };
        let mut total = Yocto(unit).checked_mul(whole)?;
        let mut place = unit;
        for digit in fraction.bytes() {
            if place % 10 != 0 && digit != b'0' {
                return Err(syntax());
            }
            place /= 10;
            total = total.checked_add(Yocto(place).checked_mul(u128::from(digit - b'0'))?)?;
        }
        Ok(total)
    }
}

/// The product of two numbers: its high and low 128 bits.
fn multiply_wide(x: u128, y: u128) -> (u128, u128) {
    const HALF: u128 = u64::MAX as u128;
    let (x1, x0) = (x >> 64, x & HALF);
    let (y1, y0) = (y >> 64, y & HALF);
    let low = x0 * y0;
    // Neither sum can overflow: each product is at most (2^64 - 1)^2.
    let middle = x1 * y0 + (low >> 64);
    let other = x0 * y1 + (middle & HALF);
    (x1 * y1 + (middle >> 64) + (other >> 64), (other << 64) | (low & HALF))
}

/// Quotient of `(high, low)` by `divisor`, a bit at a time; `None` if it does not fit.
fn divide_wide((high, low): (u128, u128), divisor: u128) -> Option<u128> {
    if high >= divisor {
        return None;
    }
    let (mut rest, mut quotient) = (high, 0);
    for bit in (0..128).rev() {
        let carry = rest >> 127 == 1;
        rest = rest << 1 | (low >> bit & 1);
        quotient <<= 1;
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    Some(quotient)
}

impl fmt::Display for Yocto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Yocto {
    type Err = AmountError;
    /// Plain decimal yocto, the form of every machine-readable file and message.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::Syntax(s.to_owned()));
        }
        s.parse().map(Yocto).map_err(|_| AmountError::Overflow)
    }
}

impl Serialize for Yocto {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0)
        } else {
            let bytes = self.0.to_be_bytes();
            let leading = (self.0.leading_zeros() / 8) as usize;
            serializer.serialize_bytes(&bytes[leading..])
        }
    }
}

impl<'de> Deserialize<'de> for Yocto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;
        impl Visitor<'_> for AmountVisitor {
            type Value = Yocto;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("yoctoNEAR as a decimal string, or as up to 16 big-endian bytes")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Yocto, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<Yocto, E> {
                // One encoding per amount: no leading zero byte.
                if v.len() > 16 || v.first() == Some(&0) {
                    return Err(E::invalid_length(v.len(), &self));
                }
                let mut bytes = [0u8; 16];
                bytes[16 - v.len()..].copy_from_slice(v);
                Ok(Yocto(u128::from_be_bytes(bytes)))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(AmountVisitor)
        } else {
            deserializer.deserialize_bytes(AmountVisitor)
        }
    }
}
