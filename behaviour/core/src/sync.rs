//! Sessions: connections come and go, both sides learn what the other has (see [`crate::wire::Sync`]).

use std::collections::HashMap;

use por_types::{NodeKey, RequestId};

use crate::api::{ConnId, Event, ExchangeId, Output};
use crate::edge::{Conn, Outbox, Outgoing, Queued, QueuedReply};
use crate::fault::Fault;
use crate::job::Role;
use crate::ledger::Channel;
use crate::node::Node;
use crate::store::Held;
use crate::verified::encoded_len;
use crate::wire::{Credit, Frame, Hello, Lane, LateDue, Part, SeenChannel, Sync, SyncChannel, SyncExchange};

/// Most connections with one peer.
const MAX_CONNS: usize = 8;

/// Most epochs that a peer may begin on one connection.
const MAX_EPOCHS: u32 = 64;

/// How long a peer may take to answer a session's first Sync, milliseconds.
const SYNC_TIMEOUT_MS: u64 = 30_000;

/// How long a peer that uses another connection may at least take to follow this node, milliseconds.
const FOLLOW_MS: u64 = 500;

/// Channels and exchanges in one Sync: stays far below the smallest frame limit.
const CHANNELS_PER_SYNC: usize = 48;
const EXCHANGES_PER_SYNC: usize = 512;
const SEEN_PER_SYNC: usize = 512;

/// Most channels that a peer may say to see.
const MAX_SEEN: usize = 4096;

impl Node {
    pub(crate) fn on_connected(&mut self, peer: NodeKey, conn: ConnId, hello: Hello) {
        if hello.check(&self.config.network).is_err() || peer == self.key {
            return self.outputs.push_back(Output::Disconnect { peer, conn });
        }
        let edge = self.edge(peer);
        if edge.conns.len() >= MAX_CONNS {
            // One that neither direction uses: the peer may have lost it and this node not know.
            let used = [edge.out.conn(), edge.recv];
            let idle = edge.conns.keys().find(|idle| !used.contains(&Some(**idle))).copied();
            let least = idle.unwrap_or(conn);
            self.outputs.push_back(Output::Disconnect { peer, conn: least });
            if least == conn {
                return;
            }
            self.on_disconnected(peer, least);
        }
        self.not_alone();
        let edge = self.edge(peer);
        edge.conns.insert(conn, Conn { hello, unwritten: 0, epochs: 0 });
        if matches!(edge.out, Outgoing::Down) {
            self.start_session(peer, conn);
        }
    }

    /// Everything sent before may be lost: a new epoch on this connection.
    fn start_session(&mut self, peer: NodeKey, conn: ConnId) {
        let epoch = self.next_number();
        let now = self.now;
        let edge = self.edge(peer);
        edge.away.begin(now);
        edge.out = Outgoing::Syncing { conn, epoch, known: HashMap::new() };
        edge.probed = now;
        // Credit from before is void; what comes from now on says what the peer wants.
        let asked: Vec<RequestId> = edge.asked.values().copied().collect();
        for id in asked {
            if let Some(flow) = self.flow(id, Part::RequestBody) {
                flow.pause();
            }
        }
        self.syncing.insert((self.now.after_ms(SYNC_TIMEOUT_MS), peer, epoch));
        self.outbox(peer).probe = true;
        self.sample_owed(peer);
    }

    pub(crate) fn on_disconnected(&mut self, peer: NodeKey, conn: ConnId) {
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        if edge.conns.remove(&conn).is_none() {
            return;
        }
        if edge.recv == Some(conn) {
            edge.recv = None;
        }
        let next = edge.conns.keys().next().copied();
        match next {
            Some(next) if edge.out.conn() == Some(conn) => self.start_session(peer, next),
            Some(_) => {}
            None => {
                let told = std::mem::take(&mut edge.told);
                edge.turned = self.now;
                edge.away.begin(self.now);
                edge.reset();
                if edge.is_idle() {
                    self.edges.remove(&peer);
                } else {
                    self.sample_owed(peer);
                }
                self.unhear_channels(peer);
                self.perhaps_alone();
                if told {
                    self.notify(Event::PeerLost { peer });
                }
            }
        }
    }

