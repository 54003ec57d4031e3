//! Persisted forms: one row per channel, one per unfinished exchange, large request bodies in
//! chunks beside it. Enough to go on after a crash at any point.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use por_types::{
    ChannelId, ChannelState, FlushProof, Network, NodeKey, RequestId, SeverOrder, Side, Signed,
    SignedInvalid, Yocto,
};

use crate::api::{ExchangeId, RejectReason, RestoreError, Row, RowKey, SignedReceipt, Table, Time};

/// Version of every row's layout, its first byte.
const VERSION: u8 = 6;

/// Bytes of a body in one row.
pub(crate) const CHUNK: usize = 1 << 20;

/// Bodies up to this size are part of the exchange's row.
pub(crate) const INLINE: usize = 16 << 10;

const META_KEY: &[u8] = b"node";

/// Bytes of an exchange's row besides head, path and body.
const ROW_OVERHEAD: usize = 384;

/// A channel's totals and signatures.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct ChannelRow {
    pub channel: ChannelId,
    pub peer: NodeKey,
    /// This node's side.
    pub side: Side,
    /// Highest total this node has signed.
    pub own_total: Yocto,
    pub own_payment: Option<Signed<ChannelState>>,
    /// Highest total the counterparty has signed.
    pub their_total: Yocto,
    pub their_payment: Option<Signed<ChannelState>>,
    /// The counterparty's latest counter-signature.
    pub receipt: Option<Signed<ChannelState>>,
    /// Sum of all items of the counterparty that were ever accounted for.
    pub applied_in: Yocto,
    /// This node has severed the channel, or seen that it was.
    pub order: Option<Signed<SeverOrder>>,
    pub pursuit: Option<Pursuit>,
}

/// After severing: the other end is asked for a missing answer over other routes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Pursuit {
    /// The request that was not answered.
    pub request: RequestId,
    pub since: Time,
    pub tries: u32,
    /// Less what was refunded.
    pub spent: Yocto,
    /// The own request under way.
    pub asking: Option<RequestId>,
    pub over: bool,
}

impl ChannelRow {
    pub fn new(channel: ChannelId, peer: NodeKey, side: Side) -> ChannelRow {
        ChannelRow {
            channel,
            peer,
            side,
            own_total: Yocto::ZERO,
            own_payment: None,
            their_total: Yocto::ZERO,
            their_payment: None,
            receipt: None,
            applied_in: Yocto::ZERO,
            order: None,
            pursuit: None,
        }
    }

    pub fn key(channel: ChannelId) -> RowKey {
        RowKey::of(&[&channel.0.to_be_bytes()])
    }
}

/// One edge of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct LegRow {
    pub peer: NodeKey,
    pub exchange: ExchangeId,
    pub hop: u8,
    pub channel: ChannelId,
    pub clock: Clock,
}

/// When an exchange is late on one of its edges, and what was paid for that (protocol section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Clock {
    /// When the request was sent or received.
    pub since: Time,
    /// From here on it is late.
    pub deadline: Time,
    /// Up to here lateness is paid.
    pub paid_until: Time,
    /// Sum of all late payments.
    pub late: Yocto,
    /// Syncs at which it was late.
    pub syncs: u32,
    /// Time that the other end's absence has excused, milliseconds.
    pub excused_ms: u64,
}

impl Clock {
    pub fn new(since: Time, allowed_ms: u64) -> Clock {
        let deadline = since.after_ms(allowed_ms);
        Clock { since, deadline, paid_until: deadline, ..Clock::default() }
    }

    /// Lateness that is not paid yet, milliseconds.
    pub fn unpaid_ms(&self, now: Time) -> u64 {
        now.since_ms(self.paid_until)
    }

