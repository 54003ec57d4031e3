//! Links between nodes that are cut, swallow everything, or are slow, in the middle of a get.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::path::Path;
use std::time::Duration;

use common::link::Link;
use common::{DEPOSIT, assert_books, content, end, exe, get_from, impatient, serve, under_way};
use por_fileshare::demo::cluster::{Cluster, until};
use por_fileshare::demo::terms;
use por_node::client::{PursuitEnd, What};
use por_node::config::{Config, Overrides};
use por_node::home::Home;
use por_node::sdk::Multiaddr;
use por_types::interface::ChannelStatus;
use por_types::{ChannelId, Terms, Yocto};

/// Nobody announces an address, so nobody finds who offers what.
const SERVER: Option<&str> = Some("server");

/// `reader` – `near` – `relay` – `far` – `server`: the relay tells nobody where it listens, so that
/// whoever wants it comes over a link.
struct Net {
    cluster: Cluster,
    near: Link,
    far: Link,
    channels: Vec<ChannelId>,
}

/// A link to a member, and the address by which others know it then.
async fn link(cluster: &Cluster, name: &str) -> (Link, Multiaddr) {
    let address = cluster.member(name).addresses().await.expect("listens").remove(0).to_string();
    let parts: Vec<&str> = address.split('/').collect();
    let ["", "ip4", ip, "tcp", port, "p2p", peer] = parts[..] else { panic!("not over TCP: {address}") };
    let target = format!("{ip}:{port}").parse().expect("an address");
    let link = Link::to(target).await;
    let port = link.addr.port();
    let through = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}").parse().expect("an address");
    (link, through)
}

async fn join(cluster: &mut Cluster, name: &str, boot: Vec<Multiaddr>, announce: bool) {
    cluster.add_over(name, Yocto::near(100), boot, announce).await.expect("a node");
    cluster.member(name).client.register(Yocto::near(10)).await.expect("registered");
}

impl Net {
    /// With `detour`, `reader` – `other` – `server` is a dearer way without links.
    async fn start(dir: &Path, terms: impl Fn(u128) -> Terms, detour: bool) -> Net {
        let mut cluster = Cluster::start(exe(), dir, "relay").await.expect("a chain");
        join(&mut cluster, "relay", Vec::new(), false).await;
        let (near, by_near) = link(&cluster, "relay").await;
        let (far, by_far) = link(&cluster, "relay").await;
        let mut others = Vec::new();
        if detour {
            join(&mut cluster, "other", Vec::new(), true).await;
            others = cluster.member("other").addresses().await.expect("listens");
        }
        join(&mut cluster, "reader", [others.clone(), vec![by_near]].concat(), false).await;
        join(&mut cluster, "server", [others, vec![by_far]].concat(), false).await;
        let mut edges = vec![("reader", "relay", 1), ("relay", "server", 1)];
        if detour {
            edges.extend([("reader", "other", 4), ("other", "server", 4)]);
        }
        let mut channels = Vec::new();
        for (a, b, factor) in &edges {
            channels.push(cluster.open(a, b, DEPOSIT, &terms(*factor)).await.expect("a channel"));
        }
        cluster.settle_graph(edges.len()).await.expect("the graph");
        Net { cluster, near, far, channels }
    }

    async fn connected(&self, name: &str, channel: ChannelId, wanted: bool) {
        let member = self.cluster.member(name);
        member.wait_channel(channel, |info| info.connected == wanted).await.expect("it is noticed");
    }

    /// Starts a member again with this much for the pursuit of silent neighbours.
    async fn pursues(&mut self, dir: &Path, name: &str, budget: Yocto) {
        self.cluster.kill(name).await.expect("killed");
        let home = Home::at(dir.join(name));
        let mut config = Config::load(&home, Overrides::default()).expect("a configuration");
        config.policy.pursuit_budget = budget;
        config.save(&home).expect("saved");
        self.cluster.revive(name).await.expect("started");
    }

    /// How the pursuits of a member ended.
    async fn pursued(&self, name: &str) -> Vec<PursuitEnd> {
        let news = self.cluster.member(name).client.news(0).await.expect("news");
        let ends = news.happenings.into_iter().filter_map(|happening| match happening.what {
            What::Pursued { end, .. } => Some(end),
            _ => None,
        });
        ends.collect()
    }

    async fn got_late(&self, name: &str) -> Yocto {
        self.cluster.member(name).status().await.expect("status").traffic.got_late
    }

