//! The world's chain, and what each host has seen of it.

use por_types::{AccountId, ChannelId, SeverOrder, Side, Signed, Totals, Yocto};

use super::{CHAIN_TIME_MS, DEPOSIT, Edge, Happening, World};
use crate::api::{GraphEdge, Input, MyChannel};

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
        let version = 1 + self.severed.len() as u64;
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
            let account: AccountId = format!("n{peer}.near").parse().unwrap_or_else(|_| unreachable!());
            MyChannel {
                channel: edge.channel,
                peer: self.key(peer),
                peer_account: account,
                side,
                deposit_mine: DEPOSIT,
                deposit_theirs: DEPOSIT,
                drawn_mine: Yocto::ZERO,
                drawn_theirs: Yocto::ZERO,
                bond: self.options.bond,
                floors: Totals::default(),
                terms: self.terms(edge.channel).clone(),
                open: !self.severed.contains_key(&edge.channel),
                gone: self.severed.contains_key(&edge.channel),
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
            open: !self.severed.contains_key(&edge.channel),
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
        if self.severed.contains_key(&statement.channel) {
            return;
        }
        self.severed.insert(statement.channel, (self.now, statement));
        for host in 0..self.hosts.len() {
            self.look(host);
        }
    }

    pub(super) fn look(&mut self, host: usize) {
        for input in self.view(host) {
            self.input(host, input);
        }
    }
}
