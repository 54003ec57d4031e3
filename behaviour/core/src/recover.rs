//! Rows for a store that was lost, from what others have kept of a node's channels (protocol section
//! 3: the best states count, wherever they come from).

use std::collections::BTreeMap;

use por_types::{ChannelId, ChannelState, DalekVerify, Network, NodeKey, Side, Signed, Yocto};

use crate::api::{RestoreError, Restored, Row, Table, Write};
use crate::rows::{self, ChannelRow, Loaded, MetaRow};

/// What was kept of one channel.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub channel: ChannelId,
    pub peer: NodeKey,
    /// The node's own side.
    pub side: Side,
    /// Signed by the node itself.
    pub own: Option<Signed<ChannelState>>,
    /// Signed by the peer.
    pub theirs: Option<Signed<ChannelState>>,
}

/// The writes that bring a store with these rows up to what was kept. Totals only rise, and a
/// statement that is not rightly signed changes nothing. What is recovered counts as accounted for:
/// exchanges under way when the store was lost are lost with it. `start`: more than the number of
/// starts that the node may have had, for a store without any rows.
///
/// Errors: of rows that cannot be read.
pub fn recover(
    network: &Network,
    node: NodeKey,
    restored: Restored,
    kept: &[Recovered],
    start: u32,
) -> Result<Vec<Write>, RestoreError> {
    let loaded = Loaded::read(restored.rows)?;
    let mut writes = Vec::new();
    for found in kept {
        let known = loaded.channels.iter().find(|row| row.channel == found.channel).cloned();
        let mut row = known.unwrap_or_else(|| ChannelRow::new(found.channel, found.peer, found.side));
        if raise(&mut row, network, node, found) {
            let key = ChannelRow::key(found.channel);
            writes.push(Write { table: Table::Channels, key, value: Some(rows::encode(&row, 1024)) });
        }
    }
    if loaded.meta.is_none() && !writes.is_empty() {
        let meta = MetaRow { node, network: network.clone(), boot: start };
        writes.push(Write { table: Table::Meta, key: MetaRow::key(), value: Some(rows::encode(&meta, 256)) });
    }
    Ok(writes)
}

/// True if the row changed.
fn raise(row: &mut ChannelRow, network: &Network, node: NodeKey, found: &Recovered) -> bool {
    if (row.peer, row.side) != (found.peer, found.side) {
        return false;
    }
    let valid = |state: &&Signed<ChannelState>, key: &NodeKey| {
        state.statement.channel == row.channel && state.verify(network, key, &DalekVerify)
    };
    let own = found.own.as_ref().filter(|state| valid(state, &node));
    let theirs = found.theirs.as_ref().filter(|state| valid(state, &found.peer));
    let mut changed = false;
    if let Some(state) = own
        && state.statement.totals.sent_by(row.side) > row.own_total
    {
        row.own_total = state.statement.totals.sent_by(row.side);
        row.own_payment = Some(state.clone());
        changed = true;
    }
    if let Some(state) = theirs
        && state.statement.totals.sent_by(row.side.other()) > row.their_total
    {
        row.their_total = state.statement.totals.sent_by(row.side.other());
        row.their_payment = Some(state.clone());
        row.applied_in = row.applied_in.max(row.their_total);
        changed = true;
    }
    changed
}

/// The totals that a store has of each channel: the node's own side's, and the other one's.
///
/// Errors: of rows that cannot be read.
pub fn totals(restored: Restored) -> Result<BTreeMap<ChannelId, (Yocto, Yocto)>, RestoreError> {
    let loaded = Loaded::read(restored.rows)?;
    let totals = |row: &ChannelRow| (row.channel, (row.own_total, row.their_total));
    Ok(loaded.channels.iter().map(totals).collect())
}

/// The rows that a store has after writes; for tools that look at a store before they change it.
pub fn apply(restored: &mut Restored, writes: Vec<Write>) {
    for Write { table, key, value } in writes {
        restored.rows.retain(|row| row.table != table || row.key != key);
        if let Some(value) = value {
            restored.rows.push(Row { table, key, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use por_types::{NodeSecret, Totals};

    use super::*;

    fn network() -> Network {
        Network { chain_id: "localnet".into(), contract: "por.localnet".parse().expect("account") }
    }

    fn state(signer: &NodeSecret, a: u128, b: u128) -> Signed<ChannelState> {
        let totals = Totals { sent_a: Yocto(a), sent_b: Yocto(b) };
        let items = por_types::Hash([0; 32]);
        signer.sign(&network(), ChannelState { channel: ChannelId(7), totals, items })
    }

    fn row(restored: &Restored) -> ChannelRow {
        let loaded = Loaded::read(restored.rows.clone()).expect("rows");
        loaded.channels[0].clone()
    }

    #[test]
    fn totals_rise_and_never_fall_and_forgeries_change_nothing() {
        let (me, peer) = (NodeSecret::from_seed(&[1; 32]), NodeSecret::from_seed(&[2; 32]));
        let kept = |own, theirs| Recovered {
            channel: ChannelId(7),
            peer: peer.public(),
            side: Side::B,
            own,
            theirs,
        };
        let mut store = Restored::default();
        let mut recover_one = |own, theirs| {
            let found = [kept(own, theirs)];
            let writes = recover(&network(), me.public(), store.clone(), &found, 1 << 20).expect("rows");
            let count = writes.len();
            apply(&mut store, writes);
            (count, store.clone())
        };
        // With the node's own row of the number of starts.
        let (count, after) = recover_one(Some(state(&me, 50, 20)), Some(state(&peer, 60, 10)));
        assert_eq!(count, 2);
        let found = row(&after);
        assert_eq!((found.own_total, found.their_total, found.applied_in), (Yocto(20), Yocto(60), Yocto(60)));
        let known = totals(after).expect("rows");
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [(ChannelId(7), (Yocto(20), Yocto(60)))]);
        assert_eq!(recover_one(Some(state(&me, 50, 19)), Some(state(&peer, 59, 10))).0, 0, "lower");
        assert_eq!(recover_one(Some(state(&peer, 50, 90)), Some(state(&me, 90, 10))).0, 0, "forged");
        let (count, after) = recover_one(None, Some(state(&peer, 61, 0)));
        assert_eq!((count, row(&after).their_total, row(&after).own_total), (1, Yocto(61), Yocto(20)));
    }
}