    pub(crate) fn on_sync(&mut self, peer: NodeKey, conn: ConnId, sync: Sync) -> Result<(), Fault> {
        let me = self.key;
        let edge = self.edge(peer);
        let answers = sync.answers != 0;
        if !answers {
            if sync.epoch < edge.their_epoch || (sync.epoch == edge.their_epoch && edge.recv != Some(conn)) {
                return Ok(());
            }
            if sync.epoch > edge.their_epoch {
                // The upper half of an epoch counts the peer's starts.
                let restarted = edge.their_epoch != 0 && sync.epoch >> 32 != edge.their_epoch >> 32;
                (edge.their_epoch, edge.recv) = (sync.epoch, Some(conn));
                if let Some(conn) = edge.conns.get_mut(&conn) {
                    conn.epochs += 1;
                    if conn.epochs > MAX_EPOCHS {
                        return Err(Fault::new("begins one session after the other"));
                    }
                }
                edge.outbox.answer = Some((conn, sync.epoch));
                // What it says now is all that it sees.
                self.unhear_channels(peer);
                self.busy.insert(peer);
                // One of the two follows the other's choice of connection, so that both use the same; a
                // process that has restarted cannot have the old one any more.
                if self.edge(peer).out.conn() != Some(conn) {
                    if restarted || me > peer {
                        self.start_session(peer, conn);
                    } else {
                        let time = self.now.after_ms(self.told_within_ms(peer).max(FOLLOW_MS));
                        self.strays.insert((time, peer));
                    }
                }
            }
        }
        // An answer to an earlier epoch may be from before the peer started anew.
        if !answers || sync.answers == self.edge(peer).out.epoch() {
            self.hear_channels(peer, &sync.seen);
        }
        sync.channels.iter().try_for_each(|channel| self.sync_channel(peer, channel))?;
        if answers {
            self.sync_answer(peer, sync)?;
        }
        self.tell_ready(peer);
        Ok(())
    }

    /// The peer was to follow this node to the connection that it uses, and has not: it has lost that one.
    pub(crate) fn on_stray(&mut self, peer: NodeKey) {
        let Some(edge) = self.edges.get(&peer) else { return };
        if let Some(theirs) = edge.recv
            && edge.out.conn().is_some_and(|ours| ours != theirs)
        {
            self.start_session(peer, theirs);
        }
    }

    /// Deposits only grow, and what two connections bring may come in any order: the most counts.
    fn hear_channels(&mut self, peer: NodeKey, seen: &[SeenChannel]) {
        for SeenChannel { channel: id, deposit } in seen {
            let known = &mut self.edge(peer).seen;
            if known.len() < MAX_SEEN || known.contains_key(id) {
                let most = known.entry(*id).or_default();
                *most = (*most).max(*deposit);
            }
            if let Some(channel) = self.channels.get_mut(id).filter(|channel| channel.row.peer == peer) {
                channel.heard = channel.heard.max(Some(*deposit));
            }
        }
    }

