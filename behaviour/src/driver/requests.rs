//! Requests of the local application that somebody waits for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use por_core::RejectReason;
use por_core::types::{RequestId, Yocto};

use crate::control::{Outcome, Progress};
use crate::pending::Teller;

#[derive(Default)]
pub(super) struct Requests {
    next_token: u64,
    starting: HashMap<u64, Teller>,
    running: HashMap<RequestId, Followers>,
}

/// Those who are told of one request. Most have one, for which nothing is allocated.
struct Followers {
    first: Teller,
    more: Vec<Teller>,
}

impl Followers {
    /// Forgets those who do not listen any more. True if nobody is left.
    fn are_gone(&mut self) -> bool {
        self.more.retain(|teller| !teller.is_alone());
        self.more.is_empty() && self.first.is_alone()
    }
}

impl Requests {
    /// Answers the token under which the node tells of its start.
    pub fn start(&mut self, teller: Teller) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.starting.insert(token, teller);
        token
    }

    pub fn refused(&mut self, token: u64, reason: RejectReason) {
        if let Some(teller) = self.starting.remove(&token) {
            teller.refused(reason);
        }
    }

    pub fn started(&mut self, token: u64, request: RequestId, price: Yocto) {
        let Some(teller) = self.starting.remove(&token) else { return };
        teller.started(request, price);
        self.watch(request, teller);
    }

    /// Follows a request from here on, with those who do so already.
    pub fn watch(&mut self, request: RequestId, teller: Teller) {
        if teller.is_alone() {
            return;
        }
        match self.running.entry(request) {
            Entry::Vacant(entry) => {
                entry.insert(Followers { first: teller, more: Vec::new() });
            }
            Entry::Occupied(mut entry) => {
                let followers = entry.get_mut();
                followers.are_gone();
                followers.more.push(teller);
            }
        }
    }

    pub fn progress(&mut self, request: RequestId, progress: Progress) {
        let Some(followers) = self.running.get_mut(&request) else { return };
        if followers.are_gone() {
            self.running.remove(&request);
            return;
        }
        for teller in &followers.more {
            teller.progress(progress.clone());
        }
        followers.first.progress(progress);
    }

    pub fn finish(&mut self, request: RequestId, outcome: Outcome) {
        let Some(followers) = self.running.remove(&request) else { return };
        for teller in followers.more {
            teller.finish(outcome.clone());
        }
        followers.first.finish(outcome);
    }
}
