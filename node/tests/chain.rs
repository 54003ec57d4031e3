//! The chain client against a local chain: the contract's wasm in NEAR's VM behind NEAR's RPC.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use near_crypto::SecretKey;
use parking_lot::Mutex;
use por_node::chain::{
    Call, Chain, ChainConfig, ChainError, Intent, IntentId, IntentStore, MemoryIntents, RpcLimits, deploy,
};
use por_node::exit::{CliError, ExitCode};
use por_node::graph::GraphSync;
use por_node::keys::{generate_near_key, generate_node_key};
use por_node::localnet::{LocalNetwork, LocalNetworkConfig, local_params};
use por_types::interface::{
    ChannelStatus, CheckArgs, ConfirmChannelArgs, DrawArgs, NewArgs, PingArgs, ProposeChannelArgs,
    RegisterArgs, ReplaceTermsArgs, UnstakeArgs, WithdrawArgs, code,
};
use por_types::{
    AccountId, ChannelId, Draw, NewTerms, NodeSecret, RegistrationProof, SeverOrder, SeverReason, Side,
    Terms, Totals, Yocto,
};

#[path = "chain/lying.rs"]
mod lying;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;
#[path = "chain/sending.rs"]
mod sending;
#[path = "chain/silent.rs"]
mod silent;

use proxy::Mood;

struct World {
    net: LocalNetwork,
}

struct Actor {
    account: AccountId,
    key: SecretKey,
    node: NodeSecret,
}

fn account(name: &str) -> AccountId {
    name.parse().expect("account")
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 100,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(10),
        byte_fee: Yocto(1),
        heartbeat_ms: 1_000,
        grace_ms: 1_000,
        max_requests: 10,
        max_bytes: 1 << 20,
    }
}

impl World {
    async fn start() -> World {
        let config = LocalNetworkConfig { block_time: Duration::from_millis(50), ..Default::default() };
        World { net: LocalNetwork::start(config).await.expect("local chain") }
    }

    async fn actor(&self, name: &str) -> Actor {
        let actor = Actor { account: account(name), key: generate_near_key(), node: generate_node_key() };
        let key = actor.key.public_key();
        self.net.faucet(&actor.account, &key, Yocto::near(50)).await.expect("faucet");
        actor
    }

    fn config(&self, actor: &Actor) -> ChainConfig {
        ChainConfig::new(&self.net.network_config(), actor.account.clone(), Some(actor.key.clone()))
    }

    async fn chain(&self, actor: &Actor) -> Chain {
        Chain::connect(self.config(actor), Arc::new(MemoryIntents::default())).await.expect("connects")
    }
}

async fn register(chain: &Chain, actor: &Actor, stake: Yocto) {
    let proof = RegistrationProof { account: actor.account.clone(), node_key: actor.node.public() };
    let proof = actor.node.sign(chain.network(), proof).signature;
    let storage = chain.config().await.expect("config").register_storage;
    let args = RegisterArgs { node_key: actor.node.public(), proof };
    let attached = stake.checked_add(storage).expect("fits");
    chain.call(Intent::new(Call::Register { args, attached })).await.expect("registers");
}

async fn stake_of(chain: &Chain) -> Yocto {
    chain.node(chain.account()).await.expect("view").expect("registered").stake
}

