//! One peer: its connections, the session in each direction, and what is to be sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use por_types::{ChannelId, NodeKey, RequestId, SeverReason, Yocto};

use crate::api::{ConnId, ExchangeId, Time};
use crate::flush::take_all;
use crate::wire::{Credit, Hello, LateDue, Part, SyncExchange};

#[derive(Debug)]
pub(crate) struct Conn {
    pub hello: Hello,
    /// Bytes of fragments given to the driver and not yet written.
    pub unwritten: u64,
    /// Epochs that the peer has begun on it.
    pub epochs: u32,
}

/// This node's direction of the edge. Nothing but Sync is sent before it is open; what is dropped
/// until then is made again from the jobs.
#[derive(Debug, Default)]
pub(crate) enum Outgoing {
    #[default]
    Down,
    /// Waiting for the peer's complete answer; its unfinished exchanges so far.
    Syncing {
        conn: ConnId,
        epoch: u64,
        known: HashMap<ExchangeId, SyncExchange>,
    },
    Open {
        conn: ConnId,
        epoch: u64,
    },
}

impl Outgoing {
    pub fn conn(&self) -> Option<ConnId> {
        match self {
            Outgoing::Down => None,
            Outgoing::Syncing { conn, .. } | Outgoing::Open { conn, .. } => Some(*conn),
        }
    }

    pub fn epoch(&self) -> u64 {
        match self {
            Outgoing::Down => 0,
            Outgoing::Syncing { epoch, .. } | Outgoing::Open { epoch, .. } => *epoch,
        }
    }
}

/// What the next flush sends to the peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// A new epoch has begun: say so.
    pub probe: bool,
    /// Epoch of the peer to answer, over this connection.
    pub answer: Option<(ConnId, u64)>,
    pub requests: Vec<Queued>,
    pub acks: Vec<ExchangeId>,
    pub rejects: Vec<Queued>,
    /// Proofs of severed edges.
    pub severed: Vec<Queued>,
    /// Late payments of this sync; what was sent before has no amount.
    pub late: Vec<(RequestId, LateDue)>,
    /// Late payments of which the peer may not know yet.
    pub resent_late: Vec<RequestId>,
    /// Say that this node is there.
    pub beat: bool,
    /// Say which channels this node sees; kept until the session is open.
    pub seen: bool,
    pub responses: Vec<QueuedReply>,
    pub done: Vec<ExchangeId>,
    /// Channels whose latest payment is to be counter-signed.
    pub receipts: BTreeSet<ChannelId>,
    pub credits: Vec<Credit>,
}

impl Outbox {
    /// A response with a late payment goes out once: what tells the sum of all must not be ahead of what pays the last.
    pub fn take_responses(&mut self) -> Vec<QueuedReply> {
        let mut replies = take_all(&mut self.responses);
        let mut due: HashMap<RequestId, Option<Yocto>> = HashMap::new();
        for reply in replies.iter().filter(|reply| !reply.late.amount.is_zero()) {
            let sum = due.entry(reply.request).or_insert(Some(Yocto::ZERO));
            *sum = sum.and_then(|sum| sum.checked_add(reply.late.amount).ok());
        }
        if due.is_empty() {
            return replies;
        }
        replies.reverse();
        replies.retain_mut(|reply| match due.get_mut(&reply.request).map(Option::take) {
            None => true,
            Some(None) => false,
            Some(Some(sum)) => {
                reply.late.amount = sum;
                true
            }
        });
        replies.reverse();
        replies
    }

    /// Late payments of responses that do not go out are signed by themselves.
    pub fn keep_late(&mut self) {
        for reply in &mut self.responses {
            let late = std::mem::take(&mut reply.late);
            if !late.amount.is_zero() {
                self.late.push((reply.request, late));
            }
        }
    }
}

/// A request or a rejection to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub request: RequestId,
    /// To be paid for in this flush; else it was before, and is sent again.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedReply {
    pub request: RequestId,
    /// Sent before: the peer says where to go on.
    pub resume: bool,
    /// Residual late payment, set aside.
    pub late: LateDue,
}

