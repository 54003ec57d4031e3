//! One request at this node, from admission to Done, in the role the node plays for it.

use bytes::{Bytes, BytesMut};
use por_types::{
    AmountError, ChannelId, FlushProof, Item, ItemKind, NodeKey, RequestHead, RequestId, SeverOrder, Signed,
    SignedInvalid, Yocto,
};

use crate::api::{ANSWER_APP, ExchangeId, RejectReason, SignedReceipt, Time};
use crate::body::{Inflow, Outflow};
use crate::pace::Pace;
use crate::rows::{self, AnswerRow, BodyRow, Clock, JobRow, LegRow, RoleRow};

/// The request's passage over one edge of this node.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub peer: NodeKey,
    pub exchange: ExchangeId,
    /// Index in the route.
    pub hop: u8,
    /// Two nodes before the leg's end: of an outgoing leg of a relay, from whom the request came.
    pub via: NodeKey,
    /// As the route names it, or a parallel one of the same pair.
    pub channel: ChannelId,
    /// Prepayment over this edge.
    pub amount: Yocto,
    /// Body and response limit.
    pub bytes: u64,
    /// Counts as unanswered.
    pub open: bool,
    pub clock: Clock,
}

/// Why a leg cannot be made of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLeg;

impl From<AmountError> for BadLeg {
    fn from(_: AmountError) -> BadLeg {
        BadLeg
    }
}

impl Leg {
    pub fn new(head: &RequestHead, peer: NodeKey, exchange: ExchangeId, hop: u8) -> Result<Leg, BadLeg> {
        let edge = head.route.get(usize::from(hop)).ok_or(BadLeg)?;
        let amount = head.payment_at(usize::from(hop))?;
        let bytes = head.body_len.saturating_add(head.response_limit);
        let before = usize::from(hop).checked_sub(2).and_then(|index| head.route.get(index));
        let via = before.map_or(head.author, |hop| hop.to);
        Ok(Leg {
            peer,
            exchange,
            hop,
            via,
            channel: edge.channel,
            amount,
            bytes,
            open: true,
            clock: Clock::default(),
        })
    }

    pub fn row(&self) -> LegRow {
        let Leg { peer, exchange, hop, channel, clock, .. } = *self;
        LegRow { peer, exchange, hop, channel, clock }
    }

