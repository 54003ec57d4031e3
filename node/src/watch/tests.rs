use std::collections::BTreeMap;

use redb::ReadableTable as _;

use por_types::interface::{ChannelStatus, ChannelView, SubmitStateArgs};
use por_types::{
    AccountId, ChannelId, ChannelState, Hash, Network, NodeKey, NodeSecret, SeverOrder, SeverReason, Side,
    Signed, Terms, Totals, Yocto,
};

use super::store::{WatchStore, WatchStoreError};
use super::tower::{Deed, Ends, Guarded, Views};
use super::{Handed, MAX_PER_NODE, WatchError};

fn account(name: &str) -> AccountId {
    name.parse().expect("account")
}

fn network() -> Network {
    Network { chain_id: "localnet".into(), contract: account("por.localnet") }
}

fn secret(n: u8) -> NodeSecret {
    NodeSecret::from_seed(&[n; 32])
}

/// Node 1 is side A, node 2 is side B.
fn ends() -> Ends {
    Ends { a: secret(1).public(), b: secret(2).public() }
}

fn views(ids: impl IntoIterator<Item = u64>) -> BTreeMap<ChannelId, Ends> {
    ids.into_iter().map(|id| (ChannelId(id), ends())).collect()
}

fn state(signer: u8, channel: u64, a: u128, b: u128) -> SubmitStateArgs {
    let totals = Totals { sent_a: Yocto(a), sent_b: Yocto(b) };
    let state = ChannelState { channel: ChannelId(channel), totals, items: Hash([7; 32]) };
    let side = if signer == 1 { Side::A } else { Side::B };
    SubmitStateArgs { state: secret(signer).sign(&network(), state), signer: side }
}

fn order(signer: u8, channel: u64) -> Signed<SeverOrder> {
    let key = secret(signer).public();
    let order =
        SeverOrder { channel: ChannelId(channel), signer: key, reason: SeverReason::Operator, request: None };
    secret(signer).sign(&network(), order)
}

fn take(guarded: &mut Guarded, from: u8, handed: Handed) -> Result<(), WatchError> {
    guarded.take(&network(), Some(&secret(from).public()), handed, &views([7, 8]))
}

fn view(status: ChannelStatus, totals: Totals) -> ChannelView {
    let Ends { a: key_a, b: key_b } = ends();
    ChannelView {
        channel: ChannelId(7),
        a: account("a.near"),
        b: account("b.near"),
        key_a,
        key_b,
        deposit_a: Yocto(100),
        deposit_b: Yocto(100),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto(10),
        totals,
        terms: Terms {
            rtt_ms: 1,
            bytes_per_s: 1,
            base_fee: Yocto(1),
            byte_fee: Yocto(1),
            heartbeat_ms: 1,
            grace_ms: 1,
            max_requests: 1,
            max_bytes: 1,
        },
        sequence: 0,
        status,
    }
}

/// On the channel 7, by the only endpoint there is.
fn deeds(guarded: &mut Guarded, view: Option<&ChannelView>, now_ms: u64) -> Vec<Deed> {
    guarded.deeds(&Views::from([(ChannelId(7), view.cloned())]), None, now_ms)
}

const SEVERED: ChannelStatus = ChannelStatus::Severed { by: Side::A, severed_ms: 1, settles_ms: 9 };

#[test]
fn only_a_channels_ends_hand_over_and_the_highest_counts() {
    let mut guarded = Guarded::default();
    let whole = Handed { states: vec![state(1, 7, 60, 20)], own: vec![state(2, 7, 60, 20)], orders: vec![] };
    take(&mut guarded, 2, whole.clone()).expect("good");
    let lower = Handed { states: vec![state(1, 7, 59, 90)], own: vec![state(2, 7, 99, 19)], orders: vec![] };
    take(&mut guarded, 2, lower).expect("old ones do no harm");
    assert_eq!(guarded.handed(None).0, whole);
    // A node that is no end of the channel; the wrong end; somebody else's signature; no such channel.
    assert!(matches!(take(&mut guarded, 3, whole.clone()), Err(WatchError::NotYours(ChannelId(7)))));
    assert!(matches!(take(&mut guarded, 1, whole.clone()), Err(WatchError::NotYours(ChannelId(7)))));
    let mut forged = whole.clone();
    forged.states[0].state.statement.totals.sent_a = Yocto(99);
    assert!(matches!(take(&mut guarded, 2, forged), Err(WatchError::Forged(ChannelId(7)))));
    let mut foreign = Handed { orders: vec![order(1, 7)], ..Handed::default() };
    assert!(matches!(take(&mut guarded, 3, foreign.clone()), Err(WatchError::NotYours(ChannelId(7)))));
    foreign.orders[0].statement.reason = SeverReason::Loss;
    assert!(matches!(take(&mut guarded, 2, foreign), Err(WatchError::Forged(ChannelId(7)))));
    let absent = Handed { states: vec![state(1, 9, 1, 1)], ..Handed::default() };
    assert!(matches!(take(&mut guarded, 2, absent), Err(WatchError::Unknown(ChannelId(9)))));
    // One bad statement, and nothing of it is kept.
    let mixed = Handed { states: vec![state(1, 8, 5, 5), state(1, 9, 1, 1)], ..Handed::default() };
    assert!(take(&mut guarded, 2, mixed).is_err());
    assert_eq!(guarded.handed(None).0, whole);
    let json = serde_json::to_vec(&whole).expect("JSON");
    assert!(json.len() <= 1024, "{} bytes for one channel", json.len());
}

