//! A node made of its rows: exchanges go on where they were.

use borsh::BorshDeserialize;
use bytes::{Bytes, BytesMut};
use por_types::{RequestHead, RequestId};

use crate::api::{RestoreError, Row, Table};
use crate::body::{Inflow, Outflow};
use crate::job::{Asked, Author, Job, Leg, Relay, Role};
use crate::ledger::Channel;
use crate::node::Node;
use crate::pace::Pace;
use crate::rows::{self, AnswerRow, JobRow, LegRow, Loaded, RoleRow};
use crate::verified::Encoder;

impl Node {
    pub(crate) fn restore(&mut self, mut loaded: Loaded) -> Result<(), RestoreError> {
        self.restore_meta(&loaded)?;
        for row in std::mem::take(&mut loaded.channels) {
            self.with_peer.entry(row.peer).or_default().insert(row.channel);
            self.channels.insert(row.channel, Channel::restore(row));
        }
        for (row, job) in std::mem::take(&mut loaded.jobs) {
            self.restore_job(&mut loaded, &row, job)?;
        }
        loaded.check_answers()
    }

    fn restore_meta(&mut self, loaded: &Loaded) -> Result<(), RestoreError> {
        let foreign = || RestoreError::Foreign { table: Table::Meta, key: "node".into() };
        match &loaded.meta {
            Some(meta) if meta.node == self.key && meta.network == self.config.network => {
                self.boot = meta.boot.checked_add(1).ok_or_else(foreign)?;
            }
            Some(_) => return Err(foreign()),
            None if loaded.channels.is_empty() && loaded.jobs.is_empty() => self.boot = 1,
            None => return Err(foreign()),
        }
        self.save_meta();
        Ok(())
    }

    fn restore_job(&mut self, loaded: &mut Loaded, row: &Row, job: JobRow) -> Result<(), RestoreError> {
        let bad = |cause: &str| rows::damaged(row, cause);
        let key = row.key.get(..32).unwrap_or_default();
        let id = RequestId::try_from(key).map_err(|_| bad("key"))?;
        let head = RequestHead::try_from_slice(&job.head).map_err(|_| bad("request head"))?;
        if head.id(&self.config.network) != id {
            return Err(bad("request head of another request"));
        }
        let leg = |row: &LegRow| {
            let leg = Leg::new(&head, row.peer, row.exchange, row.hop);
            leg.map(|leg| Leg { channel: row.channel, clock: row.clock, ..leg })
                .map_err(|_| bad("hop outside the route"))
        };
        let (answer, pace) = (loaded.answer(&id), Pace::restored(loaded.waits_ms(&id)));
        if let Some(AnswerRow { up, receipt, body, earned, served }) = answer {
            let reply = Outflow::whole(Encoder::new(Bytes::from(body)));
            let from = closed(leg(&up)?);
            let role = Role::Answered { from, receipt, reply, earned, served, below: None };
            self.enter(id, Job { head, head_bytes: job.head.into(), proof: job.proof, pace, role });
            return Ok(());
        }
        let role = match &job.role {
            RoleRow::Author { out, body } => {
                let body = loaded.body(row, &id, body)?.ok_or_else(|| bad("own request without its body"))?;
                self.local += 1;
                let body = Outflow::whole(Encoder::new(body));
                Role::Author(Author {
                    to: leg(out)?,
                    body,
                    acked: false,
                    uploaded: true,
                    batch: 0,
                    reply: None,
                })
            }
            RoleRow::Relay { up, down, body, first, waiting } => {
                let body = match loaded.body(row, &id, body)? {
                    Some(body) => Outflow::whole(Encoder::new(body)),
                    None => Outflow::piped(self.dormant(&head).ok_or_else(|| bad("body"))?),
                };
                let again = waiting.then_some(*first);
                let (from, to) = (leg(up)?, leg(down)?);
                let (first, tries) = (*first, 0);
                // Whether upstream has the Ack is not known: the session tells it.
                let (acked, unsaid, restored, reply) = (false, None, true, None);
                Role::Relay(Relay { from, to, body, acked, first, again, tries, unsaid, restored, reply })
            }
            RoleRow::Destination { up, body } => {
                self.enqueue(&head.app, id, up.peer);
                let stage = match loaded.body(row, &id, body)? {
                    Some(body) => Asked::Queued { body },
                    None => self.uploading(&head).ok_or_else(|| bad("body"))?,
                };
                let up = LegRow { clock: loaded.clock(&id, up.clock), ..up.clone() };
                Role::Destination { from: leg(&up)?, stage }
            }
            RoleRow::Rejected { up, reason, invalid } => {
                Role::Rejected { from: closed(leg(up)?), reason: *reason, invalid: invalid.clone() }
            }
            RoleRow::Severed { up, order, refund, sent } => {
                let from = if *sent { closed(leg(up)?) } else { leg(up)? };
                Role::Severed { from, order: order.clone(), refund: *refund, sent: *sent, unsure: !sent }
            }
        };
        self.enter(id, Job { head, head_bytes: job.head.into(), proof: job.proof, pace, role });
        Ok(())
    }

    fn enter(&mut self, id: RequestId, job: Job) {
        self.index(id, &job);
        self.jobs.insert(id, job);
    }

    fn uploading(&self, head: &RequestHead) -> Option<Asked> {
        let inflow = Inflow::new(head.body_hash, head.body_len, self.config.limits.window).ok()?;
        Some(Asked::Uploading { inflow, data: BytesMut::new() })
    }

    fn dormant(&self, head: &RequestHead) -> Option<Inflow> {
        Inflow::dormant(head.body_hash, head.body_len, self.config.limits.window).ok()
    }

    /// Enters a restored job in the edges' maps and counts what it holds.
    fn index(&mut self, id: RequestId, job: &Job) {
        let relay = self.is_relay(&job.head.destination);
        if let Some(from) = job.from() {
            let reserved = match job.role {
                Role::Rejected { .. } | Role::Severed { .. } => 0,
                _ => self.reservation(from, job.head.body_len, relay),
            };
            let edge = self.edge(from.peer);
            edge.owed.insert(from.exchange, id);
            edge.reserved = edge.reserved.saturating_add(reserved);
            if from.open {
                self.load(from, true);
            }
        }
        if let Some(to) = job.to() {
            let edge = self.edge(to.peer);
            edge.asked.insert(to.exchange, id);
            if job.from().is_none() {
                edge.reserved = edge.reserved.saturating_add(to.bytes);
            }
            if to.open {
                self.load(to, false);
            }
        }
    }
}

fn closed(leg: Leg) -> Leg {
    Leg { open: false, ..leg }
}
