//! Across contracts: the example bounty asks the Proof of Response contract, on the local chain
//! or on the node that `NEAR_SANDBOX_BIN_PATH` names.

#[path = "workspaces/net.rs"]
mod net;

use std::path::PathBuf;

use near_workspaces::types::{Gas, NearToken};
use near_workspaces::{Account, Contract};
use net::{ANCHOR, Net, refused};
use por_bounty::interface::{BountyView, ConfigView, MAX_BODY, Outcome, STORAGE, Stage, code, method};
use por_interop::sandbox::with_sandbox;
use por_types::{
    ChannelId, FlushRoot, FlushTree, Hash, RequestId, ResponseReceipt, SignedReceipt, Statement, Yocto,
    leaf_hash,
};
use serde_json::{Value, json};

const REWARD: Yocto = Yocto::near(2);
const COLLATERAL: Yocto = Yocto::near(3);
const ANSWER_MS: u64 = 600_000;
const REQUEST: RequestId = RequestId([7; 32]);
const NODES: [&str; 4] = [ANCHOR, "alice", "bob", "dave"];

/// Stands in for the Proof of Response contract where that would never say such things: each view
/// answers what was last handed to `set_` and its name.
const ORACLE: &str = r#"(module
  (import "env" "input" (func $input (param i64)))
  (import "env" "read_register" (func $read_register (param i64 i64)))
  (import "env" "register_len" (func $register_len (param i64) (result i64)))
  (import "env" "storage_write" (func $write (param i64 i64 i64 i64 i64) (result i64)))
  (import "env" "storage_read" (func $read (param i64 i64 i64) (result i64)))
  (import "env" "value_return" (func $value_return (param i64 i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "nad")
  (func $set (param $key i64)
    (call $input (i64.const 0))
    (call $read_register (i64.const 0) (i64.const 1024))
    (drop (call $write (i64.const 1) (local.get $key)
      (call $register_len (i64.const 0)) (i64.const 1024) (i64.const 1))))
  (func $get (param $key i64)
    (drop (call $read (i64.const 1) (local.get $key) (i64.const 0)))
    (call $read_register (i64.const 0) (i64.const 1024))
    (call $value_return (call $register_len (i64.const 0)) (i64.const 1024)))
  (func (export "set_node") (call $set (i64.const 0)))
  (func (export "set_attachment") (call $set (i64.const 1)))
  (func (export "set_downtime") (call $set (i64.const 2)))
  (func (export "node") (call $get (i64.const 0)))
  (func (export "attachment") (call $get (i64.const 1)))
  (func (export "downtime") (call $get (i64.const 2))))"#;

/// The wasm beside that of the contract under test.
fn wasm() -> Vec<u8> {
    let built = std::env::var_os("POR_CONTRACT_WASM").map(PathBuf::from);
    let fresh = built.map(|path| path.with_file_name("por_bounty.wasm")).filter(|path| path.exists());
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contract/res/por_bounty.wasm");
    std::fs::read(fresh.unwrap_or(committed)).expect("the example is built by contract/build/build.sh")
}

/// A network in which Dave, the server, has two attached neighbours, and a bounty contract.
struct World {
    net: Net,
    bounty: Contract,
    client: Account,
    /// Someone with no part in anything.
    stranger: Account,
    edges: [ChannelId; 2],
}

impl World {
    async fn start() -> World {
        let mut net = Net::with_nodes(&NODES).await;
        net.pass(net::ACTIVATION_MS).await;
        let one = Yocto::near(1);
        net.open(ANCHOR, "alice", one, one).await;
        net.open("alice", "bob", one, one).await;
        let edges = [net.open("bob", "dave", one, one).await, net.open("alice", "dave", one, one).await];
        for (name, through) in [("alice", ANCHOR), ("bob", "alice"), ("dave", "bob")] {
            net.ping(name, through).await;
        }
        let por = net.contract.id().to_string();
        World::with(net, por, edges).await
    }

    /// A bounty contract that asks `por`.
    async fn with(net: Net, por: String, edges: [ChannelId; 2]) -> World {
        let account = net.worker.dev_create_account().await.expect("account");
        let bounty = account.deploy(&wasm()).await.expect("sent").into_result().expect("deployed");
        let args = json!({ "por": por, "chain_id": net.network().chain_id });
        let new = bounty.call(method::NEW).args_json(args).max_gas().transact().await.expect("sent");
        new.into_result().expect("initialised");
        let client = net.worker.dev_create_account().await.expect("account");
        let stranger = net.worker.dev_create_account().await.expect("account");
        World { net, bounty, client, stranger, edges }
    }

    fn dave(&self) -> &Account {
        &self.net.accounts["dave"]
    }

    async fn call(&self, who: &Account, method: &str, args: Value, deposit: Yocto) -> Result<Value, String> {
        let call = who.call(self.bounty.id(), method).args_json(args);
        let call = call.deposit(NearToken::from_yoctonear(deposit.0)).gas(Gas::from_tgas(150));
        let outcome = call.transact().await.expect("the node answers");
        let result = match outcome.into_result() {
            Ok(success) => Ok(success.json().unwrap_or(Value::Null)),
            Err(failure) => Err(format!("{failure:?}")),
        };
        let config = self.config().await;
        assert!(config.balance >= config.held, "{config:?}");
        result
    }

    async fn act(&self, who: &Account, method: &str, args: Value) -> Result<Value, String> {
        self.call(who, method, args, Yocto::ZERO).await
    }

    async fn config(&self) -> ConfigView {
        self.bounty.view(method::CONFIG).await.expect("view").json().expect("answer")
    }

    async fn view(&self, id: u64) -> Option<BountyView> {
        let args = json!({ "bounty": id });
        self.bounty.view(method::BOUNTY).args_json(args).await.expect("view").json().expect("answer")
    }

    async fn stage(&self, id: u64) -> Stage {
        self.view(id).await.expect("a bounty").stage
    }

    async fn open(&self, show_body: bool) -> u64 {
        let args = json!({
            "request": REQUEST,
            "server": self.dave().id(),
            "node_key": self.net.secret("dave").public(),
            "collateral": COLLATERAL,
            "answer_ms": ANSWER_MS,
            "show_body": show_body,
        });
        let attached = REWARD.checked_add(STORAGE).expect("sum");
        let id = self.call(&self.client, method::OPEN, args, attached).await.expect("open");
        id.as_u64().expect("a number")
    }

    async fn accept(&self, id: u64) -> Value {
        let args = json!({ "bounty": id });
        self.call(self.dave(), method::ACCEPT, args, COLLATERAL).await.expect("accept")
    }

    /// An accepted bounty, with the time from which isolation counts and the deadline.
    async fn active(&self, show_body: bool) -> (u64, u64, u64) {
        let id = self.open(show_body).await;
        assert_eq!(self.accept(id).await, json!(true));
        match self.stage(id).await {
            Stage::Active { since_ms, deadline_ms } => (id, since_ms, deadline_ms),
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn settle(&self, id: u64) -> Value {
        self.act(&self.stranger, method::SETTLE, json!({ "bounty": id })).await.expect("settle")
    }

    async fn balance(account: &Account) -> u128 {
        account.view_account().await.expect("account").balance.as_yoctonear()
    }

    /// The stranger collects; client and server get exactly this much.
    async fn collect(&self, id: u64, to_client: Yocto, to_server: Yocto) {
        // Refunds of gas from earlier calls arrive first.
        self.net.pass(5_000).await;
        let before = (Self::balance(&self.client).await, Self::balance(self.dave()).await);
        self.act(&self.stranger, method::COLLECT, json!({ "bounty": id })).await.expect("collect");
        let after = (Self::balance(&self.client).await, Self::balance(self.dave()).await);
        assert_eq!((after.0 - before.0, after.1 - before.1), (to_client.0, to_server.0));
    }

    /// Nothing is left of the only bounty.
    async fn is_over(&self, id: u64) {
        assert_eq!(self.view(id).await, None);
        assert_eq!(self.config().await.held, Yocto::ZERO);
    }

    /// Receipts of one flush: for `request` with `body`, between two others.
    fn receipt(&self, signer: &str, request: RequestId, body: &[u8]) -> SignedReceipt {
        let network = self.net.network();
        let receipt = |request, body: &[u8]| ResponseReceipt {
            request,
            body_len: body.len() as u64,
            body_hash: Hash(*blake3::hash(body).as_bytes()),
        };
        let receipts =
            [receipt(RequestId([1; 32]), b"a"), receipt(request, body), receipt(RequestId([2; 32]), b"b")];
        let leaves = receipts.iter().map(|receipt| leaf_hash(&receipt.signed_bytes(&network))).collect();
        let tree = FlushTree::new(leaves).expect("three leaves");
        let root = FlushRoot::<ResponseReceipt>::new(tree.root(), tree.leaves());
        let signature = self.net.secret(signer).sign(&network, root).signature;
        let [_, receipt, _] = receipts;
        SignedReceipt { receipt, proof: tree.proof(1, signature).expect("the second leaf") }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn claim(id: u64, receipt: &SignedReceipt, body: Option<&[u8]>) -> Value {
    let receipt = base64(&borsh::to_vec(receipt).expect("bytes"));
    json!({ "bounty": id, "receipt": receipt, "body": body.map(base64) })
}

fn sum(parts: &[Yocto]) -> Yocto {
    Yocto::checked_sum(parts.iter().copied()).expect("fits")
}

#[test]
fn an_answer_that_is_shown_earns_the_reward() {
    with_sandbox("an_answer_that_is_shown_earns_the_reward", || async {
        let world = World::start().await;
        let (id, ..) = world.active(true).await;
        assert_eq!(world.config().await.held, sum(&[REWARD, COLLATERAL, STORAGE]));
        let body: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let good = world.receipt("dave", REQUEST, &body);

        let mut wrong_path = good.clone();
        wrong_path.proof.index = 0;
        let mut shorter = good.clone();
        shorter.receipt.body_len -= 1;
        let other_body = vec![0; body.len()];
        for (receipt, shown) in [
            (world.receipt("bob", REQUEST, &body), Some(body.as_slice())),
            (world.receipt("dave", RequestId([8; 32]), &body), Some(body.as_slice())),
            (wrong_path, Some(body.as_slice())),
            (shorter, Some(&body[1..])),
            (good.clone(), Some(&body[1..])),
            (good.clone(), Some(other_body.as_slice())),
            (good.clone(), None),
        ] {
            let args = claim(id, &receipt, shown);
            refused(world.act(world.dave(), method::CLAIM, args).await, code::RECEIPT);
        }
        let garbage = json!({ "bounty": id, "receipt": base64(b"garbage"), "body": base64(&body) });
        refused(world.act(world.dave(), method::CLAIM, garbage).await, code::ARGUMENT);
        let args = claim(id, &good, Some(&body));
        world.act(&world.stranger, method::CLAIM, args.clone()).await.expect("claim, by anyone");
        assert_eq!(world.stage(id).await, Stage::Done { outcome: Outcome::Answered });
        refused(world.act(&world.stranger, method::CLAIM, args).await, code::STATE);
        let cancel = json!({ "bounty": id });
        refused(world.act(&world.client, method::CANCEL, cancel).await, code::STATE);
        world.collect(id, STORAGE, sum(&[REWARD, COLLATERAL])).await;
        world.is_over(id).await;
    });
}

#[test]
fn the_longest_body_fits_into_a_call() {
    with_sandbox("the_longest_body_fits_into_a_call", || async {
        let world = World::start().await;
        let (id, ..) = world.active(true).await;
        let body = vec![5; MAX_BODY];
        let args = claim(id, &world.receipt("dave", REQUEST, &body), Some(&body));
        world.act(world.dave(), method::CLAIM, args).await.expect("claim");
    });
}

#[test]
fn isolation_after_acceptance_slashes_and_a_severed_edge_does_not() {
    with_sandbox("isolation_after_acceptance_slashes_and_a_severed_edge_does_not", || async {
        let mut world = World::start().await;
        let (id, ..) = world.active(false).await;
        let [first, second] = world.edges;
        world.net.sever("alice", "bob", first).await;
        assert_eq!(world.settle(id).await, Value::Null, "still connected");
        assert!(matches!(world.stage(id).await, Stage::Active { .. }));

        world.net.sever("bob", "alice", second).await;
        assert_eq!(world.settle(id).await, json!("isolated"));
        assert_eq!(world.stage(id).await, Stage::Done { outcome: Outcome::Isolated });
        // Too late to answer.
        let args = claim(id, &world.receipt("dave", REQUEST, b"late"), None);
        refused(world.act(world.dave(), method::CLAIM, args).await, code::STATE);
        world.collect(id, sum(&[REWARD, COLLATERAL, STORAGE]), Yocto::ZERO).await;
        world.is_over(id).await;

        // Cut off as it is, it cannot bind itself again, and loses nothing by trying.
        let id = world.open(false).await;
        assert_eq!(world.accept(id).await, json!(false));
        assert_eq!(world.stage(id).await, Stage::Offered);
        world.collect(id, Yocto::ZERO, COLLATERAL).await;
        // Isolation before the acceptance does not count: back in the network, it is bound.
        let one = Yocto::near(1);
        let dave = "dave";
        let stake =
            world.net.call(dave, por_types::interface::method::STAKE, json!({}), Yocto::near(3)).await;
        stake.expect("stake");
        world.net.open("bob", dave, one, one).await;
        world.net.ping(dave, "bob").await;
        assert_eq!(world.accept(id).await, json!(true));
        assert_eq!(world.settle(id).await, Value::Null);
    });
}

#[test]
fn without_answer_or_isolation_everybody_gets_their_own_back() {
    with_sandbox("without_answer_or_isolation_everybody_gets_their_own_back", || async {
        let mut world = World::start().await;
        let (id, since_ms, deadline_ms) = world.active(false).await;
        assert_eq!(deadline_ms - since_ms, ANSWER_MS);
        assert_eq!(world.settle(id).await, Value::Null, "there is time left");
        world.net.pass_until(deadline_ms).await;
        let args = claim(id, &world.receipt("dave", REQUEST, b"late"), None);
        refused(world.act(world.dave(), method::CLAIM, args).await, code::TOO_LATE);
        // Isolation after the deadline is not the bounty's business.
        let [first, second] = world.edges;
        world.net.sever("alice", "bob", first).await;
        world.net.sever("bob", "alice", second).await;
        assert_eq!(world.settle(id).await, json!("expired"));
        world.collect(id, sum(&[REWARD, STORAGE]), COLLATERAL).await;
        world.is_over(id).await;
    });
}

#[test]
fn pending_checks_are_waited_for() {
    with_sandbox("pending_checks_are_waited_for", || async {
        let mut world = World::start().await;
        let [first, second] = world.edges;
        // Whether Dave is attached is not certain while this check is pending.
        world.net.sever_and_leave("alice", "bob", first).await;
        let id = world.open(false).await;
        assert_eq!(world.accept(id).await, json!(false));
        world.collect(id, Yocto::ZERO, COLLATERAL).await;
        world.net.check("bob").await;
        assert_eq!(world.accept(id).await, json!(true));
        let Stage::Active { deadline_ms, .. } = world.stage(id).await else { panic!("bound") };

        // He is cut off before the deadline, but that is found out only later.
        world.net.sever_and_leave("bob", "alice", second).await;
        assert_eq!(world.settle(id).await, Value::Null);
        world.net.pass_until(deadline_ms).await;
        assert_eq!(world.settle(id).await, Value::Null, "it might have been isolated in time");
        world.net.check("bob").await;
        assert_eq!(world.settle(id).await, json!("isolated"));
        world.collect(id, sum(&[REWARD, COLLATERAL, STORAGE]), Yocto::ZERO).await;
        world.is_over(id).await;
    });
}

#[test]
fn offers_can_be_cancelled_and_hostile_calls_change_nothing() {
    with_sandbox("offers_can_be_cancelled_and_hostile_calls_change_nothing", || async {
        let world = World::start().await;
        let id = world.open(false).await;
        let this = json!({ "bounty": id });
        let before = (world.view(id).await, world.config().await.held);
        let accept = |who: &Account, deposit| {
            let (who, this, world) = (who.clone(), this.clone(), &world);
            async move { world.call(&who, method::ACCEPT, this, deposit).await }
        };
        refused(accept(&world.stranger, COLLATERAL).await, code::NOT_ALLOWED);
        let short = COLLATERAL.checked_sub(Yocto(1)).expect("positive");
        refused(accept(world.dave(), short).await, code::DEPOSIT);
        refused(world.act(&world.stranger, method::CANCEL, this.clone()).await, code::NOT_ALLOWED);
        for method in [method::RELEASE, method::SETTLE] {
            refused(world.act(world.dave(), method, this.clone()).await, code::STATE);
        }
        refused(world.act(world.dave(), method::COLLECT, this.clone()).await, code::NOTHING_OWED);
        let nothing = json!({ "bounty": id + 1 });
        refused(world.act(world.dave(), method::COLLECT, nothing).await, code::NO_BOUNTY);
        let args = claim(id, &world.receipt("dave", REQUEST, b"early"), None);
        refused(world.act(world.dave(), method::CLAIM, args).await, code::STATE);
        for (method, args) in [
            ("on_attachment", json!({ "bounty": id, "attempt": 1 })),
            ("on_downtime", json!({ "bounty": id, "asked_to_ms": 1 })),
            ("on_paid", json!({ "bounty": id, "to_client": REWARD, "to_server": REWARD })),
            (method::NEW, json!({ "por": world.stranger.id(), "chain_id": "mine" })),
        ] {
            assert!(world.act(&world.stranger, method, args).await.is_err(), "{method} is private");
        }
        assert_eq!((world.view(id).await, world.config().await.held), before);

        world.act(&world.client, method::CANCEL, this).await.expect("cancel");
        world.collect(id, sum(&[REWARD, STORAGE]), Yocto::ZERO).await;
        world.is_over(id).await;
    });
}

/// The contract that should answer does not exist: nobody is bound, nobody loses anything.
#[test]
fn no_answer_binds_nobody() {
    with_sandbox("no_answer_binds_nobody", || async {
        let net = Net::start(&["dave"]).await;
        let por = net.account("treasury").to_string();
        let world = World::with(net, por, [ChannelId(0), ChannelId(1)]).await;
        let id = world.open(false).await;
        assert_eq!(world.accept(id).await, json!(false));
        assert_eq!(world.stage(id).await, Stage::Offered);
        world.act(&world.client, method::CANCEL, json!({ "bounty": id })).await.expect("cancel");
        world.collect(id, sum(&[REWARD, STORAGE]), COLLATERAL).await;
        world.is_over(id).await;
    });
}

/// A world that asks an oracle, and the oracle.
async fn with_oracle() -> (World, Contract) {
    let mut net = Net::start(&["dave"]).await;
    net.register("dave", Yocto::near(5)).await.expect("register");
    let account = net.worker.dev_create_account().await.expect("account");
    let code = wat::parse_str(ORACLE).expect("valid text");
    let oracle = account.deploy(&code).await.expect("sent").into_result().expect("deployed");
    let por = oracle.id().to_string();
    (World::with(net, por, [ChannelId(0), ChannelId(1)]).await, oracle)
}

async fn say(oracle: &Contract, view: &str, answer: Value) {
    let call = oracle.call(&format!("set_{view}")).args_json(answer);
    call.transact().await.expect("sent").into_result().expect("said");
}

fn attached(until: u64) -> Value {
    json!({ "attached_since_ms": 1, "final_until_ms": until })
}

fn spent(ms: u64, until: u64) -> Value {
    json!({ "downtime_ms": ms, "complete": true, "final_until_ms": until })
}

/// Attached, but a check is pending; another key; nonsense; then what is needed.
#[test]
fn only_final_answers_decide() {
    with_sandbox("only_final_answers_decide", || async {
        let (world, oracle) = with_oracle().await;
        let real: Value = serde_json::to_value(world.net.node("dave").await).expect("JSON");
        let soon = world.net.now_ms().await + 120_000;
        let mut other_key = real.clone();
        other_key["node_key"] = json!(world.net.secret("bob").public());

        let id = world.open(false).await;
        for (node, attachment) in [
            (real.clone(), attached(1)),
            (real.clone(), json!({ "attached_since_ms": null, "final_until_ms": soon })),
            (other_key, attached(soon)),
            (Value::Null, attached(soon)),
            (real.clone(), json!("yes")),
        ] {
            say(&oracle, "node", node).await;
            say(&oracle, "attachment", attachment).await;
            assert_eq!(world.accept(id).await, json!(false));
            world.collect(id, Yocto::ZERO, COLLATERAL).await;
        }
        say(&oracle, "node", real).await;
        // Collecting lets time pass.
        let soon = world.net.now_ms().await + 120_000;
        say(&oracle, "attachment", attached(soon)).await;
        assert_eq!(world.accept(id).await, json!(true));
        let Stage::Active { since_ms, deadline_ms } = world.stage(id).await else { panic!("bound") };
        assert_eq!(since_ms, soon, "what came before is not the bounty's business");

        for nonsense in [json!(7), json!({ "downtime_ms": -1 }), Value::Null] {
            say(&oracle, "downtime", nonsense).await;
            assert_eq!(world.settle(id).await, Value::Null);
        }
        world.net.pass_until(deadline_ms).await;
        say(&oracle, "downtime", spent(0, deadline_ms - 1)).await;
        assert_eq!(world.settle(id).await, Value::Null, "a check is pending");
        say(&oracle, "downtime", spent(0, deadline_ms)).await;
        assert_eq!(world.settle(id).await, json!("expired"));
        world.collect(id, sum(&[REWARD, STORAGE]), COLLATERAL).await;
        world.is_over(id).await;
    });
}

#[test]
fn what_cannot_be_delivered_is_owed_again() {
    with_sandbox("what_cannot_be_delivered_is_owed_again", || async {
        let (world, oracle) = with_oracle().await;
        let id = world.open(false).await;
        say(&oracle, "node", serde_json::to_value(world.net.node("dave").await).expect("JSON")).await;
        say(&oracle, "attachment", attached(world.net.now_ms().await + 120_000)).await;
        assert_eq!(world.accept(id).await, json!(true));
        let deleted = world.client.clone().delete_account(world.stranger.id()).await.expect("sent");
        assert!(deleted.is_success(), "{deleted:?}");
        let Stage::Active { deadline_ms, .. } = world.stage(id).await else { panic!("bound") };
        world.net.pass_until(deadline_ms).await;
        say(&oracle, "downtime", spent(0, deadline_ms)).await;
        assert_eq!(world.settle(id).await, json!("expired"));

        world.net.pass(5_000).await;
        let before = World::balance(world.dave()).await;
        let all = world.act(&world.stranger, method::COLLECT, json!({ "bounty": id })).await;
        assert_eq!(all, Ok(json!(false)), "the client is gone");
        assert_eq!(World::balance(world.dave()).await - before, COLLATERAL.0);
        let left = sum(&[REWARD, STORAGE]);
        let bounty = world.view(id).await.expect("kept");
        assert_eq!((bounty.owed_client, bounty.owed_server), (left, Yocto::ZERO));
        assert_eq!(world.config().await.held, left);
    });
}
