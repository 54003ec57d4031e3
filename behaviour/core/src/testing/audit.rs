//! Judges a world that has come to rest, by its books and events alone.

use std::collections::{BTreeMap, BTreeSet};

use por_types::{ChannelId, Yocto};

use super::{Outcome, World};
use crate::api::Event;

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub requests: u64,
    pub responses: u64,
    /// Rejected by a node of the path, refunded.
    pub rejected: u64,
    /// Ended by proof of a severed edge.
    pub severed: u64,
    /// Not sent by the author's own node.
    pub refused: u64,
    /// Lost by the author's crash before they were started.
    pub never_started: u64,
    pub crashes: u64,
    /// Everything that must not be.
    pub violations: Vec<String>,
}

impl World {
    /// Call when the world has come to rest with all hosts up and connected.
    pub fn audit(&self) -> Report {
        let mut report = Report { requests: self.asked.len() as u64, ..Report::default() };
        report.crashes = self.hosts.iter().map(|host| u64::from(host.life.saturating_sub(1) / 2)).sum();
        let mut paid: BTreeMap<ChannelId, i128> = BTreeMap::new();
        let started: BTreeSet<(usize, u64)> = self
            .hosts
            .iter()
            .flat_map(|host| host.started.values().map(|token| (host.index, *token)))
            .collect();
        for (&token, asked) in &self.asked {
            let started = started.contains(&(asked.author, token));
            self.audit_request(token, started, &mut report, &mut paid);
        }
        self.audit_channels(&paid, &mut report);
        for host in &self.hosts {
            for leak in host.node.iter().flat_map(crate::Node::leaks) {
                report.violations.push(format!("host {} at rest: {leak}", host.index));
            }
            for event in &host.events {
                // Of a severed edge one end may know before the other.
                let forgot = |reason: &str| reason.contains("has forgotten") && !self.severed.is_empty();
                if let Event::Misbehaved { reason, .. } = event
                    && !forgot(reason)
                {
                    report.violations.push(format!("host {} blames an honest peer: {reason}", host.index));
                }
            }
        }
        report
    }

    fn audit_request(
        &self,
        token: u64,
        started: bool,
        report: &mut Report,
        paid: &mut BTreeMap<ChannelId, i128>,
    ) {
        let asked = &self.asked[&token];
        let author = &self.hosts[asked.author];
        let outcomes = author.outcomes.get(&token).map(Vec::as_slice).unwrap_or_default();
        let mut lives = author.outcome_lives.get(&token).cloned().unwrap_or_default();
        lives.dedup();
        if lives.len() != outcomes.len() {
            report.violations.push(format!("request {token} has several outcomes in one life"));
        }
        match outcomes.first() {
            None if started => report.violations.push(format!("request {token} has no outcome")),
            None => report.never_started += 1,
            Some(Outcome::Refused(_)) => report.refused += 1,
            Some(Outcome::Rejected(..)) => report.rejected += 1,
            Some(Outcome::Severed(..)) => report.severed += 1,
            Some(Outcome::Response(_)) => {
                report.responses += 1;
                self.audit_response(token, report, paid);
            }
        }
        // An author that crashes before it has noted an outcome learns it again; where an edge was severed
        // meanwhile, of that beside it or instead.
        let severed =
            |outcome: &&Outcome| matches!(outcome, Outcome::Severed(id, _) if self.severed.contains_key(id));
        let others: Vec<&Outcome> = outcomes.iter().filter(|outcome| !severed(outcome)).collect();
        let kind = std::mem::discriminant::<Outcome>;
        let apart = others.windows(2).any(|pair| kind(pair[0]) != kind(pair[1]));
        if apart || others.iter().any(|outcome| matches!(outcome, Outcome::Severed(..))) {
            report
                .violations
                .push(format!("request {token} has different or unproven outcomes: {outcomes:?}"));
        }
    }

    fn audit_response(&self, token: u64, report: &mut Report, paid: &mut BTreeMap<ChannelId, i128>) {
        let asked = &self.asked[&token];
        let told = self.hosts[asked.author].outcomes[&token].iter();
        // An author that has crashed may be told another one, of a destination that has crashed as well: its app was
        // told of the request once more.
        for outcome in told.filter(|outcome| !matches!(outcome, Outcome::Severed(..))) {
            let is_right = match outcome {
                Outcome::Response(body) => self.is_response(token, body),
                _ => false,
            };
            if !is_right {
                report.violations.push(format!("request {token} has a wrong response"));
            }
        }
        if !self.hosts.iter().any(|host| host.seen.contains_key(&token)) {
            report.violations.push(format!("request {token} was answered without its app"));
        }
        let mut before = self.key(asked.author);
        for (index, hop) in asked.route.iter().enumerate() {
            let prices = asked.route[index..].iter().map(|hop| hop.price.0).sum::<u128>();
            let amount = (prices + asked.server_price.0) as i128;
            let edge = self.edges.iter().find(|edge| edge.channel == hop.channel);
            let forward = edge.is_some_and(|edge| self.key(edge.a) == before);
            *paid.entry(hop.channel).or_default() += if forward { amount } else { -amount };
            before = hop.to;
        }
    }

    /// Both ends agree, money is conserved, and each channel carries exactly the answered requests.
    fn audit_channels(&self, paid: &BTreeMap<ChannelId, i128>, report: &mut Report) {
        for edge in &self.edges {
            let id = edge.channel;
            let ends = [edge.a, edge.b].map(|host| self.hosts[host].node.as_ref()?.channel(id));
            let [Some(a), Some(b)] = ends else {
                report.violations.push(format!("channel {id} is unknown to an end"));
                continue;
            };
            if self.severed.contains_key(&id) {
                continue;
            }
            if a.totals != b.totals {
                report.violations.push(format!("channel {id}: {:?} is not {:?}", a.totals, b.totals));
            }
            if a.balance_mine != b.balance_theirs || a.balance_theirs != b.balance_mine {
                report.violations.push(format!("channel {id}: balances differ"));
            }
            if a.balance_mine.checked_add(a.balance_theirs) != Yocto::checked_sum(self.deposits(id)) {
                report.violations.push(format!("channel {id}: money is not conserved"));
            }
            let pending = [a.pending_in, a.pending_out, b.pending_in, b.pending_out];
            if pending.iter().any(|amount| *amount != Yocto::ZERO) || a.unfinished + b.unfinished != 0 {
                report.violations.push(format!("channel {id}: something is pending for ever"));
            }
            let net = a.totals.sent_a.0 as i128 - a.totals.sent_b.0 as i128;
            let due = paid.get(&id).copied().unwrap_or_default();
            // An author that crashed at the start of a request may not have told of it, and it may have ended so.
            let severed = report.severed > 0 || !self.severed.is_empty();
            if net != due && !severed && self.options.late_fee.is_none() {
                report.violations.push(format!("channel {id}: {net} was paid, {due} was due"));
            }
        }
    }
}