    async fn assert_severed(&self, expected: &[(&str, u64)]) {
        for (name, severed) in expected {
            let status = self.cluster.member(name).status().await.expect("status");
            assert_eq!(status.traffic.severed, *severed, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_cut_for_a_moment_heal_and_the_get_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let net = Net::start(dir.path(), terms, false).await;
    let file = dir.path().join("file");
    let bytes = content(64 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&net.cluster, &file).await;
    let target = dir.path().join("copy");
    let get = tokio::spawn(end(get_from(&net.cluster, SERVER, &id, &target)));
    under_way(&target).await;

    // Reset, with new connections refused, until both ends of the path have noticed.
    net.near.cut();
    net.far.cut();
    net.connected("reader", net.channels[0], false).await;
    net.connected("server", net.channels[1], false).await;
    assert!(!target.exists(), "the links were cut in the middle of the get");
    net.near.open(Duration::ZERO);
    net.far.open(Duration::ZERO);
    net.connected("reader", net.channels[0], true).await;
    net.connected("server", net.channels[1], true).await;
    // Silence for a few heartbeats, of which connections know nothing.
    net.near.hole();
    tokio::time::sleep(Duration::from_millis(u64::from(terms(1).grace_ms) / 5)).await;
    net.near.open(Duration::ZERO);

    let (code, said) = get.await.expect("no panic");
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_books(&net.cluster, &net.channels).await;
    net.assert_severed(&[("reader", 0), ("relay", 0), ("server", 0)]).await;
    net.cluster.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_swallows_everything_is_paid_for_severed_and_gone_around() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut net = Net::start(dir.path(), impatient, true).await;
    net.pursues(dir.path(), "relay", Yocto::near(1)).await;
    net.connected("relay", net.channels[0], true).await;
    net.connected("relay", net.channels[1], true).await;
    let file = dir.path().join("file");
    let bytes = content(64 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&net.cluster, &file).await;
    let target = dir.path().join("copy");
    let get = tokio::spawn(end(get_from(&net.cluster, SERVER, &id, &target)));
    under_way(&target).await;
    let waiting = || async {
        let info = net.cluster.member("relay").channel(net.channels[1]).await?;
        Ok(info.is_some_and(|info| info.unfinished > 0).then_some(()))
    };
    until("requests over the relay", waiting).await.expect("they come");
    net.far.hole();
    let late = || async { Ok((net.got_late("reader").await > Yocto::ZERO).then_some(())) };
    until("late payments", late).await.expect("the relay pays");
    let severed = |info: &por_node::client::ChannelInfo| {
        matches!(info.status, ChannelStatus::Severed { .. } | ChannelStatus::Closed { severed: true, .. })
    };
    net.cluster.member("relay").wait_channel(net.channels[1], severed).await.expect("severed");

    let (code, said) = get.await.expect("no panic");
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    net.assert_severed(&[("reader", 0), ("relay", 1), ("other", 0)]).await;
    // The relay asks over the reader and the other one what it did not hear.
    let heard = || async { Ok(net.pursued("relay").await.pop()) };
    let end = until("the end of the pursuit", heard).await.expect("it ends");
    assert!(matches!(end, PursuitEnd::Answered { .. }), "{end:?}");
    let around = net.cluster.member("reader").channel(net.channels[2]).await.expect("asked");
    let around = around.expect("a channel");
    assert!(around.balance_mine < DEPOSIT, "the rest came the other way");
    assert_eq!(around.status, ChannelStatus::Open);
    net.cluster.stop().await.expect("stopped");
}

/// What a busy machine takes for an answer is far below the promised round trip.
fn unhurried(factor: u128) -> Terms {
    Terms { rtt_ms: 1_500, ..terms(factor) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_costs_nothing_within_its_terms_and_late_payments_beyond() {
    let dir = tempfile::tempdir().expect("a folder");
    let net = Net::start(dir.path(), unhurried, false).await;
    let file = dir.path().join("file");
    // Of one answer: each step of flow control takes a round trip more than the terms grant.
    let bytes = content(64 << 10);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&net.cluster, &file).await;
    let rtt = Duration::from_millis(u64::from(unhurried(1).rtt_ms));

    net.far.open(rtt / 15);
    let target = dir.path().join("in time");
    let (code, said) = end(get_from(&net.cluster, SERVER, &id, &target)).await;
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_eq!(net.got_late("reader").await, Yocto::ZERO, "within the promised round trip");

    // More than the promises of both edges: the relay may use what its link to the reader does not need.
    net.far.open(rtt * 5 / 4);
    let target = dir.path().join("late");
    let (code, said) = end(get_from(&net.cluster, SERVER, &id, &target)).await;
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert!(net.got_late("reader").await > Yocto::ZERO, "it took more than the promised round trips");
    net.far.open(Duration::ZERO);
    assert_books(&net.cluster, &net.channels).await;
    net.assert_severed(&[("reader", 0), ("relay", 0), ("server", 0)]).await;
    net.cluster.stop().await.expect("stopped");
}