    pub fn item(&self, request: RequestId, kind: ItemKind) -> Item {
        Item { request, amount: self.amount, kind }
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    pub head: RequestHead,
    /// borsh bytes of `head` as the author signed them.
    pub head_bytes: Bytes,
    pub proof: FlushProof,
    pub pace: Pace,
    pub role: Role,
}

/// Legs are named by where they lead: `from` towards the author, `to` towards the destination.
#[derive(Debug)]
pub(crate) enum Role {
    Author(Author),
    Relay(Relay),
    Destination {
        from: Leg,
        stage: Asked,
    },
    /// Holds the response until the upstream node is done with it.
    Answered {
        from: Leg,
        receipt: SignedReceipt,
        reply: Outflow,
        earned: Yocto,
        /// By this node's app; else passed on.
        served: bool,
        /// Passed on and not stored: the downstream node keeps it, as this exchange, until the upstream
        /// one has it. After a crash it comes again.
        below: Option<(NodeKey, ExchangeId)>,
    },
    /// Refunded; kept until the upstream node knows.
    Rejected {
        from: Leg,
        reason: RejectReason,
        invalid: Option<SignedInvalid>,
    },
    /// An edge further on was removed; kept until the upstream node knows.
    Severed {
        from: Leg,
        order: Signed<SeverOrder>,
        /// The prices from that edge on.
        refund: Yocto,
        /// Refunded; until then the leg counts as unanswered.
        sent: bool,
        /// Perhaps an answer had been passed on before this process started; upstream tells.
        unsure: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Author {
    pub to: Leg,
    pub body: Outflow,
    pub acked: bool,
    /// The request's body has left this node.
    pub uploaded: bool,
    /// Once this batch is durable the application knows of the request.
    pub batch: u64,
    /// A big response under way.
    pub reply: Option<Box<Arriving>>,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub from: Leg,
    pub to: Leg,
    pub body: Outflow,
    pub acked: bool,
    /// When the downstream node was asked for the first time.
    pub first: Time,
    /// The downstream node has refused and given the money back; it is asked again then. The leg
    /// counts as unanswered all the while: this node is under obligation.
    pub again: Option<Time>,
    /// How often it was to be asked again.
    pub tries: u32,
    /// Since when the Ack for upstream waits for what the downstream node says; `None` once it was given.
    pub unsaid: Option<Time>,
    /// From before this process started.
    pub restored: bool,
    /// A big response under way: verified here, passed on as it arrives.
    pub reply: Option<Box<Passing>>,
}

#[derive(Debug)]
pub(crate) struct Arriving {
    pub receipt: SignedReceipt,
    pub inflow: Inflow,
    pub data: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Passing {
    pub receipt: SignedReceipt,
    pub flow: Outflow,
    /// Another answer of the destination, which came when the one here was whole: needed where upstream has
    /// lost that, as the downstream node has this one now.
    pub newer: Option<SignedReceipt>,
}

/// A request at its destination.
#[derive(Debug)]
pub(crate) enum Asked {
    Uploading {
        inflow: Inflow,
        data: BytesMut,
    },
    /// With the app.
    Queued {
        body: Bytes,
    },
}

impl Job {
    /// The leg towards the author; `None` at the author.
    pub fn from(&self) -> Option<&Leg> {
        match &self.role {
            Role::Author(_) => None,
            Role::Relay(relay) => Some(&relay.from),
            Role::Destination { from, .. }
            | Role::Answered { from, .. }
            | Role::Rejected { from, .. }
            | Role::Severed { from, .. } => Some(from),
        }
    }

    pub fn upstream_mut(&mut self) -> Option<&mut Leg> {
        match &mut self.role {
            Role::Author(_) => None,
            Role::Relay(relay) => Some(&mut relay.from),
            Role::Destination { from, .. }
            | Role::Answered { from, .. }
            | Role::Rejected { from, .. }
            | Role::Severed { from, .. } => Some(from),
        }
    }

    pub fn downstream_mut(&mut self) -> Option<&mut Leg> {
        match &mut self.role {
            Role::Author(author) => Some(&mut author.to),
            Role::Relay(relay) => Some(&mut relay.to),
            _ => None,
        }
    }

    /// Since when the Ack for upstream waits.
    pub fn unsaid(&self) -> Option<Time> {
        if let Role::Relay(relay) = &self.role { relay.unsaid } else { None }
    }

    /// The Ack that waits, if one does, waits no more.
    pub fn take_unsaid(&mut self) -> Option<Time> {
        if let Role::Relay(relay) = &mut self.role { relay.unsaid.take() } else { None }
    }

    /// The downstream node is under obligation.
    pub fn is_acked(&self) -> bool {
        match &self.role {
            Role::Author(author) => author.acked,
            Role::Relay(relay) => relay.acked,
            _ => true,
        }
    }

    /// The whole answer is here.
    pub fn is_answered(&self) -> bool {
        match &self.role {
            Role::Answered { .. } => true,
            Role::Relay(relay) => relay.reply.as_ref().is_some_and(|passing| passing.flow.is_whole()),
            _ => false,
        }
    }

    /// The leg towards the destination, while something is expected from there.
    pub fn to(&self) -> Option<&Leg> {
        match &self.role {
            Role::Author(author) => Some(&author.to),
            Role::Relay(relay) => Some(&relay.to),
            _ => None,
        }
    }

    /// The request's body as it goes downstream.
    pub fn upload(&mut self) -> Option<&mut Outflow> {
        match &mut self.role {
            Role::Author(author) => Some(&mut author.body),
            Role::Relay(relay) => Some(&mut relay.body),
            _ => None,
        }
    }

    /// The response as it goes upstream.
    pub fn reply(&mut self) -> Option<(&SignedReceipt, &mut Outflow)> {
        match &mut self.role {
            Role::Answered { receipt, reply, .. } => Some((receipt, reply)),
            Role::Relay(Relay { reply: Some(passing), .. }) => Some((&passing.receipt, &mut passing.flow)),
            _ => None,
        }
    }

    /// The request's body as it arrives from upstream.
    pub fn upload_inflow(&mut self) -> Option<&mut Inflow> {
        match &mut self.role {
            Role::Relay(relay) => relay.body.inflow(),
            Role::Destination { stage: Asked::Uploading { inflow, .. }, .. } => Some(inflow),
            _ => None,
        }
    }

    /// The response as it arrives from downstream.
    pub fn reply_inflow(&mut self) -> Option<&mut Inflow> {
        match &mut self.role {
            Role::Author(author) => author.reply.as_mut().map(|arriving| &mut arriving.inflow),
            Role::Relay(relay) => relay.reply.as_mut().and_then(|passing| passing.flow.inflow()),
            _ => None,
        }
    }

    /// The channel that the route names for the leg towards the destination.
    pub fn named(&self) -> Option<ChannelId> {
        Some(self.head.route.get(usize::from(self.to()?.hop))?.channel)
    }

    /// When the downstream node, which has refused, is asked again.
    pub fn refused_until(&self) -> Option<Time> {
        if let Role::Relay(relay) = &self.role { relay.again } else { None }
    }

    /// The downstream node has refused, and is asked again later.
    pub fn is_refused(&self) -> bool {
        self.refused_until().is_some()
    }

    /// When the downstream node was asked for the first time.
    pub fn first_asked(&self) -> Time {
        match &self.role {
            Role::Relay(relay) => relay.first,
            _ => self.to().map_or(Time::default(), |to| to.clock.since),
        }
    }

    /// The downstream node has refused before; or this is to find out whether the destination is there
    /// at all.
    pub fn is_insisting(&self) -> bool {
        match &self.role {
            Role::Author(_) => self.head.app == ANSWER_APP,
            Role::Relay(relay) => relay.first < relay.to.clock.since,
            _ => false,
        }
    }

    /// From where on the upstream node shall send the request body, and its credit.
    pub fn upload_wanted(&mut self) -> (u64, u64) {
        let end = crate::verified::encoded_len(self.head.body_len);
        self.upload_inflow().and_then(Inflow::resume).unwrap_or((end, end))
    }

    /// The row that stands for this job; `None` if the one on disk still does.
    pub fn row(&self) -> Option<JobRow<&[u8], &FlushProof>> {
        let role = match &self.role {
            Role::Author(author) => {
                RoleRow::Author { out: author.to.row(), body: body_row(author.body.body()) }
            }
            Role::Relay(relay) => RoleRow::Relay {
                up: relay.from.row(),
                down: relay.to.row(),
                body: relay.body.body().map_or(BodyRow::Absent, |body| BodyRow::Inline(&body[..])),
                first: relay.first,
                waiting: relay.again.is_some(),
            },
            Role::Destination { from, stage: Asked::Uploading { .. } } => {
                RoleRow::Destination { up: from.row(), body: BodyRow::Absent }
            }
            Role::Destination { from, stage: Asked::Queued { body } } => {
                RoleRow::Destination { up: from.row(), body: body_row(Some(body)) }
            }
            // Has a row of its own.
            Role::Answered { .. } => return None,
            Role::Rejected { from, reason, invalid } => {
                RoleRow::Rejected { up: from.row(), reason: *reason, invalid: invalid.clone() }
            }
            Role::Severed { from, order, refund, sent, .. } => {
                RoleRow::Severed { up: from.row(), order: order.clone(), refund: *refund, sent: *sent }
            }
        };
        Some(JobRow { head: &self.head_bytes, proof: &self.proof, role })
    }

    /// Its body may have rows of its own: an own request's, and one that ends here. A relay has at most a body
    /// that came inside its frame, in the job's row.
    pub fn has_chunks(&self) -> bool {
        matches!(self.role, Role::Author(_) | Role::Destination { .. } | Role::Answered { served: true, .. })
    }

    /// The clock towards upstream of an answer that has no row, if lateness was paid for it.
    pub fn paid_clock(&self) -> Option<Clock> {
        let Role::Answered { from, served: true, .. } = &self.role else { return None };
        Some(from.clock).filter(|clock| !clock.late.is_zero())
    }

    /// The row of an answer; `None` if there is none to store: a big response is not, after a restart
    /// the app is asked again, nor is what the downstream node keeps.
    pub fn answer_row(&self, max_inline: u32) -> Option<AnswerRow<&[u8], &SignedReceipt>> {
        let Role::Answered { from, receipt, reply, earned, served, below: None } = &self.role else {
            return None;
        };
        let body = reply.body().filter(|body| !served || body.len() <= max_inline as usize)?;
        Some(AnswerRow { up: from.row(), receipt, body, earned: *earned, served: *served })
    }
}

fn body_row(body: Option<&Bytes>) -> BodyRow<&[u8]> {
    match body {
        None => BodyRow::Absent,
        Some(body) => match rows::chunks(body.len()) {
            0 => BodyRow::Inline(body),
            count => BodyRow::Chunks(count),
        },
    }
}
