//! The world's chain, and what each host has seen of it.

use por_types::{AccountId, ChannelId, SeverOrder, Side, Signed, Totals, Yocto};

use super::{CHAIN_TIME_MS, Edge, Happening, World};
use crate::api::{GraphEdge, Input, MyChannel};

/// What the chain has of a channel. Deposits grow, and a channel that closes stays closed.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// By side.
    deposits: [Yocto; 2],
    open: bool,
    /// The close has taken effect.
    gone: bool,
}

impl Record {
    /// Takes in another view of the same channel, an older one perhaps.
    fn merge(&mut self, other: &Record) {
        for (own, others) in self.deposits.iter_mut().zip(other.deposits) {
            *own = (*own).max(others);
        }
        self.open &= other.open;
        self.gone |= other.gone;
    }
}

impl World {
    pub(super) fn delay_views(&mut self) {
        if self.options.lag_ms == 0 {
            return;
        }
        for host in 0..self.hosts.len() {
            for edge in self.edges.clone() {
                let delay = self.rng.below(self.options.lag_ms);
                self.seen_at.insert((host, edge.channel), delay);
                if edge.a == host || edge.b == host {
                    self.at(delay, Happening::View { host });
                }
            }
            self.at(self.options.lag_ms, Happening::View { host });
        }
    }

    fn sees(&self, host: usize, channel: ChannelId) -> bool {
        self.seen_at.get(&(host, channel)).is_none_or(|at| *at <= self.now)
    }

    /// Inputs by which a host learns how the chain is now.
    pub(super) fn view(&self, host: usize) -> [Input; 2] {
        let known = self.known.range((host, ChannelId(0))..=(host, ChannelId(u64::MAX)));
        let changes: u64 = known.map(|(_, record)| u64::from(!record.open) + u64::from(record.gone)).sum();
        let version = 1 + self.severed.len() as u64 + changes;
        let edges = self.graph(host);
        [
            Input::Channels { channels: self.channels_of(host) },
            Input::Graph { version, chain_time_ms: CHAIN_TIME_MS, edges },
        ]
    }

    /// The channels of a host as its chain view has them.
    pub fn channels_of(&self, host: usize) -> Vec<MyChannel> {
        let mine = self.edges.iter().filter(|edge| edge.a == host || edge.b == host);
        let mine = mine.filter(|edge| self.sees(host, edge.channel));
        mine.map(|edge| {
            let (side, peer) = if edge.a == host { (Side::A, edge.b) } else { (Side::B, edge.a) };
            let known = self.known(host, edge.channel);
            let deposit = |side: Side| known.deposits[usize::from(side == Side::B)];
            let severed = self.severed.contains_key(&edge.channel);
            let account: AccountId = format!("n{peer}.near").parse().unwrap_or_else(|_| unreachable!());
            MyChannel {
                channel: edge.channel,
                peer: self.key(peer),
                peer_account: account,
                side,
                deposit_mine: deposit(side),
                deposit_theirs: deposit(side.other()),
                drawn_mine: Yocto::ZERO,
                drawn_theirs: Yocto::ZERO,
                bond: self.options.bond,
                floors: Totals::default(),
                terms: self.terms(edge.channel).clone(),
                open: known.open && !severed && !self.winding_down.contains(&(host, edge.channel)),
                gone: known.gone || severed,
            }
        })
        .collect()
    }

    /// The graph as a host sees it.
    pub fn graph(&self, host: usize) -> Vec<GraphEdge> {
        let edge = |edge: &Edge| GraphEdge {
            channel: edge.channel,
            a: self.key(edge.a),
            b: self.key(edge.b),
            terms: self.terms(edge.channel).clone(),
            open: self.is_open_to(host, edge.channel),
        };
        self.edges.iter().filter(|edge| self.sees(host, edge.channel)).map(edge).collect()
    }

    /// A host hands the chain an order; everybody learns of it once it is final.
    pub(crate) fn submit_order(&mut self, _host: usize, order: Signed<SeverOrder>) {
        let delay = self.options.chain_ms;
        self.at(delay, Happening::Severed { order });
    }

    pub(super) fn execute(&mut self, order: Signed<SeverOrder>) {
        let statement = order.statement;
        if self.severed.contains_key(&statement.channel) || self.record(statement.channel).gone {
            return;
        }
        self.severed.insert(statement.channel, (self.now, statement));
        for host in 0..self.hosts.len() {
            self.look(host);
        }
    }

    /// How the chain has a channel now.
    fn record(&self, channel: ChannelId) -> Record {
        self.records.get(&channel).cloned().unwrap_or_else(|| self.unchanged())
    }

    fn unchanged(&self) -> Record {
        Record { deposits: [self.options.deposit; 2], open: true, gone: false }
    }

    fn known(&self, host: usize, channel: ChannelId) -> Record {
        self.known.get(&(host, channel)).cloned().unwrap_or_else(|| self.unchanged())
    }

    /// Deposits of both sides as the chain has them.
    pub fn deposits(&self, channel: ChannelId) -> [Yocto; 2] {
        self.record(channel).deposits
    }

    /// Whether a host may believe that requests can go over this channel.
    pub fn is_open_to(&self, host: usize, channel: ChannelId) -> bool {
        self.known(host, channel).open && !self.severed.contains_key(&channel)
    }

    /// A side adds to its deposit; everybody learns of it some time later.
    pub fn top_up(&mut self, channel: ChannelId, side: Side, amount: Yocto) {
        self.change(channel, |record| {
            let deposit = &mut record.deposits[usize::from(side == Side::B)];
            *deposit = deposit.checked_add(amount).unwrap_or(*deposit);
        });
    }

    pub(super) fn change(&mut self, channel: ChannelId, change: impl FnOnce(&mut Record)) {
        let mut record = self.record(channel);
        change(&mut record);
        self.records.insert(channel, record.clone());
        for host in 0..self.hosts.len() {
            let delay = self.options.chain_ms + self.rng.below(self.options.chain_ms + 1);
            self.at(delay, Happening::Learn { host, channel, record: record.clone() });
        }
    }

    pub(super) fn learn(&mut self, host: usize, channel: ChannelId, record: &Record) {
        let mut known = self.known(host, channel);
        known.merge(record);
        self.known.insert((host, channel), known);
        self.look(host);
    }

    /// A host that wants a channel closed takes nothing more over it, before anybody else knows.
    pub(super) fn winds_down(&mut self, host: usize, channel: ChannelId) {
        self.winding_down.insert((host, channel));
        self.look(host);
    }

    /// Whether a host takes nothing new over a channel.
    pub(super) fn is_winding_down(&self, host: usize, channel: ChannelId) -> bool {
        self.winding_down.contains(&(host, channel)) || !self.is_open_to(host, channel)
    }

    pub(super) fn takes_effect(&mut self, channel: ChannelId) {
        self.change(channel, |record| (record.open, record.gone) = (false, true));
    }

    pub(super) fn is_announced(&mut self, channel: ChannelId) {
        self.change(channel, |record| record.open = false);
    }

    pub(super) fn look(&mut self, host: usize) {
        for input in self.view(host) {
            self.input(host, input);
        }
    }
}
