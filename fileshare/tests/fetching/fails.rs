//! Providers that fail, and gets that end before they are complete.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use por_fileshare::{
    answer::Answerer,
    dir::{TreeOptions, put_tree},
    exit::Exit,
    fetch::Limits,
    get::{self, Place},
    pool::Choice,
    proto::{GET_APP, STAT_APP, STAT_LIMIT},
};

use super::providers::{MIB, World, failure, fault, key, make_tree, quick, want};

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let flaky = fault(|n, answer| if n % 3 == 0 { Err(failure(Exit::Unreachable)) } else { Ok(answer) });
    let world = World::new().provider(1, 0, flaky);
    let (id, data) = world.put(6 * MIB);
    let mut limits = quick();
    limits.patience = Duration::from_secs(30);
    let running = world.session(limits, None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
}

/// A get goes on as soon as its own node is back: no provider rests for what was not its failure.
#[tokio::test]
async fn providers_do_not_rest_for_an_outage_of_the_own_node() {
    let world = World::new().provider(1, 0, None);
    let (id, data) = world.put(6 * MIB);
    let running = world.session(Limits { patience: Duration::from_secs(60), ..quick() }, None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    running.session_net().away.store(true, Ordering::SeqCst);
    let place = Place { target: running.folder.path().join("target"), overwrite: false, share: None };
    let (session, to) = (Arc::clone(&running.session), place.clone());
    let get = tokio::spawn(async move { get::fetch_to(&session, &goal, &to).await });
    let missed = async {
        while running.session_net().missed.load(Ordering::SeqCst) < 12 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), missed).await.expect("it asks on");
    let (pool, none) = (&running.session.pool, HashSet::new());
    assert!(matches!(pool.choose(&none, &none), Choice::Ask(_)));
    pool.gave_up(key(1));
    running.session_net().away.store(false, Ordering::SeqCst);
    get.await.unwrap().unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
}

#[tokio::test]
async fn giving_up_takes_bounded_time_keeps_what_is_there_and_resumes() {
    // Ten windows arrive, then the provider is gone.
    let dies = fault(|n, answer| if n < 10 { Ok(answer) } else { Err(failure(Exit::Unreachable)) });
    let world = World::new().provider(1, 5, dies);
    let (id, data) = world.put(25 * MIB);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    let started = Instant::now();
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Unreachable);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(!running.folder.path().join("target").exists());
    // The second try pays for the rest only.
    let mut world = World::new().provider(1, 5, None);
    world.store = store.clone();
    let pricing = world.net.providers[&key(1)].pricing;
    world.net.providers.get_mut(&key(1)).unwrap().answerer = Answerer::new(store, pricing);
    world.folder = running.folder;
    drop(running.session);
    let again = world.session(quick(), None);
    let goal = get::locate(&again.session, &want(id)).await.unwrap();
    let place = Place { target: again.folder.path().join("target"), overwrite: false, share: None };
    let plan = get::plan(&again.session, &goal, Some(&place)).await.unwrap();
    assert_eq!((plan.windows, plan.bytes), (15, 15 * MIB));
    get::fetch_to(&again.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    assert_eq!(again.session_net().asked(1), 15);
}

#[tokio::test]
async fn who_never_answers_does_not_hold_anything_up() {
    let world = World::new().provider(1, 0, None);
    let (id, _) = world.put(2 * MIB);
    let mut world = world;
    world.net.delay = Duration::from_secs(3600);
    let mut limits = quick();
    limits.deadline = Some(Instant::now() + Duration::from_millis(300));
    let running = world.session(limits, None);
    let bounded = tokio::time::timeout(Duration::from_secs(20), running.get(id));
    let failed = bounded.await.expect("ends by itself").unwrap_err();
    assert!(matches!(failed.exit, Exit::Deadline | Exit::NotFound), "{failed}");
}

#[tokio::test]
async fn stopping_keeps_a_resumable_rest() {
    let mut world = World::new().provider(1, 0, None);
    world.net.delay = Duration::from_millis(2);
    let (id, _) = world.put(40 * MIB);
    let running = world.session(quick(), None);
    let (session, stop) = (Arc::clone(&running.session), running.session.stop.clone());
    let watch = tokio::spawn(async move {
        while session.meter.get().0 < 5 * MIB {
            tokio::task::yield_now().await;
        }
        stop.set();
    });
    let failed = running.get(id).await.unwrap_err();
    watch.await.unwrap();
    assert_eq!(failed.exit, Exit::Interrupted);
    let span = por_fileshare::part::Span::whole(id, 40 * MIB);
    let part = por_fileshare::part::Part::open(&running.folder.path().join("target"), span, false).unwrap();
    assert!(part.done() >= 5 * MIB && part.done() < 40 * MIB, "{}", part.done());
}

/// Windows of one file are in flight while another one turns out to be gone: they are paid for, and kept.
#[tokio::test]
async fn a_file_that_fails_lets_the_windows_of_others_arrive() {
    let mut world = World::new().provider(1, 1, None);
    let top = world.folder.path().join("tree");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("gone"), vec![1; 100_000]).unwrap();
    fs::write(top.join("large"), vec![2; 40 * MIB as usize]).unwrap();
    let id = put_tree(&world.store, &top, TreeOptions::default(), &mut |_| ()).unwrap().id;
    fs::remove_file(top.join("gone")).unwrap();
    // The lost file is answered for when the others are under way, and they when it has failed. The large one begins
    // after it, or its windows could take all places.
    world.net.gate = Some(|net, call| match call.limit {
        STAT_LIMIT if call.app == STAT_APP => net.in_flight.load(Ordering::SeqCst) >= 2,
        _ if call.app != GET_APP => true,
        ..MIB => net.in_flight.load(Ordering::SeqCst) >= 8,
        MIB.. => net.asked(1) >= 1,
    });
    let running = world.session(quick(), None);
    assert_eq!(running.get(id).await.unwrap_err().exit, Exit::NotFound);
    let net = running.session_net();
    assert_eq!(net.in_flight.load(Ordering::SeqCst), 0, "they were waited for");
    assert_eq!(running.session.budget.spent(), net.paid());
    let windows = net.asked(1) - 1;
    assert_eq!(running.session.meter.get().0, windows * MIB, "and what they brought is kept");
    assert!((7..40).contains(&windows), "{windows}");
}

#[tokio::test]
async fn an_interrupted_directory_continues() {
    let dies = fault(|n, answer| if n < 3 { Ok(answer) } else { Err(failure(Exit::Unreachable)) });
    let world = World::new().provider(1, 1, dies);
    let (_, id) = make_tree(&world);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    assert_eq!(running.get(id).await.unwrap_err().exit, Exit::Unreachable);
    let target = running.folder.path().join("target");
    assert!(!target.exists());
    let mut world = World::new();
    world.store = store;
    let mut world = world.provider(1, 1, None);
    world.folder = running.folder;
    drop(running.session);
    let again = world.session(quick(), None);
    again.get(id).await.unwrap();
    // Nine windows in all: the empty file, two small ones and six of the big one.
    assert_eq!(again.session_net().asked(1), 9 - 3);
    assert!(target.join("sub/big").exists());
}
