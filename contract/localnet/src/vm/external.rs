//! What a running contract sees of the chain.

use std::cell::RefCell;

use near_crypto::PublicKey;
use near_primitives::account::{AccessKey, AccessKeyPermission, FunctionCallPermission};
use near_primitives::action::{
    Action, AddKeyAction, CreateAccountAction, DeleteAccountAction, DeleteKeyAction, DeployContractAction,
    DeployGlobalContractAction, DeterministicStateInitAction, FunctionCallAction, StakeAction,
    TransferAction, TransferToGasKeyAction, UniversalStateInitAction, UseGlobalContractAction,
};
use near_primitives::deterministic_account_id::{
    DeterministicAccountStateInit, DeterministicAccountStateInitV1,
};
use near_primitives::hash::{CryptoHash, YieldId};
use near_primitives::receipt::{
    DataReceipt, DataReceiver, PromiseYieldTimeout, Receipt, ReceiptEnum, ReceiptV0,
};
use near_primitives::trie_key::{TrieKey, trie_key_parsers};
use near_primitives::types::{AccountId, Balance, BlockHeight, Gas, GasWeight, Nonce, NonceIndex};
use near_primitives::universal_state_init::{
    DecodeMode, RawStateInit, StateInitError, UniversalStateInit, UniversalStateInitCounts,
    state_init_send_counts,
};
use near_primitives::utils::create_receipt_id_from_action_hash;
use near_vm_runner::logic::errors::AnyError;
use near_vm_runner::logic::types::{
    ActionIndex, GlobalContractDeployMode, GlobalContractIdentifier, ReceiptIndex,
};
use near_vm_runner::logic::{External, HostError, StorageAccessTracker, VMLogicError, ValuePtr};

use super::promises::Promises;
use crate::state::{Recorder, State};

type Result<T, E = VMLogicError> = std::result::Result<T, E>;

/// Where and when a call runs.
pub(crate) struct Scope<'a> {
    pub(crate) account_id: &'a AccountId,
    pub(crate) action_hash: CryptoHash,
    pub(crate) height: BlockHeight,
    pub(crate) chain_id: &'a str,
    /// Blocks after which a yielded promise gives up.
    pub(crate) yield_timeout: BlockHeight,
    /// Staked by the only validator, and who that is.
    pub(crate) validator: Option<&'a (AccountId, Balance)>,
}

/// The chain as one call sees it.
pub(crate) struct CallExternal<'a> {
    scope: Scope<'a>,
    state: &'a mut State,
    prefix: Vec<u8>,
    promises: Promises,
    /// Data for yielded promises that this call resumes.
    resumed: Vec<Receipt>,
    ids: u64,
    recorder: RefCell<&'a mut Recorder>,
    /// The size of the proof when the receipt began.
    proof_before: usize,
}

/// A value that was found, but is not read yet.
struct Value<'b, 'a> {
    bytes: &'b [u8],
    /// Where to record that it is read, and under which key.
    proof: Option<(&'b RefCell<&'a mut Recorder>, Vec<u8>)>,
}

impl ValuePtr for Value<'_, '_> {
    fn len(&self) -> u32 {
        // Values are limited to 4 MiB when they are written.
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn deref(&self, _: &mut dyn StorageAccessTracker) -> Result<Vec<u8>> {
        if let Some((recorder, key)) = &self.proof {
            recorder.borrow_mut().read_value(key);
        }
        Ok(self.bytes.to_vec())
    }
}

fn broken(error: &crate::Error) -> VMLogicError {
    VMLogicError::ExternalError(AnyError::new(error.to_string()))
}

impl<'a> CallExternal<'a> {
    pub(crate) fn new(
        scope: Scope<'a>,
        state: &'a mut State,
        recorder: &'a mut Recorder,
        proof_before: usize,
    ) -> Self {
        let prefix = trie_key_parsers::get_raw_prefix_for_contract_data(scope.account_id, &[]);
        Self {
            scope,
            state,
            prefix,
            promises: Promises::default(),
            resumed: Vec::new(),
            ids: 0,
            recorder: RefCell::new(recorder),
            proof_before,
        }
    }

