//! `por watch`: a tower that nodes hand their states to by themselves, on a local chain with the real
//! contract.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use common::{Daemon, World, eventually, request};
use por_node::config::Config;
use por_node::exit::ExitCode;
use por_node::home::Home;
use por_node::keys::{Keys, NodeSetup, generate_near_key, generate_node_key};
use por_node::sdk::{AppPricing, ErrorCode, Node};
use por_node::store::{NodeStore, StoreIdentity};
use por_node::watch::restore;
use por_node::watch::service::WatchTower;
use por_node::watch::wire::{Ask, Reply, TowerClient};
use por_types::interface::ChannelStatus;
use por_types::{AccountId, ChannelId, SeverOrder, SeverReason, Side, Totals, Yocto};

/// The home of a tower with an account; starts it again and again.
struct TowerHome {
    home: Home,
    config: Config,
    keys: Keys,
}

impl TowerHome {
    async fn new(world: &World) -> TowerHome {
        let account: AccountId = "tower.localnet".parse().expect("account");
        let mut config = Config::new(account.clone(), world.chain.network_config());
        config.p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")];
        let keys = Keys { node: generate_node_key(), near: generate_near_key(), near_account: None };
        world.chain.faucet(&account, &keys.near.public_key(), Yocto::near(10)).await.expect("faucet");
        TowerHome { home: Home::at(world.homes().join("tower")), config, keys }
    }

    async fn start(&mut self) -> WatchTower {
        let lock = self.home.lock().expect("the home is free");
        let setup =
            NodeSetup { home: self.home.clone(), lock, config: self.config.clone(), keys: self.keys.clone() };
        let tower = WatchTower::start(setup).await.expect("the tower starts");
        let mut listen = tower.addresses()[0].clone();
        listen.pop();
        // The same port after a restart.
        self.config.p2p.listen = vec![listen];
        tower
    }
}

/// Alice has paid Bob several times; the tower has what Bob has: the totals.
async fn paid(world: &World, tower: &WatchTower) -> (Daemon, Daemon, ChannelId, Totals) {
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let price = pay(&alice, &bob, 3).await;
    let totals = handed_over(&bob, tower, channel).await;
    // An attempt that came too early was paid for too, and refunded.
    assert!(totals.sent_a >= price, "{totals:?}");
    (alice, bob, channel, totals)
}

async fn pay(alice: &Daemon, bob: &Daemon, times: u32) -> Yocto {
    let pricing = AppPricing { base: Yocto::millinear(500), per_byte: Yocto::ZERO };
    let serving = bob.node().serve("echo", pricing, 4, |incoming| async move { incoming.body }).await;
    let mut sum = Yocto::ZERO;
    for _ in 0..times {
        let mut ask = request(bob, "echo", b"worth half a NEAR");
        ask.server_price = Yocto::millinear(500);
        let answer = alice.node().request(ask).await.expect("answer");
        sum = sum.checked_add(answer.price).expect("sum");
    }
    drop(serving);
    sum
}

/// Waits until the tower would give the node back what it has itself: these totals.
async fn handed_over(node: &Daemon, tower: &WatchTower, channel: ChannelId) -> Totals {
    let client = TowerClient::start(&node.keys().node).expect("client");
    let totals = eventually("the tower has the latest state", || async {
        let info = node.channel(channel).await?;
        let evidence = node.node().evidence().await.expect("evidence");
        let reply = client.ask(&tower.addresses()[0], Ask::GiveBack { after: None }).await.ok()?;
        let Reply::Given { handed, more: None } = reply else { panic!("{reply:?}") };
        let own = handed.own.first().map(|args| args.state.statement.totals);
        let whole = handed.states == evidence.states && own == Some(info.totals) && info.unfinished == 0;
        whole.then_some(info.totals)
    })
    .await;
    let status = eventually("the daemon knows that", || async {
        let status = node.client().status().await.expect("status").watchtowers;
        status.into_iter().find(|tower| tower.behind == 0 && tower.channels == 1)
    })
    .await;
    assert_eq!(status.error, None);
    totals
}