    /// Time that does not count.
    pub fn shift(&mut self, ms: u64) {
        self.deadline = self.deadline.after_ms(ms);
        self.paid_until = self.paid_until.after_ms(ms);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum BodyRow<B = Vec<u8>> {
    Inline(B),
    /// In this many chunk rows.
    Chunks(u32),
    /// Not here; asked for again where it is needed.
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum RoleRow<B = Vec<u8>> {
    Author { out: LegRow, body: BodyRow<B> },
    Relay { up: LegRow, down: LegRow, body: BodyRow<B>, first: Time, waiting: bool },
    Destination { up: LegRow, body: BodyRow<B> },
    Rejected { up: LegRow, reason: RejectReason, invalid: Option<SignedInvalid> },
    Severed { up: LegRow, order: Signed<SeverOrder>, refund: Yocto, sent: bool },
}

/// Written by reference, read as values: `B` are bytes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct JobRow<B = Vec<u8>, P = FlushProof> {
    pub head: B,
    pub proof: P,
    pub role: RoleRow<B>,
}

impl JobRow<&[u8], &FlushProof> {
    /// Roughly its bytes on disk.
    pub fn size_hint(&self) -> usize {
        let body = match &self.role {
            RoleRow::Author { body, .. }
            | RoleRow::Relay { body, .. }
            | RoleRow::Destination { body, .. } => body,
            RoleRow::Rejected { .. } | RoleRow::Severed { .. } => &BodyRow::Absent,
        };
        let body = if let BodyRow::Inline(bytes) = body { bytes.len() } else { 0 };
        ROW_OVERHEAD + self.head.len() + self.proof.path.len() * 32 + body
    }
}

/// The answer to a request that is kept for the upstream node, beside the exchange's row: the request
/// is not written again.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct AnswerRow<B = Vec<u8>, R = SignedReceipt> {
    pub up: LegRow,
    pub receipt: R,
    pub body: B,
    pub earned: Yocto,
    pub served: bool,
}

impl AnswerRow<&[u8], &SignedReceipt> {
    /// Roughly its bytes on disk.
    pub fn size_hint(&self) -> usize {
        ROW_OVERHEAD + self.receipt.proof.path.len() * 32 + self.body.len()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct MetaRow {
    pub node: NodeKey,
    pub network: Network,
    /// Number of starts; part of exchange ids and epochs, which therefore never repeat.
    pub boot: u32,
}

impl MetaRow {
    pub fn key() -> RowKey {
        RowKey::of(&[META_KEY])
    }
}

pub(crate) fn job_key(request: &RequestId) -> RowKey {
    RowKey::of(&[&request.0, &[0]])
}

pub(crate) fn answer_key(request: &RequestId) -> RowKey {
    RowKey::of(&[&request.0, &[2]])
}

/// What was paid for the lateness of an answer that has no row: it is made again, and not paid again.
pub(crate) fn clock_key(request: &RequestId) -> RowKey {
    RowKey::of(&[&request.0, &[3]])
}

/// For how long an answer that passes has waited for upstream to take it.
pub(crate) fn waits_key(request: &RequestId) -> RowKey {
    RowKey::of(&[&request.0, &[4]])
}

pub(crate) fn chunk_key(request: &RequestId, index: u32) -> RowKey {
    RowKey::of(&[&request.0, &[1], &index.to_be_bytes()])
}

/// Number of chunk rows of a body.
pub(crate) fn chunks(body_len: usize) -> u32 {
    if body_len <= INLINE { 0 } else { u32::try_from(body_len.div_ceil(CHUNK)).unwrap_or(u32::MAX) }
}

/// `size`: roughly the bytes that it takes.
pub(crate) fn encode<T: BorshSerialize>(row: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.push(VERSION);
    // Memory cannot refuse a write.
    let written = borsh::to_writer(&mut bytes, row);
    debug_assert!(written.is_ok());
    bytes
}

fn decode<T: BorshDeserialize>(row: &Row) -> Result<T, RestoreError> {
    match row.value.split_first() {
        Some((&VERSION, bytes)) => T::try_from_slice(bytes).map_err(|e| damaged(row, &e.to_string())),
        Some(_) => Err(RestoreError::Foreign { table: row.table, key: row.key.to_string() }),
        None => Err(damaged(row, "empty")),
    }
}

pub(crate) fn damaged(row: &Row, cause: &str) -> RestoreError {
    RestoreError::Damaged { table: row.table, key: row.key.to_string(), cause: cause.to_owned() }
}

/// All rows of a store, read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub meta: Option<MetaRow>,
    pub channels: Vec<ChannelRow>,
    /// With the row for error messages.
    pub jobs: Vec<(Row, JobRow)>,
    /// By request, with the row for error messages.
    answers: BTreeMap<Vec<u8>, (Row, AnswerRow)>,
    /// By request.
    clocks: BTreeMap<Vec<u8>, Clock>,
    /// By request, milliseconds.
    waits: BTreeMap<Vec<u8>, u64>,
    chunks: BTreeMap<RowKey, Vec<u8>>,
}

impl Loaded {
    pub fn read(rows: Vec<Row>) -> Result<Loaded, RestoreError> {
        let mut loaded = Loaded::default();
        for row in rows {
            match row.table {
                Table::Meta if *row.key == *META_KEY => loaded.meta = Some(decode(&row)?),
                Table::Meta => {
                    return Err(RestoreError::Foreign { table: row.table, key: row.key.to_string() });
                }
                Table::Channels => loaded.channels.push(decode(&row)?),
                Table::Exchanges if row.key.len() == 33 && row.key.ends_with(&[2]) => {
                    let answer = decode(&row)?;
                    loaded.answers.insert(row.key[..32].to_vec(), (row, answer));
                }
                Table::Exchanges if row.key.len() == 33 && row.key.ends_with(&[3]) => {
                    loaded.clocks.insert(row.key[..32].to_vec(), decode(&row)?);
                }
                Table::Exchanges if row.key.len() == 33 && row.key.ends_with(&[4]) => {
                    loaded.waits.insert(row.key[..32].to_vec(), decode(&row)?);
                }
                Table::Exchanges if row.key.len() == 33 => {
                    let job = decode(&row)?;
                    loaded.jobs.push((row, job));
                }
                Table::Exchanges => {
                    loaded.chunks.insert(row.key, row.value);
                }
            }
        }
        Ok(loaded)
    }

