//! The built contract in NEAR's own VM, one call at a time, with time under the test's
//! control. After every call the books must balance to the yocto and storage must be paid.

mod trusted;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use near_parameters::{RuntimeConfigStore, RuntimeFeesConfig, vm::Config};
use near_primitives::account::AccountContract;
use near_primitives::config::ViewConfig;
use near_primitives::types::{Balance, Gas};
use near_primitives::version::PROTOCOL_VERSION;
use near_vm_runner::logic::mocks::mock_external::{MockAction, MockedExternal};
use near_vm_runner::logic::types::{PromiseResult, ReturnData};
use near_vm_runner::logic::{VMContext, VMOutcome};
use near_vm_runner::{ContractCode, FilesystemContractRuntimeCache, noop_background_spawner};
use por_types::interface::{
    BooksView, ChannelView, ConfigView, NewArgs, NodeView, Params, RegisterArgs, error_code, method,
};
use por_types::{
    AccountId, ChannelId, ChannelState, CooperativeClose, Hash, Network, NodeSecret, RegistrationProof,
    SeverOrder, SeverReason, Signed, Terms, Totals, Yocto,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const CONTRACT: &str = "por.test";
const START_MS: u64 = 1_700_000_000_000;
const BYTE_PRICE: u128 = 10_000_000_000_000_000_000;
/// For root state and change log, above what the code takes.
const RESERVED_BYTES: u64 = 90_000;
const CALL_GAS: u64 = 300_000_000_000_000;

/// Outcome of a call that the contract accepted.
#[derive(Debug)]
pub struct Done {
    pub value: Value,
    pub logs: Vec<String>,
    pub gas: u64,
}

pub struct Vm {
    ext: MockedExternal,
    config: Arc<Config>,
    fees: Arc<RuntimeFeesConfig>,
    code: Arc<ContractCode>,
    balance: u128,
    storage_usage: u64,
    height: u64,
    pub now_ms: u64,
    /// What a call attaches.
    pub gas: u64,
    /// Transfers to these accounts fail.
    pub unreachable: Vec<String>,
    /// What accounts have received.
    pub received: BTreeMap<String, u128>,
    /// Money that came in by calls minus money that left.
    pub net_inflow: i128,
}

struct Code(Arc<ContractCode>);

impl near_vm_runner::Contract for Code {
    fn hash(&self) -> near_primitives::hash::CryptoHash {
        *self.0.hash()
    }

    fn get_code(&self) -> Option<Arc<ContractCode>> {
        Some(self.0.clone())
    }
}

/// The wasm under test: the committed one, or the one that `POR_CONTRACT_WASM` names.
pub fn wasm() -> Vec<u8> {
    match std::env::var_os("POR_CONTRACT_WASM") {
        Some(path) => std::fs::read(path).expect("POR_CONTRACT_WASM is a file"),
        None => por_types::CONTRACT_WASM.to_vec(),
    }
}

/// Compiled code, shared by all VMs of the process: compiling takes longer than most tests. It
/// also stays in the clone's `target`.
static COMPILED: LazyLock<FilesystemContractRuntimeCache> = LazyLock::new(|| {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&home).expect("the clone is writable");
    FilesystemContractRuntimeCache::with_memory_cache(
        &home,
        None::<&str>,
        "contract-vm",
        4,
        None,
        1 << 30,
        noop_background_spawner(),
    )
    .expect("a cache of compiled contracts")
});

pub fn account(name: &str) -> AccountId {
    name.parse().expect("account name")
}

