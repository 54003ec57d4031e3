//! What happens in one order: edges, closes with their checks, changes of stake, pings.

use std::collections::BTreeSet;

use petgraph::graph::{NodeIndex, UnGraph};
use petgraph::visit::Dfs;
use por_types::ChannelId;

use super::money::share;
use super::{Due, Found, Model, Op, Penalty, State, Then};

/// A half that the larger side's end gets back.
struct Claim {
    half: u128,
    payer: usize,
    payee: usize,
}

impl Model {
    /// Applies the first operations until `left` wait, of which the first may have `begun`. Answers
    /// how many checks finished.
    pub fn apply_until(&mut self, left: usize, begun: bool) -> usize {
        let mut finished = 0;
        while self.waiting.len() > left
            && let Some((time, op)) = self.waiting.pop_front()
        {
            finished += usize::from(matches!(op, Op::Close { .. } | Op::Late { .. }));
            self.age(time);
            self.apply(time, op);
        }
        self.begun = begun && left > 0;
        self.age(self.clock_ms());
        finished
    }

    fn apply(&mut self, time: u64, op: Op) {
        match op {
            Op::Edge(id) => {
                self.edges.insert(id, self.channels[&id].ends);
            }
            Op::Stake { node, amount, activation_ms } => {
                // Never before stake that was deposited earlier, by whomever.
                self.ripe_ms = self.ripe_ms.max(time + activation_ms);
                self.nodes[node].maturing.push(Due { at_ms: self.ripe_ms, amount });
            }
            Op::Unstake { node, amount, due_ms } => self.nodes[node].unstake(amount, due_ms),
            Op::Ping { node, through } => self.judge_ping(time, node, through),
            Op::Close { channel, severed, then, .. } => self.check(time, channel, severed, then),
            Op::Late { channel, then, .. } => self.late_order(time, channel, then),
        }
    }

    fn judge_ping(&mut self, time: u64, node: usize, through: usize) {
        if self.nodes[node].attached_ms.is_none() && self.leads_to_attached(node, through) {
            self.note(if self.nodes[node].past.is_empty() { State::Attached } else { State::AttachedAgain });
            self.nodes[node].attached_ms = Some(time);
        } else {
            self.note(State::PingInVain);
        }
    }

    pub fn leads_to_attached(&self, node: usize, through: usize) -> bool {
        let edge = self.edges.values().any(|ends| *ends == [node, through] || *ends == [through, node]);
        edge && self.nodes[through].attached_ms.is_some()
    }

    fn component(&self, start: usize) -> BTreeSet<usize> {
        let mut graph = UnGraph::<(), ()>::new_undirected();
        for _ in &self.nodes {
            graph.add_node(());
        }
        for [a, b] in self.edges.values() {
            graph.add_edge(NodeIndex::new(*a), NodeIndex::new(*b), ());
        }
        let mut search = Dfs::new(&graph, NodeIndex::new(start));
        let mut found = BTreeSet::new();
        while let Some(node) = search.next(&graph) {
            found.insert(node.index());
        }
        found
    }

    fn smaller(&mut self, a: BTreeSet<usize>, b: BTreeSet<usize>) -> BTreeSet<usize> {
        // The smaller compares less: no attached node, less weight, fewer nodes.
        let rank = |side: &BTreeSet<usize>| {
            let attached: Vec<usize> =
                side.iter().copied().filter(|node| self.nodes[*node].attached_ms.is_some()).collect();
            let weight: u128 = attached.iter().map(|node| self.nodes[*node].active).sum();
            (!attached.is_empty(), weight, side.len())
        };
        let (of_a, of_b) = (rank(&a), rank(&b));
        // Else the one without the lowest index.
        let lowest = |side: &BTreeSet<usize>| side.iter().map(|node| self.nodes[*node].index).min();
        let a_is_smaller = of_a < of_b || (of_a == of_b && lowest(&a) > lowest(&b));
        if of_a.0 == of_b.0 && of_a.1 == of_b.1 {
            self.note(State::TieOfWeight);
        }
        match (of_a.0, of_b.0) {
            (false, false) => self.note(State::NoSideAttached),
            (true, true) => self.note(State::BothSidesAttached),
            _ => self.note(State::OneSideAttached),
        }
        if a_is_smaller { a } else { b }
    }

    fn check(&mut self, time: u64, id: ChannelId, severed: bool, then: Then) {
        self.edges.remove(&id);
        let (ends, half) = (self.channels[&id].ends, self.channels[&id].bond);
        if severed {
            let until_ms = time + then.window_ms;
            self.penalties.push(Penalty { channel: id, ends, half, until_ms, taken: false });
        }
        let (of_a, of_b) = (self.component(ends[0]), self.component(ends[1]));
        if of_a.contains(&ends[1]) {
            self.note(State::StillConnected);
            self.set_found(id, Found::Connected);
            return;
        }
        self.note(if severed { State::CutOffBySever } else { State::CutOffByClose });
        let side = self.smaller(of_a, of_b);
        self.separate(&side);
        self.set_found(id, Found::Partition(side.clone()));
        let claims = self.take_claims(time, &side);
        self.reimburse(&claims, &side);
        if severed {
            self.slash(time, &side, then);
        }
        self.detach(time, &side);
    }