    /// What the call asked for: promises, and data for yielded ones.
    pub(crate) fn finish(self) -> (Promises, Vec<Receipt>) {
        (self.promises, self.resumed)
    }

    fn storage_key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    /// Counts a look at `key` before it changes: the trie nodes to pay for, with the old
    /// value as one more.
    fn touch(&self, key: &[u8]) -> u64 {
        let mut recorder = self.recorder.borrow_mut();
        if recorder.is_overlaid(self.state, key) {
            return 0;
        }
        recorder.look_up(key) + u64::from(recorder.read_value(key))
    }

    fn new_receipt(&mut self, receiver: AccountId) -> (ReceiptIndex, CryptoHash) {
        let data_id = self.generate_data_id();
        (self.promises.push(receiver, vec![data_id], true), data_id)
    }

    /// Remembers when a new yielded promise gives up.
    fn enqueue_timeout(&mut self, data_id: CryptoHash) -> Result<()> {
        let mut indices = self.state.yields().map_err(|e| broken(&e))?;
        let timeout = PromiseYieldTimeout {
            account_id: self.scope.account_id.clone(),
            data_id,
            expires_at: self.scope.height.saturating_add(self.scope.yield_timeout),
        };
        let key = TrieKey::PromiseYieldTimeout { index: indices.next_available_index };
        indices.next_available_index += 1;
        self.state.set(&key, &timeout).map_err(|e| broken(&e))?;
        self.state.set(&TrieKey::PromiseYieldIndices, &indices).map_err(|e| broken(&e))
    }

    /// Whether a promise with this data id was yielded and still waits.
    fn is_waiting(&self, data_id: CryptoHash) -> bool {
        let key = TrieKey::PromiseYieldReceipt { receiver_id: self.scope.account_id.clone(), data_id };
        self.state.get_raw(&key.to_vec()).is_some() || self.promises.yields(&data_id)
    }

    fn add_key(&mut self, index: ReceiptIndex, public_key: PublicKey, access_key: AccessKey) {
        self.promises.append(index, AddKeyAction { public_key, access_key });
    }
}

fn call_permission(
    allowance: Option<Balance>,
    receiver: &AccountId,
    method_names: Vec<Vec<u8>>,
) -> Result<FunctionCallPermission> {
    let method_names = method_names
        .into_iter()
        .map(|name| String::from_utf8(name).map_err(|_| HostError::InvalidMethodName.into()))
        .collect::<Result<_>>()?;
    Ok(FunctionCallPermission { allowance, receiver_id: receiver.to_string(), method_names })
}

impl External for CallExternal<'_> {
    fn storage_set(
        &mut self,
        tracker: &mut dyn StorageAccessTracker,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let key = self.storage_key(key);
        if let Some(old) = self.state.get_raw(&key) {
            tracker.deref_write_evicted_value_bytes(old.len() as u64)?;
        }
        tracker.trie_node_touched(self.touch(&key))?;
        let evicted = self.state.set_raw(key, value);
        Ok(evicted.map(|old| old.to_vec()))
    }