#[derive(Debug, Default)]
pub(crate) struct Edge {
    pub conns: BTreeMap<ConnId, Conn>,
    pub out: Outgoing,
    /// Connection of the peer's latest epoch: frames of others are stale.
    pub recv: Option<ConnId>,
    pub their_epoch: u64,
    /// Exchanges that this node has asked of the peer.
    pub asked: BTreeMap<ExchangeId, RequestId>,
    /// Exchanges that the peer has asked of this node, until Done.
    pub owed: BTreeMap<ExchangeId, RequestId>,
    pub outbox: Outbox,
    /// Bodies with something to send, in turn.
    pub bulk: VecDeque<(RequestId, Part)>,
    /// Bytes of bodies that may have to be held for the peer.
    pub reserved: u64,
    /// PeerReady was told.
    pub told: bool,
    /// When this node syncs next for what it owes the peer.
    pub beat: Option<Time>,
    /// Channels that this node's view of the chain lacks, for each frame with requests over one.
    pub unheard: Vec<ChannelId>,
    /// Something between the two was left until the chain is read: what it said, or an answer for it. Then the
    /// connection begins anew, and both are said again.
    pub left: bool,
    /// Channels that the peer sees on chain, with the deposit that it knows this node to have there.
    pub seen: BTreeMap<ChannelId, Yocto>,
    /// Channels of which a payment was signed while no session was open, after its Sync: what would have
    /// brought it may have ended.
    pub unsaid: BTreeSet<ChannelId>,
    /// A sync fell into a time without a session.
    pub missed: bool,
    /// The next sync is one that is made up for, outside the rhythm.
    pub extra: bool,
    /// The last one was held up: nobody was blamed.
    pub beat_late: bool,
    /// When this node looks next at what the peer owes.
    pub watch: Option<Time>,
    /// That look is one that was put off.
    pub put_off: bool,
    /// The peer was last heard from, or could be for the first time.
    pub heard: Time,
    /// Since when the session has been open or down.
    pub turned: Time,
    /// The first Sync of the session went out then.
    pub probed: Time,
    /// Shortest round trip seen, milliseconds.
    pub rtt_ms: Option<u64>,
    /// Fees earned less lateness lost with the peer, and since when.
    pub profit: (Time, i128),
    pub away: Away,
    /// When [`crate::Event::SeverWithheld`] was told last, and of which breach.
    pub withheld: Option<(Time, SeverReason)>,
}

/// For how long a peer could not be reached while this process ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Away {
    before_ms: u64,
    since: Option<Time>,
}

impl Away {
    /// From now on it cannot be reached, or could not already.
    pub fn begin(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    pub fn end(&mut self, now: Time) {
        self.before_ms = self.total_ms(now);
        self.since = None;
    }

    /// Whether it could have been reached between these two nobody knows.
    pub fn skip(&mut self, from: Time, to: Time) {
        if let Some(since) = &mut self.since {
            self.before_ms = self.before_ms.saturating_add(from.since_ms(*since));
            *since = to;
        }
    }

    pub fn total_ms(&self, now: Time) -> u64 {
        self.before_ms.saturating_add(self.since.map_or(0, |since| now.since_ms(since)))
    }
}

impl Edge {
    /// The connection to send on, once the session is open.
    pub fn open(&self) -> Option<ConnId> {
        match self.out {
            Outgoing::Open { conn, .. } => Some(conn),
            _ => None,
        }
    }

    pub fn hello(&self) -> Option<&Hello> {
        self.out.conn().and_then(|conn| self.conns.get(&conn)).map(|conn| &conn.hello)
    }

    pub fn is_idle(&self) -> bool {
        self.conns.is_empty() && self.asked.is_empty() && self.owed.is_empty() && self.reserved == 0
    }

    /// Forgets the session; both exchanges' maps stay.
    pub fn reset(&mut self) {
        self.out = Outgoing::Down;
        self.recv = None;
        self.their_epoch = 0;
        // It is said again in the next session.
        self.left = false;
        // Payments that were set aside are signed all the same.
        self.outbox.keep_late();
        let Outbox { requests, rejects, severed, late, .. } = std::mem::take(&mut self.outbox);
        self.outbox = Outbox { requests, rejects, severed, late, ..Outbox::default() };
        self.bulk.clear();
    }
}

/// Edges by peer.
pub(crate) type Edges = BTreeMap<NodeKey, Edge>;
