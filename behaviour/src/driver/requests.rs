//! Requests of the local application that somebody waits for.

use std::collections::HashMap;

use por_core::RejectReason;
use por_core::types::{RequestId, Yocto};

use crate::control::{Outcome, Progress};
use crate::pending::Teller;

#[derive(Default)]
pub(super) struct Requests {
    next_token: u64,
    starting: HashMap<u64, Teller>,
    running: HashMap<RequestId, Teller>,
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
        if !teller.is_alone() {
            self.running.insert(request, teller);
        }
    }

    /// Follows a request from here on.
    pub fn watch(&mut self, request: RequestId, teller: Teller) {
        teller.started(request, Yocto::ZERO);
        self.running.insert(request, teller);
    }

    pub fn progress(&mut self, request: RequestId, progress: Progress) {
        let Some(teller) = self.running.get(&request) else { return };
        if teller.is_alone() {
            self.running.remove(&request);
        } else {
            teller.progress(progress);
        }
    }

    pub fn finish(&mut self, request: RequestId, outcome: Outcome) {
        if let Some(teller) = self.running.remove(&request) {
            teller.finish(outcome);
        }
    }
}