#[test]
fn a_node_is_given_back_its_own_in_pages() {
    let mut guarded = Guarded::default();
    let ids = 100..170;
    for id in ids.clone() {
        let handed =
            Handed { states: vec![state(1, id, 6, 2)], own: vec![state(2, id, 6, 2)], orders: vec![] };
        let key = secret(2).public();
        guarded.take(&network(), Some(&key), handed, &views(ids.clone())).expect("good");
    }
    // The other end uses the tower too; nobody is given what was kept for another.
    let other = Handed { own: vec![state(1, 100, 9, 0)], ..Handed::default() };
    take(&mut guarded, 1, other.clone()).expect("good");
    assert_eq!(guarded.handed(Some((&secret(1).public(), None, 200))).0.own, other.own);
    let (_, more) = guarded.handed(Some((&secret(1).public(), None, 1)));
    assert_eq!(more, None, "there is one channel of which it has handed over anything");
    assert!(guarded.handed(Some((&secret(3).public(), None, 200))).0.is_empty());
    let key: NodeKey = secret(2).public();
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, more) = guarded.handed(Some((&key, after, 32)));
        assert!(page.states.len() <= 32 && page.own.len() == page.states.len());
        assert!(page.states.iter().all(|args| args.signer == Side::A), "what others signed");
        found.extend(page.states.iter().map(|args| args.state.statement.channel.0));
        pages += 1;
        match more {
            Some(more) => after = Some(more),
            None => break,
        }
    }
    assert_eq!((pages, found), (3, ids.collect::<Vec<_>>()));
}

#[test]
fn one_node_cannot_fill_the_tower() {
    let mut guarded = Guarded::default();
    let most = MAX_PER_NODE as u64;
    guarded.ends = views(0..most);
    // One for all of them, so that the test signs little.
    let signed = order(1, 0);
    guarded.orders = (0..most).map(|id| (ChannelId(id), signed.clone())).collect();
    let handed = Handed { orders: vec![order(1, most)], ..Handed::default() };
    let key = secret(1).public();
    let result = guarded.take(&network(), Some(&key), handed.clone(), &views([most]));
    assert!(matches!(result, Err(WatchError::Full)));
    // Its neighbour has room, and may use it, though all these channels are his too.
    let his = Handed { states: vec![state(1, 0, 5, 5)], ..Handed::default() };
    take(&mut guarded, 2, his).expect("what others hand over takes no place of his");
    guarded.orders.remove(&ChannelId(1));
    guarded.take(&network(), Some(&key), handed, &views([most])).expect("there is room");
}

/// What can be handed over for nothing is not kept for nothing.
#[test]
fn a_channel_of_which_nothing_is_held_takes_no_place() {
    let mut guarded = Guarded::default();
    take(&mut guarded, 1, Handed { orders: vec![order(1, 7)], ..Handed::default() }).expect("good");
    let proposed = view(ChannelStatus::Proposed, Totals::default());
    assert_eq!(deeds(&mut guarded, Some(&proposed), 4), [], "no edge yet");
    assert!(guarded.channels().is_empty());
}

