//! Weight of attached nodes: active stake, packed like the graph, and its total.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::Yocto;

use crate::Contract;
use crate::adjacency::GROUP;
use crate::fail::OrStop;
use crate::store::{self, Table};

/// An attached node.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Weighed {
    slot: u8,
    weight: Yocto,
}

type Group = Vec<Weighed>;

fn read(group: u32) -> Group {
    store::read(Table::Weights, &group.to_le_bytes()).unwrap_or_default()
}

fn slot(node: u32) -> u8 {
    // Below GROUP, so it fits.
    (node % GROUP) as u8
}

/// Groups of weights, read once and written once.
#[derive(Default)]
pub struct Weights {
    /// By number, with whether it has changed.
    groups: Vec<Option<(Group, bool)>>,
    pub bytes: usize,
}

impl Weights {
    fn group(&mut self, node: u32) -> &mut (Group, bool) {
        let bytes = &mut self.bytes;
        let at = (node / GROUP) as usize;
        if self.groups.len() <= at {
            self.groups.resize_with(at + 1, || None);
        }
        self.groups[at].get_or_insert_with(|| {
            let group = read(node / GROUP);
            *bytes += 17 * group.len();
            (group, false)
        })
    }

    /// `None`: the node is not attached.
    pub fn of(&mut self, node: u32) -> Option<Yocto> {
        let (group, _) = self.group(node);
        let at = group.binary_search_by_key(&slot(node), |weighed| weighed.slot).ok()?;
        Some(group[at].weight)
    }

    pub fn set(&mut self, node: u32, weight: Option<Yocto>) {
        let (group, changed) = self.group(node);
        *changed = true;
        match (group.binary_search_by_key(&slot(node), |weighed| weighed.slot), weight) {
            (Ok(at), Some(weight)) => group[at].weight = weight,
            (Err(at), Some(weight)) => group.insert(at, Weighed { slot: slot(node), weight }),
            (Ok(at), None) => {
                group.remove(at);
            }
            (Err(_), None) => {}
        }
    }

    pub fn save(self) {
        for (number, group) in (0u32..).zip(self.groups) {
            match group {
                Some((group, true)) if group.is_empty() => {
                    store::remove(Table::Weights, &number.to_le_bytes())
                }
                Some((group, true)) => store::write(Table::Weights, &number.to_le_bytes(), &group),
                _ => {}
            }
        }
    }
}

impl Contract {
    /// A node's weight has changed; `None` stands for unattached.
    pub(crate) fn reweigh(
        &mut self,
        weights: &mut Weights,
        node: u32,
        before: Option<Yocto>,
        after: Option<Yocto>,
    ) {
        if before == after {
            return;
        }
        let total = self.flow.attached_stake.checked_sub(before.unwrap_or_default()).or_stop();
        self.flow.attached_stake = total.checked_add(after.unwrap_or_default()).or_stop();
        weights.set(node, after);
    }
}