    fn storage_get<'b>(
        &'b self,
        _: &mut dyn StorageAccessTracker,
        key: &[u8],
    ) -> Result<Option<Box<dyn ValuePtr + 'b>>> {
        let key = self.storage_key(key);
        let mut recorder = self.recorder.borrow_mut();
        let overlaid = recorder.is_overlaid(self.state, &key);
        if !overlaid {
            recorder.look_up(&key);
        }
        drop(recorder);
        let Some(bytes) = self.state.get_raw(&key) else {
            return Ok(None);
        };
        let proof = (!overlaid).then_some((&self.recorder, key));
        Ok(Some(Box::new(Value { bytes, proof })))
    }

    fn storage_remove(
        &mut self,
        tracker: &mut dyn StorageAccessTracker,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let key = self.storage_key(key);
        if let Some(old) = self.state.get_raw(&key) {
            tracker.deref_removed_value_bytes(old.len() as u64)?;
        }
        let nodes = self.touch(&key);
        self.recorder.borrow_mut().remove();
        tracker.trie_node_touched(nodes)?;
        let removed = self.state.remove_raw(&key);
        Ok(removed.map(|old| old.to_vec()))
    }

    fn storage_has_key(&mut self, _: &mut dyn StorageAccessTracker, key: &[u8]) -> Result<bool> {
        let key = self.storage_key(key);
        let mut recorder = self.recorder.borrow_mut();
        if !recorder.is_overlaid(self.state, &key) {
            recorder.look_up(&key);
        }
        Ok(self.state.get_raw(&key).is_some())
    }

    fn generate_data_id(&mut self) -> CryptoHash {
        let id = create_receipt_id_from_action_hash(&self.scope.action_hash, self.scope.height, self.ids);
        self.ids += 1;
        id
    }

    fn get_recorded_storage_size(&self) -> usize {
        self.recorder.borrow().bytes()
    }

    fn storage_proof_size_before_receipt(&self) -> usize {
        self.proof_before
    }

    fn validator_stake(&self, account_id: &AccountId) -> Result<Option<Balance>> {
        let validator = self.scope.validator.filter(|(id, _)| id == account_id);
        Ok(validator.map(|(_, stake)| *stake))
    }

    fn validator_total_stake(&self) -> Result<Balance> {
        Ok(self.scope.validator.map_or(Balance::ZERO, |(_, stake)| *stake))
    }

    fn chain_id(&self) -> String {
        self.scope.chain_id.to_owned()
    }

    fn create_action_receipt(
        &mut self,
        receipt_indices: Vec<ReceiptIndex>,
        receiver_id: AccountId,
    ) -> Result<ReceiptIndex> {
        let mut inputs = Vec::with_capacity(receipt_indices.len());
        for index in receipt_indices {
            let data_id = self.generate_data_id();
            let Some(draft) = self.promises.get_mut(index) else {
                return Err(HostError::InvalidReceiptIndex { receipt_index: index }.into());
            };
            draft.output_data_receivers.push(DataReceiver { data_id, receiver_id: receiver_id.clone() });
            inputs.push(data_id);
        }
        Ok(self.promises.push(receiver_id, inputs, false))
    }

    fn create_promise_yield_receipt(&mut self, receiver_id: AccountId) -> Result<(ReceiptIndex, CryptoHash)> {
        let (index, data_id) = self.new_receipt(receiver_id);
        self.enqueue_timeout(data_id)?;
        Ok((index, data_id))
    }

    fn create_promise_yield_receipt_with_id(
        &mut self,
        receiver_id: AccountId,
        user_yield_id: YieldId,
    ) -> Result<Option<(ReceiptIndex, CryptoHash)>> {
        let by_yield = TrieKey::YieldIdToDataId { receiver_id: receiver_id.clone(), yield_id: user_yield_id };
        if self.state.get_raw(&by_yield.to_vec()).is_some() {
            return Ok(None);
        }
        let (index, data_id) = self.new_receipt(receiver_id.clone());
        let by_data = TrieKey::DataIdToYieldId { receiver_id, data_id };
        self.state.set(&by_yield, &data_id).map_err(|e| broken(&e))?;
        self.state.set(&by_data, &user_yield_id).map_err(|e| broken(&e))?;
        self.enqueue_timeout(data_id)?;
        Ok(Some((index, data_id)))
    }

    fn submit_promise_resume_data(&mut self, data_id: CryptoHash, data: Vec<u8>) -> Result<bool> {
        if !self.is_waiting(data_id) {
            return Ok(false);
        }
        self.resumed.push(Receipt::V0(ReceiptV0 {
            predecessor_id: self.scope.account_id.clone(),
            receiver_id: self.scope.account_id.clone(),
            receipt_id: CryptoHash::default(),
            receipt: ReceiptEnum::PromiseResume(DataReceipt { data_id, data: Some(data) }),
        }));
        Ok(true)
    }

    fn submit_promise_resume_data_with_yield_id(
        &mut self,
        user_yield_id: YieldId,
        data: Vec<u8>,
    ) -> Result<bool> {
        let key =
            TrieKey::YieldIdToDataId { receiver_id: self.scope.account_id.clone(), yield_id: user_yield_id };
        match self.state.get::<CryptoHash>(&key).map_err(|e| broken(&e))? {
            Some(data_id) => self.submit_promise_resume_data(data_id, data),
            None => Ok(false),
        }
    }

    fn append_action_create_account(&mut self, index: ReceiptIndex) {
        self.promises.append(index, CreateAccountAction {});
    }

    fn append_action_deploy_contract(&mut self, index: ReceiptIndex, code: Vec<u8>) {
        self.promises.append(index, DeployContractAction { code });
    }

    fn append_action_deploy_global_contract(
        &mut self,
        index: ReceiptIndex,
        code: Vec<u8>,
        mode: GlobalContractDeployMode,
    ) {
        use near_primitives::action::GlobalContractDeployMode as Mode;
        let deploy_mode = match mode {
            GlobalContractDeployMode::CodeHash => Mode::CodeHash,
            GlobalContractDeployMode::AccountId => Mode::AccountId,
        };
        let action = DeployGlobalContractAction { code: code.into(), deploy_mode };
        self.promises.append(index, action);
    }

    fn append_action_use_global_contract(
        &mut self,
        index: ReceiptIndex,
        contract_id: GlobalContractIdentifier,
    ) {
        let action = UseGlobalContractAction { contract_identifier: contract_id.into() };
        self.promises.append(index, Action::UseGlobalContract(Box::new(action)));
    }

    fn append_action_deterministic_state_init(
        &mut self,
        index: ReceiptIndex,
        contract_id: GlobalContractIdentifier,
        amount: Balance,
    ) -> ActionIndex {
        let state_init = DeterministicAccountStateInit::V1(DeterministicAccountStateInitV1 {
            code: contract_id.into(),
            data: Default::default(),
        });
        let action = DeterministicStateInitAction { state_init, deposit: amount };
        self.promises.append(index, Action::DeterministicStateInit(Box::new(action)));
        self.promises.get(index).map_or(0, |draft| draft.actions.len() as u64 - 1)
    }

    fn set_deterministic_state_init_data_entry(
        &mut self,
        receipt_index: ReceiptIndex,
        action_index: ActionIndex,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<()> {
        let at = usize::try_from(action_index).unwrap_or(usize::MAX);
        let action = self.promises.get_mut(receipt_index).and_then(|d| d.actions.get_mut(at));
        let Some(Action::DeterministicStateInit(action)) = action else {
            return Err(HostError::InvalidActionIndex { receipt_index, action_index }.into());
        };
        match action.state_init.data_mut().insert(key, value) {
            Some(_) => Err(HostError::DataEntryAlreadyExists.into()),
            None => Ok(()),
        }
    }

    fn check_state_init(&self, state_init: &RawStateInit) -> Result<(), StateInitError> {
        UniversalStateInit::from_raw_strict(state_init).map(|_| ())
    }

    fn state_init_send_counts(
        &self,
        state_init: &RawStateInit,
        mode: DecodeMode,
    ) -> UniversalStateInitCounts {
        state_init_send_counts(state_init, mode)
    }

    fn append_action_universal_state_init(
        &mut self,
        index: ReceiptIndex,
        state_init: RawStateInit,
        amount: Balance,
    ) {
        let action = UniversalStateInitAction { state_init, deposit: amount };
        self.promises.append(index, Action::UniversalStateInit(Box::new(action)));
    }

    fn append_action_function_call_weight(
        &mut self,
        index: ReceiptIndex,
        method_name: Vec<u8>,
        args: Vec<u8>,
        attached_deposit: Balance,
        prepaid_gas: Gas,
        gas_weight: GasWeight,
    ) -> Result<()> {
        let method_name = String::from_utf8(method_name).map_err(|_| HostError::InvalidMethodName)?;
        let action = FunctionCallAction { method_name, args, gas: prepaid_gas, deposit: attached_deposit };
        self.promises.append(index, action);
        self.promises.weigh_last(index, gas_weight.0);
        Ok(())
    }

    fn append_action_transfer(&mut self, index: ReceiptIndex, deposit: Balance) {
        self.promises.append(index, TransferAction { deposit });
    }

    fn append_action_transfer_to_gas_key(
        &mut self,
        index: ReceiptIndex,
        public_key: PublicKey,
        deposit: Balance,
    ) {
        self.promises.append(index, TransferToGasKeyAction { public_key, deposit });
    }

    fn append_action_add_gas_key_with_full_access(
        &mut self,
        index: ReceiptIndex,
        public_key: PublicKey,
        num_nonces: NonceIndex,
    ) {
        self.add_key(index, public_key, AccessKey::gas_key_full_access(num_nonces));
    }

    fn append_action_add_gas_key_with_function_call(
        &mut self,
        index: ReceiptIndex,
        public_key: PublicKey,
        num_nonces: NonceIndex,
        allowance: Option<Balance>,
        receiver_id: AccountId,
        method_names: Vec<Vec<u8>>,
    ) -> Result<()> {
        let permission = call_permission(allowance, &receiver_id, method_names)?;
        self.add_key(index, public_key, AccessKey::gas_key_function_call(num_nonces, permission));
        Ok(())
    }

    fn append_action_stake(&mut self, index: ReceiptIndex, stake: Balance, public_key: PublicKey) {
        self.promises.append(index, StakeAction { stake, public_key });
    }

    fn append_action_add_key_with_full_access(
        &mut self,
        index: ReceiptIndex,
        public_key: PublicKey,
        nonce: Nonce,
    ) {
        let access_key = AccessKey { nonce, permission: AccessKeyPermission::FullAccess };
        self.add_key(index, public_key, access_key);
    }

    fn append_action_add_key_with_function_call(
        &mut self,
        index: ReceiptIndex,
        public_key: PublicKey,
        nonce: Nonce,
        allowance: Option<Balance>,
        receiver_id: AccountId,
        method_names: Vec<Vec<u8>>,
    ) -> Result<()> {
        let permission = call_permission(allowance, &receiver_id, method_names)?;
        let permission = AccessKeyPermission::FunctionCall(permission);
        self.add_key(index, public_key, AccessKey { nonce, permission });
        Ok(())
    }

    fn append_action_delete_key(&mut self, index: ReceiptIndex, public_key: PublicKey) {
        let action = DeleteKeyAction { public_key };
        self.promises.append(index, Action::DeleteKey(Box::new(action)));
    }

    fn append_action_delete_account(&mut self, index: ReceiptIndex, beneficiary_id: AccountId) {
        self.promises.append(index, DeleteAccountAction { beneficiary_id });
    }

    fn get_receipt_receiver(&self, index: ReceiptIndex) -> &AccountId {
        // The VM asks only for receipts it was given.
        self.promises.get(index).map_or(self.scope.account_id, |draft| &draft.receiver)
    }

    fn set_refund_to(&mut self, index: ReceiptIndex, refund_to: AccountId) {
        if let Some(draft) = self.promises.get_mut(index) {
            draft.refund_to = Some(refund_to);
        }
    }

    fn post_quantum_keys_enabled(&self) -> bool {
        true
    }
}
