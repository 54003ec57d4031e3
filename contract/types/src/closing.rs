use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{ChannelId, NodeKey, Purpose, RequestId, Statement, Terms, Totals, Yocto};

/// Both sides agree to close with these totals. Signed by both; valid until `expires_ms`.
///
/// The contract still lets either side raise a total with a later signed payment during the
/// notice (protocol section 3, last paragraph).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct CooperativeClose {
    pub channel: ChannelId,
    /// One above the channel's last executed two-signature act.
    pub sequence: u64,
    /// Block time, milliseconds since 1970, after which the contract refuses it.
    pub expires_ms: u64,
    pub totals: Totals,
}

impl Statement for CooperativeClose {
    const PURPOSE: Purpose = Purpose::CooperativeClose;
}

/// Money leaves an open channel. The totals become floors on chain.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Draw {
    pub channel: ChannelId,
    pub sequence: u64,
    pub expires_ms: u64,
    pub totals: Totals,
    pub draw_a: Yocto,
    pub draw_b: Yocto,
}

impl Statement for Draw {
    const PURPOSE: Purpose = Purpose::Draw;
}

/// The terms of an open channel are replaced.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct NewTerms {
    pub channel: ChannelId,
    pub sequence: u64,
    pub expires_ms: u64,
    pub totals: Totals,
    pub terms: Terms,
}

impl Statement for NewTerms {
    const PURPOSE: Purpose = Purpose::NewTerms;
}

/// Why a node cut an edge. For people and statistics; the contract treats all alike.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SeverReason {
    /// No acknowledgement within the edge's round trip and grace.
    NoAck,
    /// A sync is missing for longer than the grace.
    MissedSync,
    /// Lateness was not paid.
    UnpaidLateness,
    /// A payment was not counter-signed or totals disagree.
    Disagreement,
    /// The edge loses money over the policy's window.
    Loss,
    /// The other side refused a cooperative close.
    RefusedClose,
    /// The operator asked for it.
    Operator,
}

/// The statement that removes an edge. Whoever holds it can submit it, so its signer cannot
/// take it back (protocol section 6).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SeverOrder {
    pub channel: ChannelId,
    pub signer: NodeKey,
    pub reason: SeverReason,
    pub request: Option<RequestId>,
}

impl Statement for SeverOrder {
    const PURPOSE: Purpose = Purpose::SeverOrder;
}
