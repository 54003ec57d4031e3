//! Providers that lie, and directories that were made to do harm.

use std::fs;
use std::sync::Arc;

use por_fileshare::{
    budget::Budget,
    dir::{DirEntry, Directory},
    exit::Exit,
    fetch::{Limits, Session, Stop},
    get,
    id::Kind,
    net::{Call, Reply},
    proto::{Answer, STAT_APP, Stat},
    tree::GROUP,
};
use proptest::prelude::*;

use super::providers::{Changed, MIB, Net, World, failure, fault, flips_a_bit, key, quick, want};

#[tokio::test]
async fn a_lying_provider_is_found_out_and_the_others_deliver() {
    let world = World::new().provider(1, 0, flips_a_bit()).provider(2, 9, None);
    let (id, data) = world.put(10 * MIB);
    let running = world.session(quick(), None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
    let tallies = running.session.pool.tallies();
    let liar = tallies.iter().find(|tally| tally.node == key(1)).unwrap();
    assert!(liar.banned.is_some() && liar.bytes == 0, "{liar:?}");
    assert!(running.session_net().asked(1) <= 8, "asked no more than what was in flight");
}

#[tokio::test]
async fn a_flipped_byte_from_the_only_provider_fails_the_get() {
    for corrupt in [
        flips_a_bit(),
        fault(|_, answer| Ok(answer[..answer.len() - 1].to_vec())),
        fault(|_, mut answer| {
            answer.push(0);
            Ok(answer)
        }),
        fault(|_, _| Ok(Vec::new())),
        fault(|_, _| Ok(vec![0xff; 64])),
        fault(|_, _| Ok(Answer::Slice(serde_bytes::Bytes::new(b"")).encode().unwrap())),
    ] {
        let world = World::new().provider(1, 0, corrupt);
        let (id, _) = world.put(3 * MIB);
        let target = world.target();
        let running = world.session(quick(), None);
        let failed = running.get(id).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "{failed}");
        assert!(!target.exists());
    }
}

/// Rewrites stats on their way.
fn stats(net: Net, change: impl Fn(Stat<'_>) -> Vec<u8> + Send + Sync + 'static) -> Changed {
    let change = move |call: &Call, mut reply: Reply| {
        if call.app == STAT_APP {
            let stat = Answer::decode(&reply.body).unwrap().into_stat().unwrap();
            reply.body = change(stat).into();
        }
        Ok(reply)
    };
    Changed { net, change: Box::new(change) }
}

#[tokio::test]
async fn a_lie_about_the_size_is_caught_before_anything_is_bought() {
    for lie in [0, 1, GROUP, 3 * MIB - 1, 3 * MIB + 1, 4 * MIB, u64::MAX] {
        let world = World::new().provider(1, 5, None);
        let (id, _) = world.put(3 * MIB);
        let lying = move |stat: Stat<'_>| Answer::Stat(Stat { size: lie, ..stat }).encode().unwrap();
        let net = Arc::new(stats(world.net, lying));
        let session = Session::new(Arc::clone(&net), Budget::new(None), quick(), Stop::default());
        let failed = get::locate(&session, &want(id)).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "size {lie}: {failed}");
        assert_eq!(net.net.asked(1), 0);
    }
}

/// An id without a kind is what its bytes are, not what one of its providers calls them.
#[tokio::test]
async fn a_file_that_somebody_calls_a_directory_is_a_file() {
    let world = World::new().provider(1, 5, None);
    let (id, data) = world.put(300);
    let bytes = data.clone();
    let lying = move |stat: Stat<'_>| {
        let listing = Some(serde_bytes::Bytes::new(&bytes));
        Answer::Stat(Stat { directory: true, listing, ..stat }).encode().unwrap()
    };
    let net = Arc::new(stats(world.net, lying));
    let session = Session::new(net, Budget::new(None), quick(), Stop::default());
    let mut want = want(id);
    want.address = hex::encode(id.hash()).parse().unwrap();
    let goal = get::locate(&session, &want).await.unwrap();
    let mut out = Vec::new();
    get::fetch_out(&session, &goal, &mut out).await.unwrap();
    assert!(out == data);
}

