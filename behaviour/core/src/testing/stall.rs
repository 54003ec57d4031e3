//! Hosts that stand still: everything that happens to them waits.

use std::collections::BTreeMap;

use super::{Happening, World};
use crate::api::{Input, Time};

/// Hosts that stand still, since when, and what waits for them.
pub(super) type Stalled = BTreeMap<usize, (u64, Vec<Happening>)>;

impl World {
    /// A host stands still for some time, milliseconds.
    pub fn stall(&mut self, host: usize, ms: u64) {
        if !self.stalled.contains_key(&host) {
            self.stalled.insert(host, (self.now, Vec::new()));
            self.at(ms, Happening::Resume { host });
        }
    }

    /// What happens now; `None` if it has to wait.
    pub(super) fn unless_stalled(&mut self, happening: Happening) -> Option<Happening> {
        let host = match &happening {
            Happening::Input { host, .. } | Happening::Committed { host, .. } => host,
            Happening::Arrive { to, .. } => to,
            Happening::Broken { at, .. } => at,
            _ => return Some(happening),
        };
        match self.stalled.get_mut(host) {
            Some((_, waiting)) => {
                waiting.push(happening);
                None
            }
            None => Some(happening),
        }
    }

    /// As a driver does: the node learns first for how long it has heard nobody, and the time. What has come
    /// is read after that.
    pub(super) fn resume(&mut self, host: usize) -> Option<usize> {
        let (since, waiting) = self.stalled.remove(&host)?;
        *self.stood_still_ms.entry(host).or_default() += self.now - since;
        let margin = self.options.policies.get(&host).cloned().unwrap_or_default().margin_ms;
        if self.now - since > margin {
            self.hosts[host].handle(self.now, Input::Stalled { since: Time(since) });
        }
        self.hosts[host].handle(self.now, Input::Tick);
        self.drain(host);
        let touched = waiting.into_iter().filter_map(|happening| self.happen(happening)).last();
        touched.or(Some(host))
    }
}
