//! Nodes as processes of their own, on a local chain: killed and frozen in the middle of a get, and
//! lied to by a damaged file.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::time::Duration;

use common::{DEPOSIT, PATIENCE, assert_books, content, diamond, end, get, row, serve, serving, under_way};
use por_fileshare::demo::cluster::{Cluster, until};
use por_fileshare::demo::terms;
use por_types::ChannelId;
use por_types::interface::ChannelStatus;
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_daemons_resume_a_get() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut cluster, channels) = row(dir.path()).await;
    let file = dir.path().join("file");
    let bytes = content(96 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&cluster, &file).await;
    let target = dir.path().join("copy");

    let mut first = get(&cluster, &id, &target);
    // Its pipe must not fill.
    let mut errors = first.stderr.take().expect("piped");
    let drain = tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
    under_way(&target).await;
    cluster.kill("relay").await.expect("killed");
    cluster.kill("reader").await.expect("killed");
    assert!(!target.exists(), "the daemons were killed in the middle of the get");
    cluster.revive("relay").await.expect("started again");
    cluster.revive("reader").await.expect("started again");
    let status = tokio::time::timeout(PATIENCE, first.wait()).await.expect("get does not hang");
    let mut done = status.expect("it ends").success();
    drain.abort();
    let mut said = String::new();
    for _ in 0..10 {
        if done {
            break;
        }
        assert!(!target.exists(), "an unfinished get leaves no file under the final name");
        let (code, output) = end(get(&cluster, &id, &target)).await;
        assert!([0, 3, 4, 5, 6, 10].contains(&code), "exit {code}: {output}");
        done = code == 0;
        said = output;
    }
    assert!(done, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_books(&cluster, &channels).await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut cluster, channels) = row(dir.path()).await;
    let file = dir.path().join("file");
    let bytes = content(64 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, mut server) = serve(&cluster, &file).await;
    let target = dir.path().join("copy");
    let get = tokio::spawn(end(get(&cluster, &id, &target)));
    under_way(&target).await;
    cluster.kill("server").await.expect("killed");
    assert!(!target.exists(), "the server was killed in the middle of the get");
    cluster.revive("server").await.expect("started again");

    // `fileshare serve` beside it comes back to the new daemon by itself.
    serving(&cluster).await;
    assert!(server.try_wait().expect("status").is_none(), "it is the same process");
    let (code, said) = get.await.expect("no panic");
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_books(&cluster, &channels).await;
    for name in ["reader", "relay", "server"] {
        let status = cluster.member(name).status().await.expect("status");
        assert_eq!(status.traffic.severed, 0, "{name}");
    }
    cluster.stop().await.expect("stopped");
}

/// Freezes the relay while the reader waits for answers over it.
async fn freeze_relay(cluster: &Cluster, channel: ChannelId, target: &Path) {
    under_way(target).await;
    let waiting = || async {
        let info = cluster.member("reader").channel(channel).await?;
        Ok(info.is_some_and(|info| info.unfinished > 0).then_some(()))
    };
    until("requests over the relay", waiting).await.expect("they come");
    cluster.freeze("relay").expect("frozen");
    until("requests over the frozen relay", waiting).await.expect("they wait");
    assert!(!target.exists(), "the relay was frozen in the middle of the get");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_frozen_beyond_its_grace_is_severed_and_the_get_goes_another_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, channels) = diamond(dir.path()).await;
    let file = dir.path().join("file");
    let bytes = content(96 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&cluster, &file).await;
    let target = dir.path().join("copy");
    let get = tokio::spawn(end(get(&cluster, &id, &target)));
    freeze_relay(&cluster, channels[0], &target).await;
    let severed = |info: &por_node::client::ChannelInfo| {
        matches!(info.status, ChannelStatus::Severed { .. } | ChannelStatus::Closed { severed: true, .. })
    };
    cluster.member("reader").wait_channel(channels[0], severed).await.expect("severed");
    let (code, said) = get.await.expect("no panic");
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    let status = cluster.member("reader").status().await.expect("status");
    assert_eq!(status.traffic.severed, 1, "nobody else was severed");
    let settled = || async {
        let (left, right) = (
            cluster.member("reader").channel(channels[2]).await?,
            cluster.member("other").channel(channels[2]).await?,
        );
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        let agreed = left.totals == right.totals && left.unfinished + right.unfinished == 0;
        Ok(agreed.then_some(left))
    };
    let other = until("both ends of the other way to agree", settled).await.expect("they agree");
    assert!(other.balance_mine < DEPOSIT, "the rest came the other way");
    assert_eq!(other.status, ChannelStatus::Open);

    // The relay comes to itself, and the contract settles what it was shown.
    cluster.thaw("relay").expect("goes on");
    let paid = until("the severed channel to be paid out", || async {
        let info = cluster.member("reader").channel(channels[0]).await?;
        Ok(info.and_then(|info| match info.status {
            ChannelStatus::Closed { paid_a, paid_b, severed: true, .. } => Some((paid_a, paid_b)),
            _ => None,
        }))
    })
    .await
    .expect("paid out");
    assert_eq!(paid.0.checked_add(paid.1), DEPOSIT.checked_add(DEPOSIT));
    cluster.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_frozen_within_its_grace_is_not_severed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, channels) = row(dir.path()).await;
    let file = dir.path().join("file");
    let bytes = content(64 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&cluster, &file).await;
    let target = dir.path().join("copy");
    let get = tokio::spawn(end(get(&cluster, &id, &target)));
    freeze_relay(&cluster, channels[0], &target).await;
    // Several heartbeats, and a third of the grace.
    tokio::time::sleep(Duration::from_millis(u64::from(terms(1).grace_ms) / 3)).await;
    cluster.thaw("relay").expect("goes on");
    let (code, said) = get.await.expect("no panic");
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_books(&cluster, &channels).await;
    for name in ["reader", "relay", "server"] {
        let status = cluster.member(name).status().await.expect("status");
        assert_eq!(status.traffic.severed, 0, "{name}");
    }
    cluster.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_the_served_file_fails_the_get() {
    let dir = tempfile::tempdir().expect("a folder");
    let (cluster, _) = row(dir.path()).await;
    let file = dir.path().join("file");
    let mut bytes = content(3 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let before = std::fs::metadata(&file).expect("there").modified().expect("a time");
    let (id, _server) = serve(&cluster, &file).await;
    bytes[2 << 20] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    // As bit rot does it: the file looks as before.
    let handle = std::fs::File::options().write(true).open(&file).expect("there");
    handle.set_modified(before).expect("set");
    let target = dir.path().join("copy");
    let (code, output) = end(get(&cluster, &id, &target)).await;
    assert_ne!(code, 0, "{output}");
    assert!(!target.exists(), "nothing that is not verified has the final name");
    cluster.stop().await.expect("stopped");
}
