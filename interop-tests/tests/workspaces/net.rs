//! A deployed contract, accounts on it, and the assertions that hold after every call.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;

use near_workspaces::network::Sandbox;
use near_workspaces::types::{Gas, NearToken};
use near_workspaces::{Account, Contract, Worker};
use por_types::interface::{
    AttachmentView, BooksView, CALL_GAS, CHECK_GAS, ChannelStatus, ChannelView, ConfigView, DowntimeView,
    NewArgs, NodeView, Params, RegisterArgs, error_code, method,
};
use por_types::{
    AccountId, ChannelId, ChannelState, CooperativeClose, Draw, Hash, Network, NewTerms, NodeSecret,
    RegistrationProof, SeverOrder, SeverReason, Signature, Signed, Statement, Terms, Totals, Yocto,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const ACTIVATION_MS: u64 = 20_000;
pub const NOTICE_MS: u64 = 120_000;
pub const CHALLENGE_MS: u64 = 240_000;
pub const REIMBURSEMENT_MS: u64 = 600_000;
/// Enough for a sever, but not for its partition check.
pub const LITTLE_GAS: u64 = 16_000_000_000_000;
/// Who may register the node that always counts as attached.
pub const ANCHOR: &str = "anchor";
/// Who sets parameters.
pub const OWNER: &str = "owner";
/// Who finds out whether transactions go through again after a leap in time.
const CLOCK: &str = "clock";

/// The committed wasm, or the one that `POR_CONTRACT_WASM` names.
pub fn wasm() -> Vec<u8> {
    match std::env::var_os("POR_CONTRACT_WASM") {
        Some(path) => std::fs::read(path).expect("POR_CONTRACT_WASM is a file"),
        None => por_types::CONTRACT_WASM.to_vec(),
    }
}

pub struct Net {
    pub worker: Worker<Sandbox>,
    pub contract: Contract,
    pub accounts: BTreeMap<String, Account>,
    /// Deposits of accepted calls minus withdrawals.
    net_inflow: i128,
    /// What the books said at the beginning.
    initial: i128,
}

pub fn terms() -> Terms {
    Terms {
        rtt_ms: 200,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(10),
        heartbeat_ms: 500,
        grace_ms: 1_000,
        max_requests: 100,
        max_bytes: 1 << 30,
    }
}

pub fn totals(sent_a: u128, sent_b: u128) -> Totals {
    Totals { sent_a: Yocto(sent_a), sent_b: Yocto(sent_b) }
}

pub fn state(net: &Net, by: &str, channel: ChannelId, totals: Totals) -> Signed<ChannelState> {
    net.secret(by).sign(&net.network(), ChannelState { channel, totals, items: Hash([0; 32]) })
}

pub fn order(net: &Net, by: &str, channel: ChannelId) -> Signed<SeverOrder> {
    let secret = net.secret(by);
    let order = SeverOrder { channel, signer: secret.public(), reason: SeverReason::NoAck, request: None };
    secret.sign(&net.network(), order)
}

fn signature<T: Statement + Clone>(net: &Net, by: &str, statement: &T) -> Signature {
    net.secret(by).sign(&net.network(), statement.clone()).signature
}

pub fn close_args(net: &Net, a: &str, b: &str, close: CooperativeClose) -> Value {
    let (of_a, of_b) = (signature(net, a, &close), signature(net, b, &close));
    json!({ "close": close, "signature_a": of_a, "signature_b": of_b })
}

pub fn draw_args(net: &Net, a: &str, b: &str, draw: Draw) -> Value {
    let (of_a, of_b) = (signature(net, a, &draw), signature(net, b, &draw));
    json!({ "draw": draw, "signature_a": of_a, "signature_b": of_b })
}

pub fn terms_args(net: &Net, a: &str, b: &str, act: NewTerms) -> Value {
    let (of_a, of_b) = (signature(net, a, &act), signature(net, b, &act));
    json!({ "act": act, "signature_a": of_a, "signature_b": of_b })
}

/// Asserts that a call was refused, for the reason it should be.
#[track_caller]
pub fn refused<T>(result: Result<T, String>, expected: &str) {
    let Err(message) = result else { panic!("the contract must refuse this with {expected}") };
    assert_eq!(error_code(&message), Some(expected), "{message}");
}

fn parts(books: &BooksView) -> i128 {
    i128::try_from(books.owed().expect("sum").0).expect("fits")
}

impl Net {
    /// A node with the contract initialised, and accounts of these names.
    pub async fn start(names: &[&str]) -> Net {
        let worker = near_workspaces::sandbox().await.expect("the node starts");
        let account = worker.dev_create_account().await.expect("account");
        let deployed = account.deploy(&wasm()).await.expect("deploy").into_result();
        let contract = deployed.expect("deployed");
        let mut net = Net { worker, contract, accounts: BTreeMap::new(), net_inflow: 0, initial: 0 };
        for name in names.iter().chain(&["treasury"]) {
            net.create(name).await;
        }
        for name in [ANCHOR, OWNER, CLOCK] {
            if !net.accounts.contains_key(name) {
                net.create(name).await;
            }
        }
        let args = NewArgs {
            chain_id: net.network().chain_id,
            owner: net.account(OWNER),
            treasury: net.account("treasury"),
            params: Params {
                late_fee: Yocto(1),
                sever_penalty: Yocto::near(2),
                challenge_ms: CHALLENGE_MS,
                notice_ms: NOTICE_MS,
                min_stake: Yocto::near(2),
                activation_ms: ACTIVATION_MS,
                reimbursement_ms: REIMBURSEMENT_MS,
                slash_bps: 500,
            },
            anchor: Some(net.account(ANCHOR)),
            test: true,
        };
        let new = net.contract.call(method::NEW).args_json(&args).max_gas().transact().await.expect("call");
        new.into_result().expect("initialised");
        net.initial = parts(&net.books().await);
        net
    }

    /// With these accounts registered and staked.
    pub async fn with_nodes(names: &[&str]) -> Net {
        let mut net = Net::start(names).await;
        for name in names {
            net.register(name, Yocto::near(5)).await.expect("register");
        }
        net
    }

    pub async fn create(&mut self, name: &str) {
        let account = self.worker.dev_create_account().await.expect("account");
        self.accounts.insert(name.to_owned(), account);
    }

    pub fn network(&self) -> Network {
        Network {
            chain_id: "sandbox".into(),
            contract: self.contract.id().as_str().parse().expect("account"),
        }
    }

    pub fn account(&self, name: &str) -> AccountId {
        self.accounts[name].id().as_str().parse().expect("account")
    }

    pub fn secret(&self, name: &str) -> NodeSecret {
        NodeSecret::from_seed(&por_types::sha256(name.as_bytes()))
    }

    /// A call with a deposit; checks the books afterwards.
    pub async fn call(
        &mut self,
        name: &str,
        method: &str,
        args: Value,
        deposit: Yocto,
    ) -> Result<Value, String> {
        let gas = match method {
            method::SEVER | method::FINALIZE | method::CHECK => CHECK_GAS,
            _ => CALL_GAS,
        };
        self.call_with_gas(name, method, args, deposit, gas).await
    }

    pub async fn call_with_gas(
        &mut self,
        name: &str,
        method: &str,
        args: Value,
        deposit: Yocto,
        gas: u64,
    ) -> Result<Value, String> {
        let call = self.accounts[name].call(self.contract.id(), method).args_json(args);
        let call = call.deposit(NearToken::from_yoctonear(deposit.0)).gas(Gas::from_gas(gas));
        let outcome = call.transact().await.expect("the node answers");
        let result = match outcome.into_result() {
            Ok(success) => {
                self.net_inflow += deposit.0 as i128;
                Ok(success.json().unwrap_or(Value::Null))
            }
            Err(failure) => Err(format!("{failure:?}")),
        };
        if method != method::WITHDRAW {
            self.check_books().await;
        }
        result
    }

    /// A call that attaches nothing.
    pub async fn act(&mut self, name: &str, method: &str, args: Value) -> Result<Value, String> {
        self.call(name, method, args, Yocto::ZERO).await
    }

    /// The parts are what came in; the account holds at least their sum (a chain may add gas
    /// rewards, which belong to nobody).
    pub async fn check_books(&self) {
        let books = self.books().await;
        assert_eq!(parts(&books) - self.initial, self.net_inflow, "{books:?}");
        let sum = u128::try_from(parts(&books)).expect("positive").checked_add(books.surplus.0);
        assert_eq!(sum, Some(books.balance.0), "the parts and the surplus are the balance");
        let account = self.contract.view_account().await.expect("account");
        assert_eq!(account.balance.as_yoctonear(), books.balance.0, "the view sees the balance");
    }

    /// Withdraws everything, which must be `expected`, and checks that it arrived.
    pub async fn withdraw(&mut self, name: &str, expected: Yocto) {
        assert_eq!(self.withdrawable(name).await, expected);
        let before = self.balance(name).await;
        let delivered = self.act(name, method::WITHDRAW, json!({})).await.expect("withdraw");
        assert_eq!(delivered, json!(true));
        self.net_inflow -= expected.0 as i128;
        self.check_books().await;
        let gained = self.balance(name).await as i128 - before as i128;
        // Some of it went for gas.
        let gas = Yocto::millinear(100).0 as i128;
        let expected = expected.0 as i128;
        assert!((expected - gas..=expected).contains(&gained), "gained {gained} of {expected}");
    }

    pub async fn balance(&self, name: &str) -> u128 {
        let account = self.accounts[name].view_account().await.expect("account");
        account.balance.as_yoctonear()
    }

    pub async fn view<T: DeserializeOwned>(&self, method: &str, args: Value) -> T {
        let answer = self.contract.view(method).args_json(args).await.expect("view");
        answer.json().expect("answer of the interface")
    }

    pub async fn books(&self) -> BooksView {
        self.view(method::BOOKS, json!({})).await
    }

    pub async fn config(&self) -> ConfigView {
        self.view(method::CONFIG, json!({})).await
    }

    pub async fn node(&self, name: &str) -> NodeView {
        let node: Option<NodeView> = self.view(method::NODE, json!({ "account": self.account(name) })).await;
        node.expect("node")
    }

    pub async fn channel(&self, id: ChannelId) -> ChannelView {
        let channel: Option<ChannelView> = self.view(method::CHANNEL, json!({ "channel": id })).await;
        channel.expect("channel")
    }

    pub async fn attachment(&self, name: &str) -> AttachmentView {
        self.view(method::ATTACHMENT, json!({ "account": self.account(name) })).await
    }

    /// Milliseconds of the span in which the node was not attached, which must be known for
    /// certain.
    pub async fn downtime(&self, name: &str, from_ms: u64, to_ms: u64) -> u64 {
        let args = json!({ "account": self.account(name), "from_ms": from_ms, "to_ms": to_ms });
        let view: DowntimeView = self.view(method::DOWNTIME, args).await;
        assert!(view.complete && view.final_until_ms >= to_ms, "{view:?}");
        view.downtime_ms
    }

    /// A severed channel's times: severed, settles.
    pub async fn severed(&self, id: ChannelId) -> (u64, u64) {
        match self.channel(id).await.status {
            ChannelStatus::Severed { severed_ms, settles_ms, .. } => (severed_ms, settles_ms),
            other => panic!("not severed: {other:?}"),
        }
    }

    /// Attaches a node through an attached neighbour.
    pub async fn ping(&mut self, name: &str, through: &str) {
        let through = json!({ "through": self.account(through) });
        self.act(name, method::PING, through).await.expect("ping");
        assert!(self.node(name).await.attached, "{name} has an attached neighbour");
    }

    /// Severs with so little gas that the partition check has to wait.
    pub async fn sever_and_leave(&mut self, submitter: &str, by: &str, id: ChannelId) {
        let args = json!({ "order": order(self, by, id) });
        let deposit = self.config().await.check_deposit;
        self.call_with_gas(submitter, method::SEVER, args, deposit, LITTLE_GAS).await.expect("sever");
        assert!(self.config().await.checks > 0, "the check waits");
    }

    /// Finishes all pending checks.
    pub async fn check(&mut self, name: &str) {
        let left = self.act(name, method::CHECK, json!({})).await.expect("check");
        assert_eq!(left, json!(0));
    }

    /// Severs by an order of `by` that somebody else hands in.
    pub async fn sever(&mut self, submitter: &str, by: &str, id: ChannelId) {
        let args = json!({ "order": order(self, by, id) });
        self.act(submitter, method::SEVER, args).await.expect("sever");
    }

    pub async fn withdrawable(&self, name: &str) -> Yocto {
        self.view(method::WITHDRAWABLE, json!({ "account": self.account(name) })).await
    }

    /// Time of the newest block, milliseconds.
    pub async fn now_ms(&self) -> u64 {
        self.worker.view_block().await.expect("block").timestamp() / 1_000_000
    }

    pub async fn pass(&self, ms: u64) {
        self.pass_until(self.now_ms().await + ms).await;
    }

    /// Lets blocks pass until their time is `until_ms`. How much time a block takes is the
    /// node's business, so it is measured.
    pub async fn pass_until(&self, until_ms: u64) {
        let (mut blocks, mut now) = (10, self.now_ms().await);
        for _ in 0..40 {
            if now >= until_ms {
                return self.wait_for_finality().await;
            }
            self.worker.fast_forward(blocks).await.expect("fast forward");
            let before = std::mem::replace(&mut now, self.now_ms().await);
            let per_block = now.saturating_sub(before) / blocks + 1;
            blocks = (until_ms.saturating_sub(now) / per_block).clamp(1, 10_000);
        }
        panic!("the chain's time stands at {now} and should reach {until_ms}");
    }

    /// near-workspaces names the last final block in its transactions. After a leap that block is
    /// too old, until some more have followed.
    async fn wait_for_finality(&self) {
        let clock = &self.accounts[CLOCK];
        for _ in 0..100 {
            match clock.transfer_near(clock.id(), NearToken::from_yoctonear(1)).await {
                Ok(_) => return,
                Err(error) if format!("{error:?}").contains("Expired") => {}
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        panic!("no block becomes final");
    }

    pub fn register_args(&self, name: &str) -> RegisterArgs {
        let node_key = self.secret(name).public();
        let statement = RegistrationProof { account: self.account(name), node_key };
        RegisterArgs { node_key, proof: self.secret(name).sign(&self.network(), statement).signature }
    }

    pub async fn register(&mut self, name: &str, stake: Yocto) -> Result<Value, String> {
        let deposit = self.config().await.register_storage.checked_add(stake).expect("sum");
        self.call(name, method::REGISTER, json!(self.register_args(name)), deposit).await
    }

    pub async fn propose_cost(&self, deposit: Yocto) -> Yocto {
        let config = self.config().await;
        Yocto::checked_sum([deposit, config.params.bond(), config.channel_storage]).expect("sum")
    }

    pub async fn propose(&mut self, a: &str, b: &str, deposit: Yocto) -> Result<ChannelId, String> {
        let cost = self.propose_cost(deposit).await;
        let args = json!({ "counterparty": self.account(b), "terms": terms(), "deposit": deposit });
        let id = self.call(a, method::PROPOSE_CHANNEL, args, cost).await?;
        Ok(serde_json::from_value(id).expect("channel id"))
    }

    pub async fn confirm(&mut self, b: &str, channel: ChannelId, deposit: Yocto) -> Result<Value, String> {
        let cost = deposit.checked_add(self.config().await.params.bond()).expect("sum");
        let args = json!({ "channel": channel, "terms": terms(), "deposit": deposit });
        self.call(b, method::CONFIRM_CHANNEL, args, cost).await
    }

    /// An open channel.
    pub async fn open(&mut self, a: &str, b: &str, deposit_a: Yocto, deposit_b: Yocto) -> ChannelId {
        let id = self.propose(a, b, deposit_a).await.expect("propose");
        self.confirm(b, id, deposit_b).await.expect("confirm");
        id
    }
}
