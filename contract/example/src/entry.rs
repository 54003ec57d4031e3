//! Entry points: read the bounty, take a step, keep the sum, write it back.

use near_sdk::json_types::Base64VecU8;
use near_sdk::serde_json::{from_slice, to_vec};
use near_sdk::{Gas, NearToken, Promise, env, near};
use por_types::interface::{
    AccountArgs, AttachmentView, DowntimeArgs, DowntimeView, NodeView, method as por,
};
use por_types::{
    AccountId, MAX_CHAIN_ID_LEN, Network, NodeKey, RequestId, Signature, SignedReceipt, Verify, Yocto,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bounty::{Attached, Bounty, Downtime, Refusal};
use crate::interface::{
    BountyView, ConfigView, MAX_ANSWER_MS, MAX_BODY, MIN_ANSWER_MS, Outcome, STORAGE, Stage, code,
};
use crate::{BountyContract, BountyContractExt, account};

/// For each question to the Proof of Response contract.
const QUESTION_GAS: Gas = Gas::from_tgas(15);
/// For the callback that judges an answer, or a payment.
const CALLBACK_GAS: Gas = Gas::from_tgas(10);
/// Answers are a few hundred bytes.
const MAX_ANSWER: usize = 4096;

/// Arguments of the callbacks.
#[derive(Serialize)]
struct Attempt {
    bounty: u64,
    attempt: u32,
}

#[derive(Serialize)]
struct Asked {
    bounty: u64,
    asked_to_ms: u64,
}

#[derive(Serialize)]
struct Payment {
    bounty: u64,
    to_client: Yocto,
    to_server: Yocto,
}

/// ed25519 as the VM checks it.
struct Vm;

impl Verify for Vm {
    fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool {
        env::ed25519_verify(&signature.0, message, &key.0)
    }
}

#[near]
impl BountyContract {
    /// Sets the contract up, by its own account: `por` is the Proof of Response contract on
    /// the chain named `chain_id`.
    #[init]
    #[private]
    pub fn new(por: AccountId, chain_id: String) -> Self {
        require(
            (1..=MAX_CHAIN_ID_LEN).contains(&chain_id.len()),
            code::ARGUMENT,
            "the chain's name is empty or too long",
        );
        let network = Network { chain_id, contract: por };
        BountyContract { network, bounties: 0, held: Yocto::ZERO }
    }

    /// Opens a bounty for the response to `request` from the node `node_key` of `server`, who
    /// must add `collateral` and has `answer_ms` milliseconds from accepting. Attached: the
    /// reward, at least 1 yocto, and [`STORAGE`]. With `show_body` the response itself has to be
    /// shown, which publishes it, else its receipt is enough. Returns the bounty's number.
    #[payable]
    pub fn open(
        &mut self,
        request: RequestId,
        server: AccountId,
        node_key: NodeKey,
        collateral: Yocto,
        answer_ms: u64,
        show_body: bool,
    ) -> u64 {
        let attached = attached();
        let reward = attached.checked_sub(STORAGE).unwrap_or(Yocto::ZERO);
        require(!reward.is_zero(), code::DEPOSIT, "attach the reward and the storage deposit");
        require(
            (MIN_ANSWER_MS..=MAX_ANSWER_MS).contains(&answer_ms),
            code::ARGUMENT,
            "answer_ms must be between ten seconds and thirty days",
        );
        require(!node_key.is_weak(), code::ARGUMENT, "anybody can sign for this node key");
        // What it will hold must be a sum that fits.
        let most = attached.checked_add(collateral).ok();
        require(most.is_some(), code::OVERFLOW, "the collateral is too large");
        let client = caller();
        require(client != server, code::ARGUMENT, "client and server must differ");
        let bounty = Bounty {
            request,
            client,
            server,
            node_key,
            reward,
            collateral,
            answer_ms,
            show_body,
            stage: Stage::Offered,
            attempts: 0,
            owed_client: Yocto::ZERO,
            owed_server: Yocto::ZERO,
            paying: 0,
        };
        let id = self.bounties;
        self.bounties = id.saturating_add(1);
        self.keep(id, Yocto::ZERO, bounty);
        id
    }

    /// Takes an offer back. By the client, until the server is bound.
    pub fn cancel(&mut self, bounty: u64) {
        self.step(bounty, |bounty| {
            require(bounty.client == caller(), code::NOT_ALLOWED, "only the client may cancel");
            bounty.cancel()
        });
    }

    /// Accepts an offer. By the server, who attaches exactly the collateral. Binds it once the
    /// Proof of Response contract confirms that its node is attached and has the bounty's key,
    /// with no partition check pending; otherwise the collateral is owed back. Returns whether
    /// it is bound.
    #[payable]
    pub fn accept(&mut self, bounty: u64) -> Promise {
        let id = bounty;
        let (server, attempt) = self.step(id, |bounty| {
            require(bounty.server == caller(), code::NOT_ALLOWED, "only the named server may accept");
            require(attached() == bounty.collateral, code::DEPOSIT, "attach exactly the collateral");
            let attempt = bounty.accept(env::block_timestamp_ms())?;
            Ok((bounty.server.clone(), attempt))
        });
        let question = AccountArgs { account: server };
        let node = self.ask(por::NODE, &question);
        let attachment = self.ask(por::ATTACHMENT, &question);
        node.and(attachment).then(own_call("on_attachment", &Attempt { bounty: id, attempt }))
    }

    #[private]
    pub fn on_attachment(&mut self, bounty: u64, attempt: u32) -> bool {
        let node = answer::<Option<NodeView>>(0).flatten();
        let attachment = answer::<AttachmentView>(1);
        self.step(bounty, |bounty| {
            let answer = node.zip(attachment).map(|(node, attachment)| Attached {
                attached: attachment.attached_since_ms.is_some(),
                right_key: node.node_key == bounty.node_key,
                final_until_ms: attachment.final_until_ms,
            });
            bounty.judge_acceptance(attempt, answer)
        })
    }

    /// Gives the collateral of an acceptance back that was not judged in ten minutes. By anyone.
    pub fn release(&mut self, bounty: u64) {
        self.step(bounty, |bounty| bounty.release(env::block_timestamp_ms()));
    }

    /// Shows the receipt of the response, and its `body` if the bounty asks for it, before the
    /// deadline. By anyone; reward and collateral are owed to the server. Both are base64, the
    /// receipt of the borsh bytes: as nodes hand it out.
    pub fn claim(&mut self, bounty: u64, receipt: Base64VecU8, body: Option<Base64VecU8>) {
        let Ok(receipt) = borsh::from_slice::<SignedReceipt>(&receipt.0) else {
            stop(code::ARGUMENT, "the receipt is not one");
        };
        let network = self.network.clone();
        self.step(bounty, |bounty| {
            let now_ms = env::block_timestamp_ms();
            bounty.check_claimable(now_ms)?;
            let mut shown = receipt.verify(&network, &bounty.node_key, &bounty.request, &Vm);
            match &body {
                Some(Base64VecU8(body)) => {
                    require(body.len() <= MAX_BODY, code::ARGUMENT, "the body is too long to be shown");
                    shown = shown.and_then(|()| receipt.verify_body(body));
                }
                None => require(!bounty.show_body, code::RECEIPT, "the body must be shown too"),
            }
            if let Err(error) = shown {
                stop(code::RECEIPT, &error.to_string());
            }
            bounty.answered(now_ms)
        });
    }

    /// Asks the Proof of Response contract whether the server's node was cut off since it
    /// accepted, and decides if that can be decided. By anyone, at any time while the bounty is
    /// active; once the deadline has passed it always comes to a decision as soon as pending
    /// partition checks are done. Returns the outcome, or null.
    pub fn settle(&mut self, bounty: u64) -> Promise {
        let id = bounty;
        let bounty = load(id);
        let (from_ms, to_ms) = or_stop(bounty.asked_time(env::block_timestamp_ms()));
        let question = DowntimeArgs { account: bounty.server, from_ms, to_ms };
        let asked = Asked { bounty: id, asked_to_ms: to_ms };
        self.ask(por::DOWNTIME, &question).then(own_call("on_downtime", &asked))
    }

    #[private]
    pub fn on_downtime(&mut self, bounty: u64, asked_to_ms: u64) -> Option<Outcome> {
        let answer = answer::<DowntimeView>(0)
            .map(|view| Downtime { isolated_ms: view.downtime_ms, final_until_ms: view.final_until_ms });
        // It may have been answered and collected meanwhile.
        read(bounty)?;
        self.step(bounty, |bounty| bounty.judge_downtime(asked_to_ms, answer, env::block_timestamp_ms()))
    }

    /// Pays what is owed, to client and server. By anyone. The record is removed when all has
    /// arrived. Returns whether it has.
    pub fn collect(&mut self, bounty: u64) -> Promise {
        let id = bounty;
        let (client, server, to_client, to_server) = self.step(id, |bounty| {
            let (to_client, to_server) = bounty.collect()?;
            Ok((bounty.client.clone(), bounty.server.clone(), to_client, to_server))
        });
        let transfers = match (to_client.is_zero(), to_server.is_zero()) {
            (false, false) => transfer(&client, to_client).and(transfer(&server, to_server)),
            (false, true) => transfer(&client, to_client),
            (true, _) => transfer(&server, to_server),
        };
        transfers.then(own_call("on_paid", &Payment { bounty: id, to_client, to_server }))
    }

    #[private]
    pub fn on_paid(&mut self, bounty: u64, to_client: Yocto, to_server: Yocto) -> bool {
        // The transfers in this order, without empty ones.
        let mut results = 0..env::promise_results_count();
        let mut arrived = |amount: Yocto| {
            let nth = if amount.is_zero() { None } else { results.next() };
            nth.is_none_or(|nth| env::promise_result_checked(nth, MAX_ANSWER).is_ok())
        };
        let (client, server) = (arrived(to_client), arrived(to_server));
        self.step(bounty, |bounty| {
            bounty.paid(true, to_client, client)?;
            bounty.paid(false, to_server, server)
        });
        client && server
    }

    pub fn bounty(&self, bounty: u64) -> Option<BountyView> {
        read(bounty).map(Bounty::view)
    }

    pub fn config(&self) -> ConfigView {
        ConfigView {
            por: self.network.contract.clone(),
            chain_id: self.network.chain_id.clone(),
            bounties: self.bounties,
            held: self.held,
            balance: Yocto(env::account_balance().as_yoctonear()),
        }
    }
}

impl BountyContract {
    /// Takes a step of a bounty, or stops the call.
    fn step<T>(&mut self, id: u64, step: impl FnOnce(&mut Bounty) -> Result<T, Refusal>) -> T {
        let mut bounty = load(id);
        let before = or_stop(bounty.held().map_err(Refusal::from));
        let done = or_stop(step(&mut bounty));
        self.keep(id, before, bounty);
        done
    }

    /// Writes a bounty that held `before`, and adds the difference to the books.
    fn keep(&mut self, id: u64, before: Yocto, bounty: Bounty) {
        let sum = bounty.held().and_then(|now| self.held.checked_add(now)?.checked_sub(before));
        self.held = or_stop(sum.map_err(Refusal::from));
        if bounty.is_over() {
            env::storage_remove(&key(id));
            return;
        }
        match borsh::to_vec(&bounty) {
            Ok(bytes) => env::storage_write(&key(id), &bytes),
            Err(_) => stop(code::OVERFLOW, "a bounty does not serialize; report this"),
        };
    }

    /// Calls a view of the Proof of Response contract.
    fn ask(&self, method: &str, question: &impl Serialize) -> Promise {
        let por = Promise::new(to_sdk(&self.network.contract));
        por.function_call(method.to_owned(), to_json(question), NearToken::ZERO, QUESTION_GAS)
    }
}

fn own_call(method: &str, arguments: &impl Serialize) -> Promise {
    let this = Promise::new(env::current_account_id());
    this.function_call(method.to_owned(), to_json(arguments), NearToken::ZERO, CALLBACK_GAS)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    match to_vec(value) {
        Ok(json) => json,
        Err(_) => stop(code::OVERFLOW, "arguments do not serialize; report this"),
    }
}

fn transfer(to: &AccountId, amount: Yocto) -> Promise {
    Promise::new(to_sdk(to)).transfer(NearToken::from_yoctonear(amount.0))
}

/// What the nth promise answered; `None` if it failed or the answer is not understood.
fn answer<T: DeserializeOwned>(nth: u64) -> Option<T> {
    let bytes = env::promise_result_checked(nth, MAX_ANSWER).ok()?;
    from_slice(&bytes).ok()
}

fn key(id: u64) -> Vec<u8> {
    [b"b".as_slice(), &id.to_le_bytes()].concat()
}

fn read(id: u64) -> Option<Bounty> {
    let bytes = env::storage_read(&key(id))?;
    match borsh::from_slice(&bytes) {
        Ok(bounty) => Some(bounty),
        Err(_) => stop(code::STATE, "the record is of another version of this contract"),
    }
}

fn load(id: u64) -> Bounty {
    match read(id) {
        Some(bounty) => bounty,
        None => stop(code::NO_BOUNTY, "no bounty has this number"),
    }
}

fn attached() -> Yocto {
    Yocto(env::attached_deposit().as_yoctonear())
}

fn caller() -> AccountId {
    account(&env::predecessor_account_id())
}

fn to_sdk(name: &AccountId) -> near_sdk::AccountId {
    match name.as_str().parse() {
        Ok(account) => account,
        Err(_) => stop(code::ARGUMENT, "not an account on this chain"),
    }
}

/// A panic discards the call with all its effects; its message starts with a code.
fn stop(code: &str, advice: &str) -> ! {
    env::panic_str(&format!("{code}: {advice}"))
}

fn require(condition: bool, code: &str, advice: &str) {
    if !condition {
        stop(code, advice);
    }
}

fn or_stop<T>(result: Result<T, Refusal>) -> T {
    match result {
        Ok(value) => value,
        Err(Refusal { code, advice }) => stop(code, advice),
    }
}
