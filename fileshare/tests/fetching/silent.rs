//! Providers that stop to answer what they charge nothing for.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use por_fileshare::{
    budget::Budget,
    dir::{TreeOptions, put_tree},
    exit::Exit,
    fetch::{Session, Stop},
    get,
    net::{Call, Reply},
    proto::{Answer, Question, STAT_APP, Stat},
};
use por_types::Yocto;

use super::providers::{Changed, Net, World, failure, key, quick};

/// Node 1 answers its first stat and no other question of that app; how often it was asked.
fn silent_after_one(net: Net) -> (Changed, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let change = move |call: &Call, mut reply: Reply| {
        if call.app != STAT_APP || call.to != key(1) {
            return Ok(reply);
        }
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            // Paid for all the same.
            let mut silence = failure(Exit::Deadline);
            silence.spent = reply.price;
            return Err(silence);
        }
        let stat = Answer::decode(&reply.body).unwrap().into_stat().unwrap();
        reply.body = Answer::Stat(Stat { sparse: true, ..stat }).encode().unwrap().into();
        Ok(reply)
    };
    (Changed { net, change: Box::new(change) }, asked)
}

#[tokio::test]
async fn who_is_silent_about_one_directory_is_not_asked_first_about_the_next() {
    let world = World::new().provider(1, 0, None).provider(2, 0, None);
    let top = world.folder.path().join("tree");
    for n in 0..60 {
        let folder = top.join(format!("folder {n}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), format!("text {n}")).unwrap();
    }
    let tree = put_tree(&world.store, &top, TreeOptions::default(), &mut |_| ()).unwrap();
    let (net, asked) = silent_after_one(world.net);
    let session = Session::new(Arc::new(net), Budget::new(None), quick(), Stop::default());
    let found = session.discover(tree.id, true, &[key(1)]).await.unwrap();
    session.stat(key(2), tree.id, true).await.unwrap();
    // Until it is silent it is the one to ask.
    (0..50).for_each(|_| session.pool.told(key(1), Yocto::ZERO, Duration::ZERO));
    let tree = get::Tree::walk(&session, found, &[]).await.unwrap();
    assert_eq!((tree.files().len(), tree.folders().len()), (60, 60));
    // At the top, and for the directories that were asked about at a time.
    let asked = asked.load(Ordering::SeqCst);
    assert!((2..=9).contains(&asked), "{asked}");
    let tally = session.pool.tallies().into_iter().find(|tally| tally.node == key(1)).unwrap();
    assert_eq!(tally.failures, asked - 1);
    assert!(tally.banned.is_none() && tally.spent > Yocto::ZERO, "{tally:?}");
}

#[tokio::test]
async fn who_does_not_tell_its_holes_is_asked_for_none_of_the_next_file() {
    let world = World::new().provider(1, 0, None);
    let (first, second) = (world.put(3 << 20).0, world.put(4 << 20).0);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let change = move |call: &Call, mut reply: Reply| {
        match Question::decode(&call.body).unwrap() {
            Question::Holes { .. } => {
                count.fetch_add(1, Ordering::SeqCst);
                return Err(failure(Exit::Deadline));
            }
            Question::Stat { .. } => {
                let stat = Answer::decode(&reply.body).unwrap().into_stat().unwrap();
                reply.body = Answer::Stat(Stat { sparse: true, ..stat }).encode().unwrap().into();
            }
            _ => {}
        }
        Ok(reply)
    };
    let net = Changed { net: world.net, change: Box::new(change) };
    let session = Session::new(Arc::new(net), Budget::new(None), quick(), Stop::default());
    for (id, size) in [(first, 3 << 20), (second, 4 << 20)] {
        session.discover(id, true, &[]).await.unwrap();
        assert!(session.holes(id, size).await.is_empty());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A map that ends half way is as good as what it tells.
#[tokio::test]
async fn half_a_map_of_holes_is_used() {
    let world = World::new().provider(1, 0, None);
    let size = 9 << 20;
    let (id, _) = world.put(size);
    let change = move |call: &Call, mut reply: Reply| {
        let answer = match Question::decode(&call.body).unwrap() {
            Question::Holes { from: 0, .. } => Answer::Holes { runs: vec![(1, 2)], more: Some(3) },
            Question::Holes { .. } => return Err(failure(Exit::Deadline)),
            _ => {
                let stat = Answer::decode(&reply.body).unwrap().into_stat().unwrap();
                reply.body = Answer::Stat(Stat { sparse: true, ..stat }).encode().unwrap().into();
                return Ok(reply);
            }
        };
        reply.body = answer.encode().unwrap().into();
        Ok(reply)
    };
    let net = Changed { net: world.net, change: Box::new(change) };
    let session = Session::new(Arc::new(net), Budget::new(None), quick(), Stop::default());
    session.discover(id, true, &[]).await.unwrap();
    assert_eq!(session.holes(id, size).await.runs(), [(1, 2)]);
}