async fn propose(chain: &Chain, to: &AccountId) -> Result<ChannelId, ChainError> {
    let config = chain.config().await?;
    let args = ProposeChannelArgs { counterparty: to.clone(), terms: terms(), deposit: Yocto::near(2) };
    let bond = Yocto(config.params.sever_penalty.0 / 2);
    let call = Call::propose(args, bond, config.channel_storage).expect("fits");
    let outcome = chain.call(Intent::new(call)).await?;
    Ok(serde_json::from_value(outcome.value).expect("a channel id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_views_and_the_graph() {
    let world = World::start().await;
    let (alice, bob) = (world.actor("alice.localnet").await, world.actor("bob.localnet").await);
    let (a, b) = (world.chain(&alice).await, world.chain(&bob).await);
    let mut sync = GraphSync::new(a.clone());
    assert_eq!(sync.step().await.expect("step").version, 0);
    register(&a, &alice, Yocto::near(5)).await;
    let early = propose(&a, &bob.account).await.expect_err("bob has no node");
    assert_eq!(early.contract_code(), Some(code::NOT_REGISTERED), "{early}");
    assert_eq!(CliError::from(early).code, ExitCode::NotFound);
    register(&b, &bob, Yocto::near(5)).await;

    let channel = propose(&a, &bob.account).await.expect("proposes");
    let step = sync.step().await.expect("step");
    assert_eq!((step.edges.len(), step.edges[0].open), (1, false));
    let args = ConfirmChannelArgs { channel, terms: terms(), deposit: Yocto::near(1) };
    let view = b.channel(channel).await.expect("view").expect("proposed");
    let call = Call::confirm(args, view.bond).expect("fits");
    b.call(Intent::new(call)).await.expect("confirms");
    let view = a.channel(channel).await.expect("view").expect("open");
    assert_eq!((view.status, view.deposit_b), (ChannelStatus::Open, Yocto::near(1)));
    let step = sync.step().await.expect("step");
    assert!(step.changed && step.edges.iter().any(|edge| edge.open && edge.a == alice.node.public()));
    assert_eq!(sync.step().await.expect("step").edges.len(), 0, "nothing new");
    let graph = sync.graph();
    assert_eq!(graph.read().node_count(), 2);
    let version = graph.read().version();
    assert_eq!(version, a.config().await.expect("config").graph_version);

    let locked = a.call(Intent::new(Call::Unstake(UnstakeArgs { amount: Yocto::near(5) }))).await;
    assert_eq!(locked.expect_err("a channel locks it").contract_code(), Some(code::STAKE_LOCKED));
    let nothing = a.call(Intent::new(Call::Withdraw(WithdrawArgs::default()))).await;
    assert_eq!(nothing.expect_err("nothing to withdraw").contract_code(), Some(code::WITHDRAWABLE));
    world.net.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_of_both_sides_attachment_and_leaving() {
    let config = LocalNetworkConfig {
        block_time: Duration::from_millis(50),
        anchor: Some(account("alice.localnet")),
        ..Default::default()
    };
    let world = World { net: LocalNetwork::start(config).await.expect("local chain") };
    let (alice, bob) = (world.actor("alice.localnet").await, world.actor("bob.localnet").await);
    let (a, b) = (world.chain(&alice).await, world.chain(&bob).await);
    register(&a, &alice, Yocto::near(5)).await;
    register(&b, &bob, Yocto::near(5)).await;
    let ping = || Intent::new(Call::Ping(PingArgs { through: alice.account.clone() }));
    let alone = b.call(ping()).await.expect_err("no channel leads there");
    assert_eq!(alone.contract_code(), Some(code::NOT_ATTACHED), "{alone}");
    let channel = propose(&a, &bob.account).await.expect("proposes");
    let args = ConfirmChannelArgs { channel, terms: terms(), deposit: Yocto::near(1) };
    b.call(Intent::new(Call::confirm(args, Yocto::near(1)).expect("fits"))).await.expect("confirms");
    b.call(ping()).await.expect("attaches");
    let since = b.attachment(&bob.account).await.expect("view").expect("a node").attached_since_ms;
    let since = since.expect("attached");
    let down = b.downtime(&bob.account, since - 5, since).await.expect("view").expect("a node");
    assert_eq!((down.downtime_ms, down.complete), (5, true));
    assert_eq!(b.downtime(&account("nobody.localnet"), 0, 1).await.expect("view"), None);
    let again = b.call(ping()).await.expect_err("attached already");
    assert_eq!(again.contract_code(), Some(code::ATTACHED));
    assert_eq!(a.checks().await.expect("view").checks, 0);
    let nothing = a.call(Intent::new(Call::Check(CheckArgs::default()))).await.expect_err("none is pending");
    assert_eq!(nothing.contract_code(), Some(code::NO_CHECK));

    let expires_ms = a.head().await.expect("head").time_ms + 600_000;
    let totals = Totals { sent_a: Yocto::near(1), sent_b: Yocto::ZERO };
    let draw = Draw { channel, sequence: 1, expires_ms, totals, draw_a: Yocto(7), draw_b: Yocto::near(2) };
    let signature_a = alice.node.sign(a.network(), draw.clone()).signature;
    let signature_b = bob.node.sign(a.network(), draw.clone()).signature;
    let call = Call::Draw(DrawArgs { draw, signature_a, signature_b });
    a.call(Intent::new(call.clone())).await.expect("draws");
    assert_eq!(a.withdrawable(&bob.account).await.expect("view"), Yocto::near(2));
    let twice = b.call(Intent::new(call)).await.expect_err("once");
    assert_eq!(twice.contract_code(), Some(code::SEQUENCE));
    let terms = Terms { base_fee: Yocto(99), ..terms() };
    let act = NewTerms { channel, sequence: 2, expires_ms, totals, terms: terms.clone() };
    let signature_a = alice.node.sign(a.network(), act.clone()).signature;
    let signature_b = bob.node.sign(a.network(), act.clone()).signature;
    let call = Call::ReplaceTerms(ReplaceTermsArgs { act, signature_a, signature_b });
    b.call(Intent::new(call)).await.expect("replaces");
    let view = a.channel(channel).await.expect("view").expect("open");
    assert_eq!((view.terms, view.sequence, view.drawn_b), (terms, 2, Yocto::near(2)));

    let busy = b.call(Intent::new(Call::Unregister)).await.expect_err("it has a channel");
    assert_eq!(busy.contract_code(), Some(code::IN_USE));
    let signer = bob.node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    let order = bob.node.sign(a.network(), order);
    a.sever(order.clone()).await.expect("anyone may bring it");
    let view = a.channel(channel).await.expect("view").expect("severed");
    assert!(matches!(view.status, ChannelStatus::Severed { by: Side::B, .. }), "{view:?}");
    let node = a.node(&bob.account).await.expect("view").expect("a node");
    assert!(!node.attached, "its check is finished");
    assert_eq!(b.sever(order).await.expect_err("once").contract_code(), Some(code::NOT_SEVERABLE));

    let carol = world.actor("carol.localnet").await;
    let c = world.chain(&carol).await;
    register(&c, &carol, Yocto::ZERO).await;
    c.call(Intent::new(Call::Unregister)).await.expect("leaves");
    assert_eq!(c.node(&carol.account).await.expect("view"), None);
    assert!(!c.withdrawable(&carol.account).await.expect("view").is_zero(), "its storage deposit");
    let stranger = c.call(Intent::new(Call::CancelUpgrade)).await.expect_err("not the owner");
    assert_eq!(stranger.contract_code(), Some(code::NOT_ALLOWED));
    assert_eq!(CliError::from(stranger).code, ExitCode::Fatal);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_each_take_effect_once() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let chain = world.chain(&alice).await;
    register(&chain, &alice, Yocto::near(1)).await;
    let stakes = (1..=5u128).map(|n| chain.call(Intent::new(Call::Stake { amount: Yocto::millinear(n) })));
    for outcome in futures::future::join_all(stakes).await {
        outcome.expect("stakes");
    }
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1015));
    // The key is used by another program too: the nonce is read again.
    let other = world.chain(&alice).await;
    other.call(Intent::new(Call::Stake { amount: Yocto::millinear(5) })).await.expect("stakes");
    chain.call(Intent::new(Call::Stake { amount: Yocto::millinear(5) })).await.expect("stakes");
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1025));
}