#[test]
fn what_is_due_follows_from_the_chain() {
    let mut guarded = Guarded::default();
    let whole = Handed {
        states: vec![state(1, 7, 60, 20)],
        own: vec![state(2, 7, 60, 20)],
        orders: vec![order(2, 7)],
    };
    take(&mut guarded, 2, whole.clone()).expect("good");
    let id = ChannelId(7);
    let zero = Totals::default();
    let submit = Deed::Submit(whole.states[0].clone());
    assert_eq!(
        deeds(&mut guarded.clone(), Some(&view(ChannelStatus::Open, zero)), 4),
        [Deed::Sever(order(2, 7))]
    );
    let mut severed = guarded.clone();
    assert_eq!(deeds(&mut severed, Some(&view(SEVERED, zero)), 4), std::slice::from_ref(&submit));
    assert!(severed.orders.is_empty() && !severed.states.is_empty());
    assert_eq!(deeds(&mut severed, Some(&view(SEVERED, zero)), 9), [], "the window is over");
    // Its sides go first; one that stays away loses nothing.
    let late = 9 + 20_000;
    assert_eq!(deeds(&mut severed, Some(&view(SEVERED, zero)), late), [Deed::Finalize(id)]);
    // What the chain knows already, and own states, are not brought.
    let known = Totals { sent_a: Yocto(60), sent_b: Yocto::ZERO };
    assert_eq!(deeds(&mut severed, Some(&view(SEVERED, known)), 4), []);
    let asked = ChannelStatus::Closing { by: Side::A, totals: zero, confirmed: false, closes_ms: 0 };
    assert_eq!(deeds(&mut severed, Some(&view(asked, zero)), 4), []);
    let closing = ChannelStatus::Closing { by: Side::A, totals: zero, confirmed: true, closes_ms: 5 };
    assert_eq!(deeds(&mut severed, Some(&view(closing, zero)), 4), [submit]);
    let closed =
        ChannelStatus::Closed { paid_a: Yocto(1), paid_b: Yocto(1), bonds_until_ms: None, severed: true };
    assert_eq!(deeds(&mut severed, Some(&view(closed, zero)), 4), []);
    assert!(severed.handed(None).0.is_empty() && severed.channels().is_empty());
    assert_eq!(deeds(&mut guarded, None, 4), [], "gone from the chain");
    assert!(guarded.channels().is_empty());
}

#[test]
fn the_store_keeps_everything_and_recognises_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("watch.redb");
    let whole = Handed {
        states: vec![state(1, 7, 60, 20)],
        own: vec![state(2, 7, 60, 20)],
        orders: vec![order(2, 8)],
    };
    {
        let (mut store, mut guarded) = WatchStore::open(&path, &network()).expect("opens");
        take(&mut guarded, 2, whole.clone()).expect("good");
        store.save(&guarded).expect("saved");
    }
    {
        let (mut store, mut guarded) = WatchStore::open(&path, &network()).expect("opens");
        assert_eq!(guarded.handed(None).0, whole);
        assert!(guarded.deeds(&Views::from([(ChannelId(8), None)]), None, 4).is_empty());
        store.save(&guarded).expect("saved");
    }
    let (store, guarded) = WatchStore::open(&path, &network()).expect("opens");
    assert_eq!(guarded.handed(None).0, Handed { orders: vec![], ..whole });
    drop(store);
    let other = Network { chain_id: "testnet".into(), ..network() };
    assert!(matches!(WatchStore::open(&path, &other), Err(WatchStoreError::Foreign { .. })));
    // A flipped bit in a value that the database's own checks do not see.
    let database = redb::Database::create(&path).expect("opens");
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("guarded");
    let write = database.begin_write().expect("begins");
    {
        let mut table = write.open_table(table).expect("opens");
        let mut key = vec![2u8];
        key.extend_from_slice(&7u64.to_be_bytes());
        key.push(0);
        let mut value = table.get(key.as_slice()).expect("reads").expect("is there").value().to_vec();
        value[10] ^= 1;
        table.insert(key.as_slice(), value.as_slice()).expect("writes");
    }
    write.commit().expect("commits");
    drop(database);
    assert!(matches!(WatchStore::open(&path, &network()), Err(WatchStoreError::Damaged { .. })));
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    let code = |kind: std::io::ErrorKind| {
        let error = super::store::failed(std::path::Path::new("watch.redb"), redb::Error::Io(kind.into()));
        super::service::store_error(error).code
    };
    assert_eq!(code(std::io::ErrorKind::StorageFull), crate::exit::ExitCode::DiskFull);
    assert_eq!(code(std::io::ErrorKind::PermissionDenied), crate::exit::ExitCode::Other);
}