/// What the two sides get by these totals, of their deposits.
fn shares(totals: Totals) -> (Yocto, Yocto) {
    let share = |side, deposit| totals.balance(side, deposit, Yocto::ZERO).expect("covered");
    (share(Side::A, Yocto::near(10)), share(Side::B, Yocto::near(5)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_challenges_an_old_state_by_itself() {
    let mut world = World::start().await;
    let mut tower_home = TowerHome::new(&world).await;
    let tower = tower_home.start().await;
    world.watchtowers = tower.addresses();
    let (mut alice, mut bob, channel, totals) = paid(&world, &tower).await;

    // Nobody else is given anything.
    let stranger = TowerClient::start(&generate_node_key()).expect("client");
    let reply = stranger.ask(&tower.addresses()[0], Ask::GiveBack { after: None }).await.expect("reply");
    assert!(matches!(reply, Reply::Given { handed, .. } if handed.is_empty()));
    let evidence = bob.node().evidence().await.expect("evidence");
    let reply = stranger.ask(&tower.addresses()[0], Ask::HandOver(evidence)).await.expect("reply");
    assert!(matches!(reply, Reply::Refused { retry: false, .. }), "{reply:?}");

    alice.stop().await;
    bob.stop().await;
    // The tower has it on disk.
    tower.shutdown().await.expect("a clean end");
    let tower = tower_home.start().await;

    // Alice leaves; the contract knows of no payment of hers.
    let cheat = world.chain.connect(alice.account.clone(), Some(alice.keys().near.clone())).await;
    let cheat = cheat.expect("chain");
    let signer = alice.keys().node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    cheat.sever(alice.keys().node.sign(cheat.network(), order)).await.expect("sever");
    eventually("the tower shows the payments", || async {
        let view = cheat.channel(channel).await.expect("view").expect("channel");
        (view.totals.sent_a == totals.sent_a).then_some(())
    })
    .await;
    let (settled, paid) = eventually("the tower has the channel paid out", || async {
        let view = cheat.channel(channel).await.expect("view").expect("channel");
        // Nobody else is there to finalize it.
        match view.status {
            ChannelStatus::Closed { paid_a, paid_b, .. } => Some((view.totals, (paid_a, paid_b))),
            _ => None,
        }
    })
    .await;
    assert_eq!((settled.sent_a, paid), (totals.sent_a, shares(settled)));
    let client = TowerClient::start(&bob.keys().node).expect("client");
    eventually("nothing is left to guard", || async {
        let reply = client.ask(&tower.addresses()[0], Ask::GiveBack { after: None }).await.ok()?;
        matches!(reply, Reply::Given { handed, .. } if handed.is_empty()).then_some(())
    })
    .await;
    tower.shutdown().await.expect("a clean end");
    world.check_books().await;
}

fn bob_identity(world: &World, bob: &Daemon) -> StoreIdentity {
    StoreIdentity { network: world.chain.network_config().network(), node_key: bob.keys().node.public() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_goes_on() {
    let mut world = World::start().await;
    let mut tower_home = TowerHome::new(&world).await;
    let tower = tower_home.start().await;
    world.watchtowers = tower.addresses();
    let (mut alice, mut bob, channel, totals) = paid(&world, &tower).await;
    let before = bob.channel(channel).await.expect("channel");
    alice.stop().await;
    bob.stop().await;
    for file in ["por.redb", "por.journal", "por.mark"] {
        std::fs::remove_file(bob.home().data_dir().join(file)).expect("the disk is lost");
    }

    // An empty store must not sign: it would begin below what Bob has promised.
    let error = Node::start(bob.setup()).await.expect_err("the tower holds more");
    assert_eq!(error.code, ErrorCode::CorruptStore, "{error}");
    assert!(error.message.contains(&format!("channel {channel}")), "{error}");
    assert!(error.fix.contains("por watch restore"), "{error}");
    let left = NodeStore::open(&bob.home().store_file(), &bob_identity(&world, &bob)).expect("a store");
    assert_eq!(left.restored().expect("rows").rows, [], "nothing was written");
    left.close().await.expect("close");

    let nowhere: por_node::sdk::Multiaddr =
        "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
            .parse()
            .expect("address");
    let error = restore(bob.setup(), std::slice::from_ref(&nowhere)).await.expect_err("nobody is there");
    assert_eq!(error.code, ExitCode::Unreachable, "{error}");
    assert_eq!(restore(bob.setup(), &[]).await.expect_err("no tower").code, ExitCode::Usage);

    // A tower that is away does no harm while another one answers.
    let towers = [nowhere, tower.addresses()[0].clone()];
    let restored = restore(bob.setup(), &towers).await.expect("restored");
    assert_eq!(restored.len(), 1);
    assert_eq!((restored[0].channel, restored[0].received), (channel, totals.sent_a));
    assert!(restored[0].raised);
    let again = restore(bob.setup(), &towers).await.expect("restored");
    assert!(!again[0].raised, "never below, and nothing twice");

    // Alice is not there to tell: Bob knows what he has got.
    bob.start().await;
    let after = eventually("the channel", || async {
        bob.channel(channel).await.filter(|info| info.totals == before.totals)
    })
    .await;
    assert_eq!(after.balance_mine, before.balance_mine);
    assert_eq!(bob.node().evidence().await.expect("evidence").states.len(), 1);
    alice.start().await;
    eventually("they meet again", || async {
        (bob.channel(channel).await?.connected && alice.channel(channel).await?.connected).then_some(())
    })
    .await;
    let more = pay(&alice, &bob, 2).await;
    let both = eventually("both have the same books", || async {
        let (here, there) = (alice.channel(channel).await?, bob.channel(channel).await?);
        (here.totals == there.totals && here.unfinished + there.unfinished == 0).then_some(here.totals)
    })
    .await;
    assert!(both.sent_a.checked_sub(totals.sent_a).expect("never less") >= more, "{both:?} after {totals:?}");
    alice.client().close_channel(channel).await.expect("close");
    let paid = eventually("the channel is closed", || async {
        let info = bob.channel(channel).await?;
        assert_eq!(info.side, Side::B);
        match info.status {
            ChannelStatus::Closed { paid_a, paid_b, .. } => Some((paid_a, paid_b)),
            _ => None,
        }
    })
    .await;
    assert_eq!(paid, shares(both));
    tower.shutdown().await.expect("a clean end");
    world.check_books().await;
}

/// What a tower has acknowledged it may lose with its disk. Nobody tells its nodes, which pay and are paid
/// nothing meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_tower_that_lost_its_disk_is_told_again() {
    let mut world = World::start().await;
    let mut tower_home = TowerHome::new(&world).await;
    let tower = tower_home.start().await;
    world.watchtowers = tower.addresses();
    let (mut alice, mut bob, channel, _) = paid(&world, &tower).await;
    tower.shutdown().await.expect("a clean end");
    std::fs::remove_file(tower_home.home.data_dir().join("watch.redb")).expect("the disk is lost");
    let tower = tower_home.start().await;
    handed_over(&bob, &tower, channel).await;
    alice.stop().await;
    bob.stop().await;
    tower.shutdown().await.expect("a clean end");
}