/// A store that a crash leaves behind: `put` never returns, or `remove` never happens.
struct Crashing {
    records: Arc<Mutex<Vec<(IntentId, Vec<u8>)>>>,
    hang_after_put: bool,
}

impl IntentStore for Crashing {
    fn put(&self, id: IntentId, record: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        self.records.lock().push((id, record));
        if self.hang_after_put { Box::pin(futures::future::pending()) } else { Box::pin(async { Ok(()) }) }
    }

    fn remove(&self, _: IntentId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String> {
        Ok(Vec::new())
    }
}

/// What the next run finds.
struct Restarted(Vec<(IntentId, Vec<u8>)>, MemoryIntents, tokio::sync::mpsc::UnboundedSender<IntentId>);

impl IntentStore for Restarted {
    fn put(&self, id: IntentId, record: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        self.1.put(id, record)
    }

    fn remove(&self, id: IntentId) -> BoxFuture<'_, Result<(), String>> {
        let _ = self.2.send(id);
        self.1.remove(id)
    }

    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String> {
        Ok(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_or_after_sending_neither_loses_nor_doubles_a_call() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let chain = world.chain(&alice).await;
    register(&chain, &alice, Yocto::near(1)).await;
    for (hang_after_put, before, after) in [(true, 1_000, 1_010), (false, 1_020, 1_020)] {
        let records = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::new(Crashing { records: records.clone(), hang_after_put });
        let mut config = world.config(&alice);
        config.call_timeout = Duration::from_secs(if hang_after_put { 3 } else { 60 });
        let first = Chain::connect(config, store).await.expect("connects");
        let outcome = first.call(Intent::new(Call::Stake { amount: Yocto::millinear(10) })).await;
        assert_eq!(outcome.is_err(), hang_after_put, "{outcome:?}");
        assert_eq!(stake_of(&chain).await, Yocto::millinear(before));
        drop(first);

        let (removed, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let left = records.lock().clone();
        let store = Arc::new(Restarted(left.clone(), MemoryIntents::default(), removed));
        let second = Chain::connect(world.config(&alice), store).await.expect("connects");
        let id = tokio::time::timeout(Duration::from_secs(60), finished.recv()).await.expect("in time");
        assert_eq!(id, Some(left[0].0));
        assert_eq!(stake_of(&second).await, Yocto::millinear(after));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_pay_or_sign_is_told_so() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let chain = world.chain(&alice).await;
    register(&chain, &alice, Yocto::near(1)).await;
    let poor = chain.call(Intent::new(Call::Stake { amount: Yocto::near(1_000) })).await;
    let poor = poor.expect_err("more than the account has");
    assert!(matches!(&poor, ChainError::Funds { .. }), "{poor}");
    assert_eq!(CliError::from(poor).code, ExitCode::Budget);
    chain.call(Intent::new(Call::Stake { amount: Yocto(1) })).await.expect("the nonce goes on");

    let stranger =
        Actor { key: generate_near_key(), account: alice.account.clone(), node: generate_node_key() };
    let wrong = world.chain(&stranger).await.call(Intent::new(Call::Stake { amount: Yocto(1) })).await;
    let wrong = wrong.expect_err("not a key of the account");
    assert!(matches!(&wrong, ChainError::NoKey { .. }), "{wrong}");
    assert_eq!(CliError::from(wrong).code, ExitCode::WrongKey);
    let nobody = Actor { account: account("nobody.localnet"), ..stranger };
    let none = world.chain(&nobody).await.call(Intent::new(Call::Stake { amount: Yocto(1) })).await;
    let none = none.expect_err("no account");
    assert!(matches!(&none, ChainError::NoAccount { .. }), "{none}");

    let read_only = world.net.connect(alice.account.clone(), None).await.expect("connects");
    let refused = read_only.call(Intent::new(Call::Unregister)).await;
    assert_eq!(refused, Err(ChainError::ReadOnly));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_chains_and_contracts_are_refused() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let connect = |config: ChainConfig| async {
        let error = Chain::connect(config, Arc::new(MemoryIntents::default())).await.map(drop);
        CliError::from(error.expect_err("refused"))
    };
    let mut other_chain = world.config(&alice);
    other_chain.network.chain_id = "testnet".to_owned();
    assert_eq!(connect(other_chain).await.code, ExitCode::ForeignVersion);
    let mut real_money = world.config(&alice);
    real_money.allow_test = false;
    let error = connect(real_money).await;
    assert_eq!(error.code, ExitCode::ForeignVersion);
    assert!(error.message.contains("test contract"), "{error}");
    let mut nothing = world.config(&alice);
    nothing.network.contract = alice.account.clone();
    assert_eq!(connect(nothing).await.code, ExitCode::NotFound);

    let wasm = wat::parse_str(
        r#"(module
            (import "env" "value_return" (func $return (param i64 i64)))
            (memory (export "memory") 1)
            (data (i32.const 0) "{\"state_version\":7}")
            (func (export "new"))
            (func (export "config") (call $return (i64.const 19) (i64.const 0))))"#,
    )
    .expect("assembles");
    let future = world.actor("future.localnet").await;
    let args = NewArgs {
        chain_id: "localnet".to_owned(),
        owner: future.account.clone(),
        treasury: future.account.clone(),
        params: local_params(),
        anchor: None,
        test: true,
    };
    let urls = world.net.network_config().rpc_urls;
    deploy(&urls, &future.account, &future.key, &wasm, &args).await.expect("deploys");
    let mut newer = world.config(&alice);
    newer.network.contract = future.account;
    let error = connect(newer).await;
    assert_eq!(error.code, ExitCode::ForeignVersion);
    assert!(error.message.contains("version 7"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_lagging_endpoints_are_passed_over() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("addr");
    let dead = format!("http://{unused}");
    let only_dead = ChainConfig { rpc_urls: vec![dead.clone()], ..world.config(&alice) };
    let error = Chain::connect(only_dead, Arc::new(MemoryIntents::default())).await.map(drop);
    let error = error.expect_err("nobody is there");
    assert!(matches!(&error, ChainError::Unreachable { .. }), "{error}");
    assert_eq!(CliError::from(error).code, ExitCode::Unreachable);

    let proxy = proxy::Proxy::start(world.net.rpc_url()).await;
    let urls = vec![dead, proxy.url(), world.net.rpc_url()];
    let config = ChainConfig { rpc_urls: urls, ..world.config(&alice) };
    let chain = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    assert_eq!(chain.node(&alice.account).await.expect("view"), None);
    let old = chain.head().await.expect("head");
    proxy.turn(Mood::Frozen);
    register(&chain, &alice, Yocto::near(1)).await;
    assert!(chain.node(&alice.account).await.expect("view").is_some(), "the old answer was taken");
    assert!(chain.head().await.expect("head").height > old.height);
    assert!(proxy.spoiled() > 0, "the endpoint that lags was never asked");
}

/// Heights that one endpoint invents neither count nor make the others look old.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_invents_heights_is_passed_over() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let proxy = proxy::Proxy::start(world.net.rpc_url()).await;
    proxy.turn(Mood::Ahead);
    let urls = vec![proxy.url(), world.net.rpc_url()];
    let config = ChainConfig { rpc_urls: urls, ..world.config(&alice) };
    let chain = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    assert!(chain.head().await.expect("head").height < 1_000_000_000);
    register(&chain, &alice, Yocto::near(1)).await;
    assert!(proxy.spoiled() > 0, "the endpoint that lies was never asked");
    proxy.turn(Mood::Limited);
    assert!(chain.node(&alice.account).await.expect("the honest one is not taken for old").is_some());
    assert!(chain.head().await.expect("head").height < 1_000_000_000);
}

/// An endpoint may turn at any time, also while a call is under way: the next one is asked, and no call is
/// made twice. With nobody else the error says so, and nothing is taken for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_limit_or_answer_nonsense_are_passed_over() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let proxy = proxy::Proxy::start(world.net.rpc_url()).await;
    let limits = RpcLimits { rounds: 2, backoff: Duration::from_millis(10), ..RpcLimits::default() };
    let config = ChainConfig { rpc_urls: vec![proxy.url()], limits, ..world.config(&alice) };
    let alone = Chain::connect(config.clone(), Arc::new(MemoryIntents::default())).await.expect("connects");
    register(&alone, &alice, Yocto::near(1)).await;
    let mut stake = Yocto::near(1);
    for mood in [Mood::Limited, Mood::Page, Mood::Nonsense, Mood::Torn] {
        // The client prefers whoever answered last: it begins with the proxy.
        proxy.turn(Mood::Honest);
        let both = ChainConfig { rpc_urls: vec![proxy.url(), world.net.rpc_url()], ..config.clone() };
        let both = Chain::connect(both, Arc::new(MemoryIntents::default())).await.expect("connects");
        proxy.turn(mood);
        let error = alone.node(&alice.account).await.expect_err("there is no answer");
        assert!(matches!(&error, ChainError::Unreachable { .. }), "{mood:?}: {error}");
        assert_eq!(CliError::from(error).code, ExitCode::Unreachable, "{mood:?}");
        let before = proxy.spoiled();
        both.call(Intent::new(Call::Stake { amount: Yocto::near(1) })).await.expect("the other one takes it");
        stake = stake.checked_add(Yocto::near(1)).expect("small");
        assert_eq!(stake_of(&both).await, stake, "{mood:?}: once");
        assert!(proxy.spoiled() > before, "{mood:?}: the bad endpoint was never asked");
    }
    proxy.turn(Mood::Honest);
    assert_eq!(stake_of(&alone).await, stake);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_chain_goes_on_with_its_contract() {
    let dir = tempfile::tempdir().expect("directory");
    let config = LocalNetworkConfig {
        home: Some(dir.path().to_owned()),
        block_time: Duration::from_millis(50),
        ..Default::default()
    };
    let world = World { net: LocalNetwork::start(config.clone()).await.expect("starts") };
    let alice = world.actor("alice.localnet").await;
    register(&world.chain(&alice).await, &alice, Yocto::near(1)).await;
    world.net.shutdown().await.expect("stops");

    let world = World { net: LocalNetwork::start(config).await.expect("starts again") };
    let chain = world.chain(&alice).await;
    assert_eq!(stake_of(&chain).await, Yocto::near(1));
    chain.call(Intent::new(Call::Stake { amount: Yocto::near(1) })).await.expect("stakes");
    assert_eq!(stake_of(&chain).await, Yocto::near(2));
}
