//! Connections between hosts: bytes of frames, in order per lane and direction.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use por_types::NodeKey;

use super::{Happening, Logged, World};
use crate::api::{ConnId, Input};
use crate::codec;
use crate::wire::{Frame, Hello, Lane, Part};

#[derive(Debug)]
pub struct Link {
    a: usize,
    b: usize,
    /// Ends that know of it: with the life in which they learned.
    alive: bool,
    /// When the last frame of each lane arrives, by receiving end and lane.
    last: BTreeMap<(usize, bool), u64>,
}

impl Link {
    pub(super) fn has(&self, host: usize) -> bool {
        self.a == host || self.b == host
    }

    fn other(&self, host: usize) -> usize {
        if self.a == host { self.b } else { self.a }
    }
}

impl World {
    pub(super) fn dial(&mut self, a: usize, b: usize) {
        let up = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
        let connected = self.links.values().any(|link| link.alive && link.has(a) && link.has(b));
        let parted = self.parted.contains(&(a.min(b), a.max(b)));
        if !up || parted || (connected && !self.rng.chance(self.options.faults.second)) {
            return;
        }
        let id = self.links.keys().next_back().map_or(1, |id| id + 1);
        self.links.insert(id, Link { a, b, alive: true, last: BTreeMap::new() });
        for (at, peer) in [(a, b), (b, a)] {
            let hello = Hello::new(World::network(), Lane::Control, &self.hosts[peer].limits);
            let peer = self.key(peer);
            // A frame never arrives before its receiver knows the connection.
            let life = self.hosts[at].life;
            let input = Input::Connected { peer, conn: ConnId(id), hello };
            self.at(0, Happening::Input { host: at, life, input });
        }
    }

    /// Breaks a connection: what is under way is lost, both ends learn it some time later.
    pub fn cut(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.alive) else { return };
        link.alive = false;
        let (a, b) = (link.a, link.b);
        for at in [a, b] {
            let delay = self.rng.below(2 * self.options.delay_ms + 1);
            self.at(delay, Happening::Broken { link: id, at });
        }
        let delay = 2 * self.options.delay_ms + 1 + self.rng.below(100);
        self.at(delay, Happening::Dial { a, b });
    }

    /// Cuts two hosts off from each other, for ever.
    pub fn part(&mut self, a: usize, b: usize) {
        self.parted.insert((a.min(b), a.max(b)));
        for id in self.links_between(a, b) {
            self.cut(id);
        }
    }

    /// All live connections between two hosts.
    pub fn links_between(&self, a: usize, b: usize) -> Vec<u64> {
        let between = self.links.iter().filter(|(_, link)| link.alive && link.has(a) && link.has(b));
        between.map(|(id, _)| *id).collect()
    }

    pub(super) fn broken(&mut self, id: u64, at: usize) -> Option<usize> {
        let peer = self.key(self.links.get(&id)?.other(at));
        self.hosts[at].handle(self.now, Input::Disconnected { peer, conn: ConnId(id) });
        Some(at)
    }

    pub(super) fn send(&mut self, from: usize, peer: NodeKey, conn: ConnId, lane: Lane, frame: Frame) {
        let ConnId(id) = conn;
        if self.is_muted(from, &frame) {
            return;
        }
        let sent = if let Frame::Fragment(fragment) = &frame { fragment.data.len() as u64 } else { 0 };
        if sent > 0 {
            let (life, input) = (self.hosts[from].life, Input::Drained { peer, conn, bytes: sent });
            self.at(1, Happening::Input { host: from, life, input });
        }
        if !self.links.get(&id).is_some_and(|link| link.alive && link.has(from)) {
            return;
        }
        if self.rng.chance(self.options.faults.cut) {
            return self.cut(id);
        }
        let frame = self.tampered(from, frame);
        let mut bytes = BytesMut::new();
        codec::encode(&frame, &mut bytes);
        let to = self.links.get(&id).map_or(from, |link| link.other(from));
        assert!(bytes.len() <= self.hosts[to].limits.max_frame as usize + 4, "frame over the limit");
        let copies =
            if lane == Lane::Control && self.rng.chance(self.options.faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let sent_ms = self.now;
            let received_ms = self.put(id, from, lane, bytes.clone().freeze());
            if self.options.log {
                self.log.push(Logged { from, to, sent_ms, received_ms, frame: frame.clone() });
            }
        }
    }

    /// Puts bytes on a link towards the other end of `from`.
    pub fn put(&mut self, id: u64, from: usize, lane: Lane, bytes: Bytes) -> u64 {
        let delay = self.delay(id);
        let Some(link) = self.links.get_mut(&id) else { return self.now };
        let to = link.other(from);
        let last = link.last.entry((to, lane == Lane::Bulk)).or_default();
        let arrival = (self.now + delay).max(*last);
        *last = arrival;
        let delay = arrival - self.now;
        self.at(delay, Happening::Arrive { link: id, to, bytes });
        arrival
    }

    /// What a frame takes over a link: as told for the pair, or by chance.
    fn delay(&mut self, id: u64) -> u64 {
        let pair = self.links.get(&id).map(|link| (link.a.min(link.b), link.a.max(link.b)));
        match pair.and_then(|pair| self.options.delays.get(&pair)) {
            Some(delay) => *delay,
            None => self.options.delay_ms + self.rng.below(self.options.delay_ms + 1),
        }
    }

    fn tampered(&self, from: usize, mut frame: Frame) -> Frame {
        let forges = self.options.forgers.contains(&from);
        let truncates = self.options.truncaters.contains(&from);
        if let Frame::Response(response) = &mut frame
            && (forges || truncates)
        {
            for body in response.responses.iter_mut().filter_map(|item| item.body.as_mut()) {
                let mut changed = body.to_vec();
                if truncates {
                    changed.pop();
                } else if let Some(byte) = changed.last_mut() {
                    *byte ^= 1;
                }
                *body = changed.into();
            }
        }
        frame
    }

    /// Whether a host that goes silent after an Ack is silent by now.
    fn is_muted(&mut self, host: usize, frame: &Frame) -> bool {
        if self.muted.contains(&host) || self.options.mute.contains(&host) {
            return true;
        }
        let takes = match frame {
            Frame::Credit(credit) => credit.part == Part::ResponseBody,
            Frame::Done(_) => true,
            _ => false,
        };
        if takes && self.options.stingy.contains(&host) {
            return true;
        }
        if !self.options.mute_after_ack.contains(&host) {
            return false;
        }
        if matches!(frame, Frame::Ack(ack) if !ack.exchanges.is_empty()) {
            self.muted.insert(host);
        }
        // Of an answer that is quick enough to come with the Ack.
        matches!(frame, Frame::Response(_))
    }

    pub(super) fn arrive(&mut self, id: u64, to: usize, bytes: Bytes) -> Option<usize> {
        let link = self.links.get(&id).filter(|link| link.alive)?;
        let peer = self.key(link.other(to));
        let mut decoder = codec::Decoder::new(self.hosts[to].limits.max_frame);
        let mut bytes = BytesMut::from(&bytes[..]);
        match decoder.decode(&mut bytes) {
            Ok(Some(frame)) => {
                self.hosts[to].handle(self.now, Input::Frame { peer, conn: ConnId(id), frame });
                Some(to)
            }
            Ok(None) => None,
            Err(_) => {
                self.cut(id);
                None
            }
        }
    }
}