#[tokio::test]
async fn hostile_directories_make_nothing_outside() {
    let world = World::new().provider(1, 1, None);
    let (file, _) = world.put(10);
    // Listings that our own encoder refuses, as an attacker would write them.
    let listing = |name: &str, extra: &[u8], keys: u8| {
        let mut bytes = vec![0x81, 0xa0 | keys];
        bytes.extend_from_slice(b"\x64hash\xd8\x2a\x58\x25\x00");
        bytes.extend_from_slice(&file.to_bytes());
        bytes.extend_from_slice(b"\x64name");
        bytes.push(0x60 | name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\x64size\x0a");
        bytes.extend_from_slice(extra);
        bytes
    };
    let mut hostile = vec![listing("../evil", b"", 3), listing("/tmp/evil", b"", 3), listing("..", b"", 3)];
    let link = Directory::new(vec![DirEntry::symlink("l".into(), "../../etc".into())]).unwrap();
    hostile.push(link.encode().unwrap());
    assert!(Directory::decode(&listing("fine", b"", 3)).is_ok(), "the bytes are right but for the name");
    let mut ids = Vec::new();
    for bytes in hostile {
        let staged = world.store.stage_bytes(Kind::Directory, bytes).unwrap();
        ids.push(staged.id());
        world.store.commit(vec![staged], &[]).unwrap();
    }
    let running = world.session(quick(), None);
    for id in ids {
        let failed = running.get(id).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "{failed}");
    }
    let names: Vec<_> =
        fs::read_dir(running.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
}

#[tokio::test]
async fn a_listing_that_lies_about_a_size_is_found_out() {
    let world = World::new().provider(1, 1, None);
    let (file, _) = world.put(10 * MIB);
    let lie = DirEntry { name: "x".into(), size: 9 * MIB, hash: file, executable: false, symlink: None };
    let bytes = Directory::new(vec![lie]).unwrap().encode().unwrap();
    let staged = world.store.stage_bytes(Kind::Directory, bytes).unwrap();
    let id = staged.id();
    world.store.commit(vec![staged], &[]).unwrap();
    let running = world.session(quick(), None);
    assert_eq!(running.get(id).await.unwrap_err().exit, Exit::VerificationFailed);
    assert_eq!(running.session_net().asked(1), 0, "before anything was bought");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_some_providers_do_the_result_is_right_or_absent(
        size in 0..6 * MIB,
        behaviours in prop::collection::vec(0..5u8, 1..4),
        window in 1..4u64,
        in_flight in 1..9usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = World::new();
        for (node, behaviour) in behaviours.iter().enumerate() {
            let fault = match behaviour {
                0 => None,
                1 => flips_a_bit(),
                2 => fault(|n, answer| if n % 2 == 0 { Err(failure(Exit::Retryable)) } else { Ok(answer) }),
                3 => fault(|_, _| Err(failure(Exit::Unreachable))),
                _ => fault(|n, answer| Ok(if n == 1 { vec![] } else { answer })),
            };
            world = world.provider(node as u8, 1, fault);
        }
        let (id, data) = world.put(size);
        let limits = Limits { window: window * MIB, in_flight, ..quick() };
        let running = world.session(limits, None);
        let result = runtime.block_on(running.get(id));
        let target = running.folder.path().join("target");
        match result {
            Ok(target) => prop_assert!(fs::read(target).unwrap() == data),
            Err(failed) => {
                prop_assert!(!target.exists());
                prop_assert!(!behaviours.contains(&0), "an honest provider was there: {failed}");
            }
        }
        prop_assert_eq!(running.session.budget.spent(), running.session_net().paid());
    }
}