pub fn network() -> Network {
    Network { chain_id: "test-chain".into(), contract: account(CONTRACT) }
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

pub fn params() -> Params {
    Params {
        late_fee: Yocto(1),
        sever_penalty: Yocto::near(2),
        challenge_ms: 1_000_000,
        notice_ms: 100_000,
        min_stake: Yocto::near(3),
        activation_ms: 50_000,
        reimbursement_ms: 5_000_000,
        slash_bps: 500,
    }
}

pub fn totals(sent_a: u128, sent_b: u128) -> Totals {
    Totals { sent_a: Yocto(sent_a), sent_b: Yocto(sent_b) }
}

pub fn secret(name: &str) -> NodeSecret {
    NodeSecret::from_seed(&por_types::sha256(name.as_bytes()))
}

pub fn state(by: &str, channel: ChannelId, totals: Totals) -> Signed<ChannelState> {
    secret(by).sign(&network(), ChannelState { channel, totals, items: Hash([0; 32]) })
}

pub fn order(by: &str, channel: ChannelId) -> Signed<SeverOrder> {
    let signer = secret(by).public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    secret(by).sign(&network(), order)
}

pub fn close_args(a: &str, b: &str, close: CooperativeClose) -> Value {
    let signature = |by: &str| secret(by).sign(&network(), close.clone()).signature;
    json!({ "close": close, "signature_a": signature(a), "signature_b": signature(b) })
}

impl Vm {
    /// What calls attach unless a test says otherwise.
    pub const GAS: u64 = CALL_GAS;

    /// The contract deployed, not initialised, with no more than it asks for, so that storage which
    /// nobody has paid shows.
    pub fn deployed() -> Vm {
        let mut vm = Vm::deployed_with(wasm());
        vm.balance = u128::from(vm.storage_usage + RESERVED_BYTES) * BYTE_PRICE;
        vm
    }

    /// Some wasm deployed, not initialised.
    pub fn deployed_with(wasm: Vec<u8>) -> Vm {
        let store = RuntimeConfigStore::new(None);
        let runtime = store.get_config(PROTOCOL_VERSION);
        let code = Arc::new(ContractCode::new(wasm, None));
        let mut ext = MockedExternal::new();
        ext.code_hash = *code.hash();
        ext.code = Some(code.clone());
        Vm {
            storage_usage: code.code().len() as u64 + 200,
            ext,
            config: runtime.wasm_config.clone(),
            fees: runtime.fees.clone(),
            code,
            balance: 20 * Yocto::ONE_NEAR.0,
            height: 1_000,
            now_ms: START_MS,
            gas: Vm::GAS,
            unreachable: Vec::new(),
            received: BTreeMap::new(),
            net_inflow: 0,
        }
    }

    /// Deploys other code over the state.
    pub fn set_code(&mut self, wasm: Vec<u8>) {
        let code = Arc::new(ContractCode::new(wasm, None));
        self.storage_usage -= self.code.code().len() as u64;
        self.storage_usage += code.code().len() as u64;
        self.ext.code_hash = *code.hash();
        self.ext.code = Some(code.clone());
        self.code = code;
    }

    /// What the account holds.
    pub fn balance(&self) -> u128 {
        self.balance
    }

    pub fn new_args(params: Params, test: bool) -> NewArgs {
        NewArgs {
            chain_id: network().chain_id,
            owner: account("owner.test"),
            treasury: account("treasury.test"),
            params,
            anchor: None,
            test,
        }
    }

    /// Initialised with [`params`].
    pub fn started() -> Vm {
        let mut vm = Vm::deployed();
        vm.call(CONTRACT, method::NEW, &Vm::new_args(params(), true), Yocto::ZERO).expect("new");
        vm
    }

    /// With registered and staked nodes of these names.
    pub fn with_nodes(names: &[&str]) -> Vm {
        let mut vm = Vm::started();
        for name in names {
            vm.register(name, Yocto::near(10)).expect("register");
        }
        vm
    }

    fn context(&self, who: &str, input: Vec<u8>, deposit: u128, view: bool) -> VMContext {
        VMContext {
            current_account_id: CONTRACT.parse().expect("account"),
            signer_account_id: who.parse().expect("account"),
            signer_account_pk: vec![0; 33],
            predecessor_account_id: who.parse().expect("account"),
            refund_to_account_id: who.parse().expect("account"),
            input: input.into(),
            promise_results: Vec::new().into(),
            block_height: self.height,
            block_timestamp: self.now_ms * 1_000_000,
            epoch_height: 1,
            account_balance: Balance::from_yoctonear(self.balance),
            account_locked_balance: Balance::ZERO,
            storage_usage: self.storage_usage,
            account_contract: AccountContract::Local(*self.code.hash()),
            attached_deposit: Balance::from_yoctonear(deposit),
            prepaid_gas: Gas::from_gas(if view { CALL_GAS } else { self.gas }),
            random_seed: vec![0; 32],
            view_config: view.then_some(ViewConfig { max_gas_burnt: Gas::from_gas(CALL_GAS) }),
            output_data_receivers: Vec::new(),
        }
    }

    fn run(&mut self, method: &str, context: &VMContext) -> VMOutcome {
        let gas = context.make_gas_counter(&self.config);
        let code = Code(self.code.clone());
        let prepared = near_vm_runner::prepare(&code, self.config.clone(), Some(&*COMPILED), gas, method);
        near_vm_runner::run(prepared, &mut self.ext, context, self.fees.clone()).expect("the VM runs")
    }

    /// A call with a deposit. An error is the contract's message; then nothing has changed.
    pub fn call(
        &mut self,
        who: &str,
        method: &str,
        args: &impl Serialize,
        deposit: Yocto,
    ) -> Result<Done, String> {
        let input = serde_json::to_vec(args).expect("arguments");
        self.call_raw(who, method, input, deposit)
    }

    pub fn call_raw(
        &mut self,
        who: &str,
        method: &str,
        input: Vec<u8>,
        deposit: Yocto,
    ) -> Result<Done, String> {
        let outcome = self.call_unchecked(who, method, input, deposit)?;
        self.check_conservation();
        Ok(outcome)
    }

    /// For many equal calls: the caller checks conservation after them.
    pub fn call_unchecked(
        &mut self,
        who: &str,
        method: &str,
        input: Vec<u8>,
        deposit: Yocto,
    ) -> Result<Done, String> {
        let context = self.context(who, input, deposit.0, false);
        let outcome = self.execute(method, &context)?;
        self.net_inflow += deposit.0 as i128;
        self.deliver_promises();
        Ok(outcome)
    }

    fn execute(&mut self, method: &str, context: &VMContext) -> Result<Done, String> {
        self.height += 1;
        let before = self.ext.fake_trie.clone();
        self.ext.action_log.clear();
        let outcome = self.run(method, context);
        if let Some(error) = outcome.aborted {
            self.ext.fake_trie = before;
            self.ext.action_log.clear();
            return Err(error.to_string());
        }
        Ok(self.finish(outcome))
    }

    fn finish(&mut self, outcome: VMOutcome) -> Done {
        self.balance = outcome.balance.as_yoctonear();
        self.storage_usage = outcome.storage_usage;
        let value = match outcome.return_data {
            ReturnData::Value(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        Done { value, logs: outcome.logs, gas: outcome.burnt_gas.as_gas() }
    }

    /// What the chain does after a call: transfers, then the callback with their result.
    fn deliver_promises(&mut self) {
        let actions = std::mem::take(&mut self.ext.action_log);
        let mut receiver = String::new();
        let mut delivered = true;
        for action in actions {
            match action {
                MockAction::CreateReceipt { receiver_id, .. } => receiver = receiver_id.to_string(),
                MockAction::Transfer { deposit, .. } => {
                    let amount = deposit.as_yoctonear();
                    delivered = !self.unreachable.contains(&receiver);
                    if delivered {
                        *self.received.entry(receiver.clone()).or_default() += amount;
                        self.net_inflow -= amount as i128;
                    } else {
                        // The chain returns what it cannot deliver.
                        self.balance += amount;
                    }
                }
                MockAction::FunctionCallWeight { method_name, args, .. } => {
                    let method = String::from_utf8(method_name).expect("method name");
                    let mut context = self.context(CONTRACT, args, 0, false);
                    let result = if delivered {
                        PromiseResult::Successful(Vec::new().into())
                    } else {
                        PromiseResult::Failed
                    };
                    context.prepaid_gas = Gas::from_gas(CALL_GAS);
                    context.promise_results = vec![result].into();
                    self.execute(&method, &context).expect("callbacks succeed");
                }
                other => panic!("the contract did something unexpected: {other:?}"),
            }
        }
    }

    pub fn view<T: DeserializeOwned>(&mut self, method: &str, args: &impl Serialize) -> T {
        let input = serde_json::to_vec(args).expect("arguments");
        let context = self.context("viewer.test", input, 0, true);
        let outcome = self.run(method, &context);
        assert!(outcome.aborted.is_none(), "view {method}: {:?}", outcome.aborted);
        match outcome.return_data {
            ReturnData::Value(bytes) => serde_json::from_slice(&bytes).expect("answer of a view"),
            other => panic!("view {method} answers {other:?}"),
        }
    }

    /// Protocol section 7, last paragraph.
    pub fn check_conservation(&mut self) {
        let books = self.books();
        assert_eq!(books.balance.0, self.balance, "the view sees the balance");
        assert_eq!(books.owed(), Ok(books.balance), "the parts sum to the balance");
        assert_eq!(books.surplus, Yocto::ZERO);
        self.check_storage();
    }

    /// What the records take is paid for.
    pub fn check_storage(&mut self) {
        let (needed, paid) = (u128::from(self.storage_usage) * BYTE_PRICE, self.books().storage);
        assert!(paid.0 >= needed, "storage of {needed} is not paid by {paid}");
    }

    pub fn books(&mut self) -> BooksView {
        self.view(method::BOOKS, &json!({}))
    }

    pub fn config(&mut self) -> ConfigView {
        self.view(method::CONFIG, &json!({}))
    }

    pub fn node(&mut self, name: &str) -> NodeView {
        self.view::<Option<NodeView>>(method::NODE, &json!({ "account": name })).expect("node")
    }

    pub fn channel(&mut self, id: ChannelId) -> ChannelView {
        self.view::<Option<ChannelView>>(method::CHANNEL, &json!({ "channel": id })).expect("channel")
    }

    pub fn withdrawable(&mut self, name: &str) -> Yocto {
        self.view(method::WITHDRAWABLE, &json!({ "account": name }))
    }

    /// Before initialisation only.
    pub fn set_balance(&mut self, balance: u128) {
        self.balance = balance;
    }

    pub fn storage_usage(&self) -> u64 {
        self.storage_usage
    }

    pub fn register_args(name: &str) -> RegisterArgs {
        let node_key = secret(name).public();
        let statement = RegistrationProof { account: account(name), node_key };
        RegisterArgs { node_key, proof: secret(name).sign(&network(), statement).signature }
    }

    pub fn register(&mut self, name: &str, stake: Yocto) -> Result<Done, String> {
        let deposit = self.config().register_storage.checked_add(stake).expect("sum");
        self.call(name, method::REGISTER, &Vm::register_args(name), deposit)
    }

    /// What proposing and confirming with these deposits takes.
    pub fn propose_cost(&mut self, deposit: Yocto) -> Yocto {
        let config = self.config();
        Yocto::checked_sum([deposit, config.params.bond(), config.channel_storage]).expect("sum")
    }

    pub fn confirm_cost(&mut self, deposit: Yocto) -> Yocto {
        deposit.checked_add(self.config().params.bond()).expect("sum")
    }

    pub fn propose(&mut self, a: &str, b: &str, deposit: Yocto) -> Result<ChannelId, String> {
        let cost = self.propose_cost(deposit);
        let args = json!({ "counterparty": b, "terms": terms(), "deposit": deposit });
        let done = self.call(a, method::PROPOSE_CHANNEL, &args, cost)?;
        Ok(serde_json::from_value(done.value).expect("channel id"))
    }

    pub fn confirm(&mut self, b: &str, channel: ChannelId, deposit: Yocto) -> Result<Done, String> {
        let cost = self.confirm_cost(deposit);
        let args = json!({ "channel": channel, "terms": terms(), "deposit": deposit });
        self.call(b, method::CONFIRM_CHANNEL, &args, cost)
    }

    /// An open channel.
    pub fn open(&mut self, a: &str, b: &str, deposit_a: Yocto, deposit_b: Yocto) -> ChannelId {
        let id = self.propose(a, b, deposit_a).expect("propose");
        self.confirm(b, id, deposit_b).expect("confirm");
        id
    }

    /// A call that attaches nothing.
    pub fn act(&mut self, who: &str, method: &str, args: Value) -> Result<Done, String> {
        self.call(who, method, &args, Yocto::ZERO)
    }
}

/// Asserts that a call was refused, for the reason it should be.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let message = result.expect_err("the contract must refuse this");
    assert_eq!(error_code(&message), Some(expected), "{message}");
}

/// Asserts that near-sdk refused a deposit to a call that takes none.
#[track_caller]
pub fn refused_deposit<T: std::fmt::Debug>(result: Result<T, String>) {
    let message = result.expect_err("the contract must refuse a deposit here");
    assert!(message.contains("doesn't accept deposit"), "{message}");
}
