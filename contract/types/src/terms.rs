use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{AmountError, Yocto};

/// What both ends of a channel promise each other (protocol section 2).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Terms {
    /// Promised round trip, milliseconds, `1..=600_000`.
    pub rtt_ms: u32,
    /// Promised throughput, bytes per second, at least 1.
    pub bytes_per_s: u64,
    /// Price of each message.
    pub base_fee: Yocto,
    /// Price of each byte of request body and of response limit.
    pub byte_fee: Yocto,
    /// Interval of syncs while requests are outstanding, milliseconds, `1..=3_600_000`.
    pub heartbeat_ms: u32,
    /// How late a sync may be before it is a breach, milliseconds, `1..=3_600_000`.
    pub grace_ms: u32,
    /// Most unanswered requests per direction, at least 1.
    pub max_requests: u32,
    /// Most bytes (bodies and response limits) of unanswered requests per direction, at least 1.
    pub max_bytes: u64,
}

/// Which term is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("rtt_ms must be 1..=600000")]
    Rtt,
    #[error("bytes_per_s must be at least 1")]
    BytesPerSecond,
    #[error("heartbeat_ms must be 1..=3600000")]
    Heartbeat,
    #[error("grace_ms must be 1..=3600000")]
    Grace,
    #[error("max_requests and max_bytes must be at least 1")]
    Caps,
    #[error("fees must be at most 1000 NEAR a message and 1 NEAR a byte")]
    Fees,
}

/// What one edge asks for a message: money and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeQuote {
    pub price: Yocto,
    pub allowance_ms: u64,
}

impl Terms {
    pub fn validate(&self) -> Result<(), TermsError> {
        if !(1..=600_000).contains(&self.rtt_ms) {
            return Err(TermsError::Rtt);
        }
        if self.bytes_per_s == 0 {
            return Err(TermsError::BytesPerSecond);
        }
        if !(1..=3_600_000).contains(&self.heartbeat_ms) {
            return Err(TermsError::Heartbeat);
        }
        if !(1..=3_600_000).contains(&self.grace_ms) {
            return Err(TermsError::Grace);
        }
        if self.max_requests == 0 || self.max_bytes == 0 {
            return Err(TermsError::Caps);
        }
        // Bounds that keep base + bytes * fee inside u128 for every message a frame can name.
        if self.base_fee > Yocto::near(1000) || self.byte_fee > Yocto::near(1) {
            return Err(TermsError::Fees);
        }
        Ok(())
    }

    /// `base_fee + byte_fee * (request body bytes + response limit)` (protocol section 4).
    pub fn price(&self, body_len: u64, response_limit: u64) -> Result<Yocto, AmountError> {
        let bytes = u128::from(body_len) + u128::from(response_limit);
        self.byte_fee.checked_mul(bytes)?.checked_add(self.base_fee)
    }

    /// `rtt_ms + ceil(bytes / bytes_per_s)` in milliseconds (protocol section 5).
    pub fn allowance_ms(&self, body_len: u64, response_limit: u64) -> u64 {
        let bytes = u128::from(body_len) + u128::from(response_limit);
        let transfer = (bytes * 1000).div_ceil(u128::from(self.bytes_per_s.max(1)));
        u64::from(self.rtt_ms).saturating_add(u64::try_from(transfer).unwrap_or(u64::MAX))
    }

    pub fn quote(&self, body_len: u64, response_limit: u64) -> Result<EdgeQuote, AmountError> {
        Ok(EdgeQuote {
            price: self.price(body_len, response_limit)?,
            allowance_ms: self.allowance_ms(body_len, response_limit),
        })
    }
}