    /// The clock of a request towards upstream: what its row says, or what was paid since.
    pub fn clock(&self, request: &RequestId, of_row: Clock) -> Clock {
        let later = self.clocks.get(request.0.as_slice());
        later.filter(|clock| clock.late > of_row.late).copied().unwrap_or(of_row)
    }

    /// For how long the answer to a request has waited for upstream, milliseconds.
    pub fn waits_ms(&self, request: &RequestId) -> u64 {
        self.waits.get(request.0.as_slice()).copied().unwrap_or_default()
    }

    /// The answer to a request, once.
    pub fn answer(&mut self, request: &RequestId) -> Option<AnswerRow> {
        self.answers.remove(request.0.as_slice()).map(|(_, answer)| answer)
    }

    /// Every answer belongs to a request.
    pub fn check_answers(&self) -> Result<(), RestoreError> {
        match self.answers.values().next() {
            Some((row, _)) => Err(damaged(row, "answers no request")),
            None => Ok(()),
        }
    }

    /// The body of an exchange; `None` if it was not stored.
    pub fn body(
        &self,
        row: &Row,
        request: &RequestId,
        body: &BodyRow,
    ) -> Result<Option<Bytes>, RestoreError> {
        match body {
            BodyRow::Inline(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
            BodyRow::Absent => Ok(None),
            BodyRow::Chunks(count) => {
                let mut bytes = Vec::new();
                for index in 0..*count {
                    let chunk = self.chunks.get(&chunk_key(request, index));
                    bytes.extend_from_slice(chunk.ok_or_else(|| damaged(row, "a chunk is missing"))?);
                }
                Ok(Some(bytes.into()))
            }
        }
    }
}