    fn set_found(&mut self, id: ChannelId, found: Found) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.found = found;
        }
    }

    fn separate(&mut self, side: &BTreeSet<usize>) {
        for channel in self.channels.values_mut() {
            let apart = side.contains(&channel.ends[0]) != side.contains(&channel.ends[1]);
            if apart && channel.found == Found::Connected {
                channel.found = Found::SeparatedLater;
            }
        }
    }

    fn take_claims(&mut self, time: u64, side: &BTreeSet<usize>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for penalty in &mut self.penalties {
            let inside = penalty.ends.map(|end| side.contains(&end));
            if penalty.taken || time >= penalty.until_ms || inside[0] == inside[1] {
                continue;
            }
            penalty.taken = true;
            let payer = usize::from(inside[1]);
            let (payer, payee) = (penalty.ends[payer], penalty.ends[1 - payer]);
            claims.push(Claim { half: penalty.half, payer, payee });
        }
        claims
    }

    fn reimburse(&mut self, claims: &[Claim], side: &BTreeSet<usize>) {
        let asked: u128 = claims.iter().map(|claim| claim.half).sum();
        let mut collected = 0;
        for claim in claims {
            collected += self.nodes[claim.payer].charge(claim.half);
        }
        let rest = asked - collected;
        let mut stakes: Vec<(usize, u128)> =
            side.iter().map(|node| (*node, self.nodes[*node].chargeable())).collect();
        stakes.sort_by_key(|(node, _)| self.nodes[*node].index);
        let stake: u128 = stakes.iter().map(|(_, stake)| stake).sum();
        if rest <= stake {
            self.divide(rest, stake, &stakes);
            for claim in claims {
                self.nodes[claim.payee].owed += claim.half;
                self.note(State::ReimbursedInFull);
            }
            return;
        }
        self.note(State::StakeDidNotSuffice);
        for (node, stake) in stakes {
            collected += self.nodes[node].charge(stake);
        }
        let mut left = collected;
        for claim in claims {
            let paid = share(claim.half, collected, asked);
            left -= paid;
            self.nodes[claim.payee].owed += paid;
        }
        self.treasury += left;
    }

    /// `floor(rest * s / stake)` each, then one yocto each by ascending index where stake remains.
    fn divide(&mut self, rest: u128, stake: u128, stakes: &[(usize, u128)]) {
        if rest == 0 {
            return;
        }
        self.note(State::PuppetsPaid);
        let mut left = rest;
        for (node, of_node) in stakes {
            left -= self.nodes[*node].charge(share(rest, *of_node, stake));
        }
        while left > 0 {
            for (node, _) in stakes {
                left -= self.nodes[*node].charge(left.min(1));
            }
        }
    }

    fn slash(&mut self, time: u64, side: &BTreeSet<usize>, then: Then) {
        for index in side {
            let node = &mut self.nodes[*index];
            if node.slashed_ms.is_some_and(|last| time - last < then.window_ms) {
                self.note(State::SlashedAlready);
                continue;
            }
            let amount = share(u128::from(then.slash_bps), node.chargeable(), 10_000);
            if amount > 0 {
                node.slashed_ms = Some(time);
            }
            self.treasury += node.charge(amount);
            self.note(State::Slashed);
        }
    }

    fn detach(&mut self, time: u64, side: &BTreeSet<usize>) {
        for index in side {
            if self.is_anchor(*index) {
                self.note(State::AnchorCutOff);
                continue;
            }
            let node = &mut self.nodes[*index];
            if let Some(since) = node.attached_ms.take() {
                node.past.push((since, time));
            }
        }
    }

    /// A SeverOrder for a channel that was closed cooperatively.
    fn late_order(&mut self, time: u64, id: ChannelId, then: Then) {
        let (ends, half) = (self.channels[&id].ends, self.channels[&id].bond);
        match self.channels[&id].found.clone() {
            Found::Partition(side) => {
                if side.iter().any(|node| self.nodes[*node].gone) {
                    self.note(State::LateOrderWithoutMember);
                }
                let taken = |gone: &usize| {
                    let index = self.nodes[*gone].index;
                    self.nodes[*gone].gone && self.nodes.iter().any(|node| !node.gone && node.index == index)
                };
                if side.iter().any(taken) {
                    self.note(State::LateOrderAfterSuccession);
                }
                let payer = usize::from(side.contains(&ends[1]));
                let claim = Claim { half, payer: ends[payer], payee: ends[1 - payer] };
                self.reimburse(&[claim], &side);
                self.slash(time, &side, then);
                self.note(State::LateOrderReimbursed);
            }
            Found::Connected => {
                let until_ms = time + then.window_ms;
                self.penalties.push(Penalty { channel: id, ends, half, until_ms, taken: false });
                self.note(State::LateOrderJoined);
            }
            Found::SeparatedLater | Found::NotYet => self.note(State::LateOrderTooLate),
        }
    }
}
