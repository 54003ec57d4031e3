//! Where the contract runs next to the model: NEAR's VM alone, with time as the sequence wants it,
//! or a chain, whose time goes on by itself.

use por_types::interface::{BooksView, ConfigView, NewArgs, method};
use por_types::{AccountId, Yocto};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::vm::{CONTRACT, Done, Vm};

/// A call that was made.
#[derive(Debug)]
pub struct Executed {
    /// Block time of its execution, milliseconds.
    pub at_ms: u64,
    /// An error is the contract's message; then nothing has changed.
    pub result: Result<Done, String>,
}

/// The deployed contract and accounts that call it. A host that fails panics: that is no
/// difference between contract and model.
pub trait Host {
    /// Initialises the contract. Answers what its account held before.
    fn start(&mut self, args: &NewArgs) -> u128;

    /// The block time that views see, milliseconds.
    fn now_ms(&self) -> u64;

    /// Lets time pass until it is `time_ms`, or a little more; nothing if it is already.
    fn wait_until(&mut self, time_ms: u64);

    /// How long after [`Host::now_ms`] the next call may be executed, milliseconds.
    fn delay_ms(&self) -> u64;

    /// A call and all that comes of it.
    fn execute(
        &mut self,
        who: &AccountId,
        method: &str,
        input: Vec<u8>,
        attached: Yocto,
        tgas: u64,
    ) -> Executed;

    /// What a view answers at [`Host::now_ms`].
    fn view<T: DeserializeOwned>(&mut self, method: &str, args: &impl Serialize) -> T;

    /// What the contract's account holds at [`Host::now_ms`].
    fn balance(&mut self) -> u128;

    /// What an account has received from the contract, if anything.
    fn received(&self, who: &AccountId) -> Option<u128>;

    fn books(&mut self) -> BooksView {
        self.view(method::BOOKS, &json!({}))
    }

    fn config(&mut self) -> ConfigView {
        self.view(method::CONFIG, &json!({}))
    }

    fn withdrawable(&mut self, who: &AccountId) -> Yocto {
        self.view(method::WITHDRAWABLE, &json!({ "account": who }))
    }
}

impl Host for Vm {
    fn start(&mut self, args: &NewArgs) -> u128 {
        let before = Vm::balance(self);
        self.call(CONTRACT, method::NEW, args, Yocto::ZERO).expect("new");
        before
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn wait_until(&mut self, time_ms: u64) {
        self.now_ms = self.now_ms.max(time_ms);
    }

    fn delay_ms(&self) -> u64 {
        0
    }

    fn execute(
        &mut self,
        who: &AccountId,
        method: &str,
        input: Vec<u8>,
        attached: Yocto,
        tgas: u64,
    ) -> Executed {
        self.gas = tgas * 1_000_000_000_000;
        let result = self.call_unchecked(who.as_str(), method, input, attached);
        self.check_storage();
        Executed { at_ms: self.now_ms, result }
    }

    fn view<T: DeserializeOwned>(&mut self, method: &str, args: &impl Serialize) -> T {
        Vm::view(self, method, args)
    }

    fn balance(&mut self) -> u128 {
        Vm::balance(self)
    }

    fn received(&self, who: &AccountId) -> Option<u128> {
        self.received.get(who.as_str()).copied()
    }
}