    /// What the peer sees on chain is not known any more.
    fn unhear_channels(&mut self, peer: NodeKey) {
        if let Some(edge) = self.edges.get_mut(&peer) {
            edge.seen.clear();
        }
        for id in self.with_peer.get(&peer).into_iter().flatten() {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.heard = None;
            }
        }
    }

    fn sync_channel(&mut self, peer: NodeKey, sync: &SyncChannel) -> Result<(), Fault> {
        if let Some(held) = &sync.theirs {
            let id = held.statement.channel;
            let known = self.channels.get_mut(&id).filter(|channel| channel.row.peer == peer);
            if let Some(channel) = known
                && channel.recall(&self.config.network, &self.key, held)?
            {
                tracing::warn!(%id, "the peer holds a newer payment of this node than its store");
                self.dirty_channels.insert(id);
            }
        }
        let Some(own) = &sync.own else { return Ok(()) };
        let known = self.channels.get(&own.statement.channel);
        // A channel that this node does not have yet is left for the next Sync.
        if known.is_some_and(|channel| channel.info.is_some()) {
            return self.take_payment(peer, own, None).map(drop);
        }
        let total = |channel: &Channel| own.statement.totals.sent_by(channel.row.side.other());
        let news = known.is_none_or(|channel| total(channel) > channel.row.their_total);
        if !self.knows_chain && news {
            self.edge(peer).left = true;
        }
        Ok(())
    }

    fn sync_answer(&mut self, peer: NodeKey, sync: Sync) -> Result<(), Fault> {
        let now = self.now;
        let edge = self.edge(peer);
        let Outgoing::Syncing { conn, epoch, known } = &mut edge.out else { return Ok(()) };
        if *epoch != sync.answers {
            return Ok(());
        }
        let mut ended = Vec::new();
        for exchange in sync.known {
            match edge.asked.get(&exchange.exchange) {
                Some(id) if *id == exchange.request => {
                    known.insert(exchange.exchange, exchange);
                }
                Some(_) => return Err(Fault::new("one exchange number for two requests")),
                None => ended.push(exchange.exchange),
            }
        }
        let opened = sync.complete.then(|| (*conn, *epoch, std::mem::take(known)));
        if let Some((conn, epoch, known)) = opened {
            edge.out = Outgoing::Open { conn, epoch };
            edge.away.end(now);
            let since = edge.probed;
            self.measured(peer, since);
            self.syncing.retain(|(_, syncing, _)| *syncing != peer);
            self.excuse(peer);
            self.open(peer, known)?;
            self.make_up(peer);
        }
        // The peer waits for Done of exchanges that this node has ended.
        self.outbox(peer).done.extend(ended);
        Ok(())
    }

    fn tell_ready(&mut self, peer: NodeKey) {
        let edge = self.edge(peer);
        if edge.open().is_some() && edge.recv.is_some() && !edge.told {
            edge.told = true;
            self.notify(Event::PeerReady { peer });
        }
    }

    /// The session is open: everything unfinished is sent again where it is needed.
    fn open(&mut self, peer: NodeKey, known: HashMap<ExchangeId, SyncExchange>) -> Result<(), Fault> {
        let edge = self.edge(peer);
        edge.bulk.clear();
        edge.outbox.keep_late();
        let Outbox { requests, rejects, severed, responses, .. } = &mut edge.outbox;
        // Not yet paid for or never sent: go out as they are.
        let queued: Vec<RequestId> = requests
            .iter()
            .chain(rejects.iter())
            .chain(severed.iter())
            .map(|queued| queued.request)
            .chain(responses.drain(..).map(|queued| queued.request))
            .collect();
        let queued: std::collections::HashSet<RequestId> = queued.into_iter().collect();
        let asked: Vec<_> = edge.asked.iter().map(|(exchange, id)| (*exchange, *id)).collect();
        let owed: Vec<_> = edge.owed.iter().map(|(exchange, id)| (*exchange, *id)).collect();
        for &(exchange, id) in &asked {
            self.credit_again(peer, exchange, id, Part::ResponseBody);
            if let Some(flow) = self.flow(id, Part::RequestBody) {
                flow.listed = false;
            }
            match known.get(&exchange).filter(|_| self.asked(peer, exchange).is_some()) {
                Some(theirs) => self.resume_asked(peer, id, theirs)?,
                None if queued.contains(&id) => {}
                None => self.ask_again(peer, id),
            }
        }
        for (exchange, id) in owed {
            self.credit_again(peer, exchange, id, Part::RequestBody);
            self.answer_again(peer, exchange, id, queued.contains(&id));
        }
        let paid = self.channels_with(peer).filter(|(_, channel)| channel.row.their_payment.is_some());
        let receipts: Vec<_> = paid.map(|(id, _)| id).collect();
        self.outbox(peer).receipts.extend(receipts);
        Ok(())
    }

    fn resume_asked(&mut self, peer: NodeKey, id: RequestId, theirs: &SyncExchange) -> Result<(), Fault> {
        if theirs.acked {
            self.acked(id);
        }
        let Some(job) = self.jobs.get(&id) else { return Ok(()) };
        let wanted = theirs.body_bytes < encoded_len(job.head.body_len);
        let credited = self.flow(id, Part::RequestBody).is_some_and(|flow| flow.has_credit());
        if credited || !wanted {
            // Credit that has come since the session began is newer than the peer's answer.
            self.list(peer, id, Part::RequestBody);
            return Ok(());
        }
        self.resume(peer, id, Part::RequestBody, theirs.body_bytes, theirs.credit)
    }

    fn ask_again(&mut self, peer: NodeKey, id: RequestId) {
        if let Some(flow) = self.flow(id, Part::RequestBody) {
            flow.pause();
        }
        let Some(job) = self.jobs.get(&id) else { return };
        if let Some(time) = job.refused_until() {
            // What was due while the peer was away is made up for.
            if time <= self.now {
                self.retries.insert((time, id));
            }
            return;
        }
        let acked = match &job.role {
            Role::Author(author) => author.acked,
            Role::Relay(relay) => relay.acked,
            _ => false,
        };
        if acked {
            let reason = format!("has forgotten request {id} that it had acknowledged");
            self.notify(Event::Misbehaved { peer, reason });
        }
        self.outbox(peer).requests.push(Queued { request: id, fresh: false });
    }

    /// Credit that was given may be lost: says again where a body that arrives here goes on.
    fn credit_again(&mut self, peer: NodeKey, exchange: ExchangeId, id: RequestId, part: Part) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let inflow = match part {
            Part::RequestBody => job.upload_inflow(),
            Part::ResponseBody => job.reply_inflow(),
        };
        let Some(inflow) = inflow else { return };
        let body = inflow.root();
        if let Some((from, up_to)) = inflow.resume() {
            self.outbox(peer).credits.push(Credit { exchange, part, body, up_to, from: Some(from) });
        }
    }

    fn answer_again(&mut self, peer: NodeKey, exchange: ExchangeId, id: RequestId, queued: bool) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.take_unsaid();
        let (refused, proven) = match &job.role {
            Role::Rejected { .. } => (true, false),
            Role::Severed { sent, .. } => (false, *sent),
            _ => (false, false),
        };
        let late = job.from().is_some_and(|from| from.open && !from.clock.late.is_zero());
        let answered = job.is_answered();
        if late {
            self.outbox(peer).resent_late.push(id);
        }
        if answered {
            let due = self.close_upstream(id);
            if !due.amount.is_zero() {
                self.outbox(peer).late.push((id, due));
            }
        }
        if !refused {
            self.outbox(peer).acks.push(exchange);
        }
        if proven && !queued {
            self.outbox(peer).severed.push(Queued { request: id, fresh: false });
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some((_, flow)) = job.reply() {
            flow.listed = false;
            flow.pause();
            self.outbox(peer).responses.push(QueuedReply {
                request: id,
                resume: true,
                late: LateDue::default(),
            });
        } else if refused && !queued {
            self.outbox(peer).rejects.push(Queued { request: id, fresh: false });
        }
    }

    /// Sync frames of this flush: the probe of a new epoch and the answer to the peer's.
    pub(crate) fn flush_sync(&mut self, peer: NodeKey) {
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        let probe = std::mem::take(&mut edge.outbox.probe);
        let answer = edge.outbox.answer.take();
        let epoch = edge.out.epoch();
        let conn = edge.out.conn();
        if probe || answer.is_some() {
            edge.unsaid.clear();
        }
        if probe && let Some(conn) = conn {
            let parts = self.sync_channels(peer);
            self.hold_syncs(peer, conn, epoch, 0, parts, Vec::new());
        }
        if let Some((conn, answers)) = answer {
            let parts = self.sync_channels(peer);
            let known = self.sync_known(peer);
            self.hold_syncs(peer, conn, epoch, answers, parts, known);
        }
    }

    fn sync_channels(&self, peer: NodeKey) -> Vec<SyncChannel> {
        let states = self.channels_with(peer).map(|(_, channel)| SyncChannel {
            own: channel.row.own_payment.clone(),
            theirs: channel.row.their_payment.clone(),
        });
        states.filter(|state| state.own.is_some() || state.theirs.is_some()).collect()
    }

    /// The channels with a peer as this node sees them on chain.
    fn sync_seen(&self, peer: NodeKey) -> Vec<SeenChannel> {
        let seen = self.channels_with(peer).filter_map(|(channel, entry)| {
            let info = entry.info.as_ref()?;
            Some(SeenChannel { channel, deposit: info.deposit_theirs })
        });
        seen.collect()
    }

    /// Says what this node sees of the chain now.
    pub(crate) fn flush_seen(&mut self, peer: NodeKey, conn: ConnId, epoch: u64) {
        for part in self.sync_seen(peer).chunks(SEEN_PER_SYNC) {
            let frame = Frame::Sync(Sync { epoch, seen: part.to_vec(), complete: true, ..Sync::default() });
            self.store.hold(Held::Output(Output::Send { peer, conn, lane: Lane::Control, frame }));
        }
    }

    /// Payments that the session's Sync could not tell of yet.
    pub(crate) fn flush_unsaid(&mut self, peer: NodeKey, conn: ConnId, epoch: u64) {
        for id in std::mem::take(&mut self.edge(peer).unsaid) {
            let own = self.channels.get(&id).and_then(|channel| channel.row.own_payment.clone());
            let channels = vec![SyncChannel { own, theirs: None }];
            let frame = Frame::Sync(Sync { epoch, channels, complete: true, ..Sync::default() });
            self.store.hold(Held::Output(Output::Send { peer, conn, lane: Lane::Control, frame }));
        }
    }

    fn sync_known(&mut self, peer: NodeKey) -> Vec<SyncExchange> {
        let owed: Vec<_> = self.edge(peer).owed.iter().map(|(exchange, id)| (*exchange, *id)).collect();
        let mut known = Vec::with_capacity(owed.len());
        for (exchange, request) in owed {
            let Some(job) = self.jobs.get_mut(&request) else { continue };
            // From here on the peer may know.
            job.take_unsaid();
            let acked = !matches!(job.role, Role::Rejected { .. });
            let (body_bytes, credit) = job.upload_wanted();
            known.push(SyncExchange { exchange, request, acked, body_bytes, credit });
        }
        known
    }

    fn hold_syncs(
        &mut self,
        peer: NodeKey,
        conn: ConnId,
        epoch: u64,
        answers: u64,
        channels: Vec<SyncChannel>,
        known: Vec<SyncExchange>,
    ) {
        let empty = Sync { epoch, answers, ..Sync::default() };
        let mut parts: Vec<Sync> = Vec::new();
        for part in self.sync_seen(peer).chunks(SEEN_PER_SYNC) {
            parts.push(Sync { seen: part.to_vec(), ..empty.clone() });
        }
        for part in channels.chunks(CHANNELS_PER_SYNC) {
            parts.push(Sync { channels: part.to_vec(), ..empty.clone() });
        }
        for part in known.chunks(EXCHANGES_PER_SYNC) {
            parts.push(Sync { known: part.to_vec(), ..empty.clone() });
        }
        if parts.is_empty() {
            parts.push(empty);
        }
        if let Some(last) = parts.last_mut() {
            last.complete = true;
        }
        for sync in parts {
            let frame = Frame::Sync(sync);
            self.store.hold(Held::Output(Output::Send { peer, conn, lane: Lane::Control, frame }));
        }
    }
}
