//! Prices are exact, and limits of money hold.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use por_fileshare::{
    exit::{Exit, Failure},
    get::{self, Place},
    proto::Answer,
};
use por_types::Yocto;

use super::providers::{MIB, World, failure, fault, key, quick, want};

#[tokio::test]
async fn several_providers_share_the_work_and_the_price_is_exact() {
    let mut world = World::new().provider(1, 3, None).provider(2, 3, None).provider(3, 3, None);
    world.net.delay = Duration::from_millis(5);
    let (id, data) = world.put(30 * MIB + 5);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let asking = running.session.budget.spent();
    assert_eq!(asking, running.session_net().paid());
    let plan = get::plan(&running.session, &goal, None).await.unwrap();
    assert_eq!((plan.windows, plan.bytes, plan.costs.len()), (31, 30 * MIB + 5, 3));
    let place = Place { target: running.folder.path().join("target"), overwrite: false, share: None };
    get::fetch_to(&running.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    let spent = running.session.budget.spent();
    assert_eq!(spent.checked_sub(asking).unwrap(), plan.at_most, "exactly what was quoted");
    assert_eq!(spent, running.session_net().paid());
    let tallies = running.session.pool.tallies();
    assert!(tallies.iter().all(|tally| tally.bytes > 0), "{tallies:?}");
    assert_eq!(tallies.iter().map(|tally| tally.bytes).sum::<u64>(), 30 * MIB + 5);
    assert_eq!(Yocto::checked_sum(tallies.iter().map(|tally| tally.spent)).unwrap(), spent);
    let most = running.session_net().most_in_flight.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} in flight");
}

#[tokio::test]
async fn money_stays_within_its_limit() {
    let world = World::new().provider(1, 5, None);
    let (id, _) = world.put(10 * MIB);
    let running = world.session(quick(), Some(Yocto(1_000_000)));
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Budget, "{failed}");
    assert_eq!(running.session_net().asked(1), 0, "refused before anything was bought");
    assert!(running.session_net().paid() <= Yocto(1_000_000));
}

#[tokio::test]
async fn a_limit_holds_while_windows_are_spoiled() {
    // Spoiled windows are paid for; the budget is that of a clean download and a bit.
    let spoils = fault(|n, answer| {
        if n % 2 == 0 {
            Ok(Answer::refused(por_fileshare::proto::Fault::Busy, "x").encode().unwrap())
        } else {
            Ok(answer)
        }
    });
    let world = World::new().provider(1, 5, spoils);
    let (id, _) = world.put(10 * MIB);
    let max = Yocto(85_000_000);
    let mut limits = quick();
    limits.patience = Duration::from_secs(20);
    let running = world.session(limits, Some(max));
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Budget, "{failed}");
    assert!(running.session_net().paid() <= max);
    assert_eq!(running.session_net().paid(), running.session.budget.spent());
}

#[tokio::test]
async fn too_dear_providers_are_not_asked() {
    let world = World::new().provider(1, 1_000_000, None).provider(2, 1, None);
    let (id, data) = world.put(5 * MIB);
    let mut limits = quick();
    limits.max_price = Some(Yocto(10 << 30));
    let running = world.session(limits, None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
    assert_eq!(running.session_net().asked(1), 0);
    assert!(running.session_net().asked(2) >= 5);
}

#[tokio::test]
async fn a_route_that_became_dearer_is_priced_anew() {
    let world = World::new().provider(1, 1, None);
    let (id, data) = world.put(4 * MIB);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    get::plan(&running.session, &goal, None).await.unwrap();
    running.session_net().surcharge.store(5_000, Ordering::Relaxed);
    let place = Place { target: running.folder.path().join("target"), overwrite: false, share: None };
    get::fetch_to(&running.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    assert_eq!(running.session.budget.spent(), running.session_net().paid());
}

/// A question whose answer does not come in time was paid for all the same.
#[tokio::test]
async fn what_was_paid_for_nothing_counts() {
    const EACH: Yocto = Yocto(7_000_000);
    let stalls = fault(|_, _| Err(Failure { spent: EACH, ..failure(Exit::Deadline) }));
    let world = World::new().provider(1, 5, stalls);
    let (id, _) = world.put(10 * MIB);
    let mut limits = quick();
    limits.patience = Duration::from_secs(20);
    let max = Yocto(100_000_000);
    let running = world.session(limits, Some(max));
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Budget, "{failed}");
    let asked = u128::from(running.session_net().asked(1));
    assert!(EACH.0 * asked <= max.0, "{asked} questions");
    let asking = running.session_net().paid();
    assert_eq!(running.session.budget.spent(), asking.checked_add(Yocto(EACH.0 * asked)).unwrap());
    assert_eq!(running.session.pool.tallies()[0].spent, running.session.budget.spent());
}

/// Whoever has not answered when others have is not waited for, but was paid.
#[tokio::test]
async fn a_question_that_is_given_up_counts() {
    let mut world = World::new().provider(1, 0, None).provider(2, 0, None);
    world.net.stalls = Some(key(2));
    let (id, _) = world.put(MIB);
    let running = world.session(quick(), None);
    get::locate(&running.session, &want(id)).await.unwrap();
    assert_eq!(running.session.budget.spent(), running.session_net().paid());
}
