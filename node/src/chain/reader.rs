//! Views at final blocks, from whichever endpoint has a sound answer.

use near_crypto::SecretKey;
use near_jsonrpc_client::methods::query::{RpcQueryError, RpcQueryRequest, RpcQueryResponse};
use near_jsonrpc_primitives::types::query::QueryResponseKind;
use near_primitives::account::AccessKey;
use near_primitives::types::{BlockReference, Finality};
use near_primitives::views::QueryRequest;
use por_types::interface::{
    ChannelArgs, ChannelView, ConfigView, PageArgs, STATE_VERSION, error_code, method,
};
use por_types::{AccountId, ChannelId, Network, Yocto};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ChainError;
use super::others::{Page, Shown};
use super::rpc::{Head, Rpc, RpcFailure, Skip};
use super::{ChainConfig, sound, tx};

/// Times that a key's nonce is read again which no block has room for yet.
const NEW_KEY_TRIES: u32 = 2;

/// What views need.
pub(super) struct Reader {
    pub(super) rpc: Rpc,
    pub(super) network: Network,
    pub(super) account: AccountId,
}

impl Reader {
    pub(super) fn new(config: &ChainConfig) -> Result<Reader, ChainError> {
        let rpc = Rpc::new(&config.rpc_urls, config.limits)?;
        let rpc = rpc.after(config.seen_ms).for_tests(config.allow_test);
        Ok(Reader { rpc, network: config.network.clone(), account: config.account.clone() })
    }

    /// Checks that chain and contract are the expected ones; the contract's configuration.
    pub(super) async fn check(&self, seen_ms: u64, allow_test: bool) -> Result<ConfigView, ChainError> {
        self.rpc.check_chain_id(&self.network.chain_id).await?;
        if seen_ms > 0 {
            // From here on nothing is taken that is older than this head.
            self.rpc.head().await?;
        }
        self.check_contract(allow_test).await
    }

    /// The configuration of the contract, if it is the expected one.
    pub(super) async fn check_contract(&self, allow_test: bool) -> Result<ConfigView, ChainError> {
        // Only these fields: a foreign version may have changed all others.
        #[derive(serde::Deserialize)]
        struct Versioned {
            state_version: u32,
        }
        let foreign = |reason: String| ChainError::Foreign { reason };
        let contract = &self.network.contract;
        let found: Result<Versioned, ChainError> = self.view(method::CONFIG, &serde_json::json!({})).await;
        let found = found.map_err(|error| match error {
            ChainError::Answer { .. } | ChainError::Contract { .. } => {
                foreign(format!("{contract} is no Proof of Response contract"))
            }
            other => other,
        })?;
        if found.state_version != STATE_VERSION {
            return Err(foreign(format!(
                "the contract {contract} has version {}, this program speaks version {STATE_VERSION}",
                found.state_version
            )));
        }
        let config = self.sound_config().await?;
        if config.chain_id != self.network.chain_id {
            return Err(foreign(format!(
                "the contract {contract} was made for chain {}, not for {}",
                config.chain_id, self.network.chain_id
            )));
        }
        if config.test && !allow_test {
            return Err(foreign(format!(
                "the contract {contract} is a test contract with lifted bounds; real money is not safe in it"
            )));
        }
        Ok(config)
    }

    pub(super) async fn config(&self) -> Result<ConfigView, ChainError> {
        self.view(method::CONFIG, &serde_json::json!({})).await
    }

    pub(super) async fn sound_config(&self) -> Result<ConfigView, ChainError> {
        self.sound_view(method::CONFIG, &serde_json::json!({}), sound::config).await
    }

    pub(super) async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelView>, ChainError> {
        let sound = |found: &Option<ChannelView>| match found {
            Some(view) if view.channel == channel => sound::channel(view),
            Some(view) => Err(Skip::Bad(format!("answers with channel {} for {channel}", view.channel))),
            None => Ok(()),
        };
        self.sound_view(method::CHANNEL, &ChannelArgs { channel }, sound).await
    }

    pub(super) async fn shown(&self, (from, limit): Page) -> Vec<Shown> {
        let args = PageArgs { from: from.0, limit };
        let found: Vec<(u64, Vec<ChannelView>)> = self.ask_live_dated(method::CHANNELS, &args).await;
        let sound = found.into_iter().filter(|(height, page)| {
            sound::count("block", *height).is_ok() && sound::channels(from.0, limit, page).is_ok()
        });
        let by_id = |page: Vec<ChannelView>| page.into_iter().map(|view| (view.channel, view)).collect();
        sound.map(|(height, page)| Shown { height, channels: by_id(page) }).collect()
    }

    pub(super) async fn agrees_on_late_fee(&self, fee: Yocto) -> bool {
        let found: Vec<ConfigView> = self.ask_live(method::CONFIG, &serde_json::json!({})).await;
        let (same, other): (Vec<bool>, Vec<bool>) = found
            .iter()
            .filter(|config| sound::config(config).is_ok())
            .map(|config| config.params.late_fee == fee)
            .partition(|same| *same);
        same.len() > other.len() || (same.is_empty() && other.is_empty() && self.rpc.is_alone())
    }

    /// What the endpoints at the head of the chain answer to a view, those that answer; nobody is asked if
    /// there is one endpoint in all.
    async fn ask_live<A: Serialize, T: DeserializeOwned>(&self, method: &str, args: &A) -> Vec<T> {
        self.ask_live_dated(method, args).await.into_iter().map(|(_, answer)| answer).collect()
    }

    /// The same, each with the height of its block.
    async fn ask_live_dated<A: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        args: &A,
    ) -> Vec<(u64, T)> {
        let Ok(args) = serde_json::to_vec(args) else { return Vec::new() };
        let request = QueryRequest::CallFunction {
            account_id: self.network.contract.clone(),
            method_name: method.to_owned(),
            args: args.into(),
        };
        let request = RpcQueryRequest { block_reference: BlockReference::Finality(Finality::Final), request };
        let answers = self.rpc.ask_live(&request).await;
        let read = |answer: RpcQueryResponse| match answer.kind {
            QueryResponseKind::CallResult(result) => {
                Some((answer.block_height, serde_json::from_slice(&result.result).ok()?))
            }
            _ => None,
        };
        answers.into_iter().filter_map(read).collect()
    }

    pub(super) async fn view<A: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        args: &A,
    ) -> Result<T, ChainError> {
        self.sound_view(method, args, |_| Ok(())).await
    }

    /// A view whose answer is `sound`; endpoints with another one are passed over.
    pub(super) async fn sound_view<A: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        args: &A,
        sound: impl Fn(&T) -> Result<(), Skip>,
    ) -> Result<T, ChainError> {
        let unreadable = |reason: String| ChainError::Answer { method: method.to_owned(), reason };
        let args = serde_json::to_vec(args).map_err(|error| unreadable(error.to_string()))?;
        let request = QueryRequest::CallFunction {
            account_id: self.network.contract.clone(),
            method_name: method.to_owned(),
            args: args.into(),
        };
        let accept = |response: RpcQueryResponse| {
            let QueryResponseKind::CallResult(result) = response.kind else {
                return Err(Skip::Bad("it is no result of a view".to_owned()));
            };
            let value = serde_json::from_slice(&result.result);
            let value = value.map_err(|error| Skip::Bad(error.to_string()))?;
            sound(&value).map(|()| value)
        };
        self.query_for(request, Finality::Final, accept).await.map_err(|failure| match failure {
            RpcFailure::Nobody(ChainError::Answer { reason, .. }) => unreadable(reason),
            RpcFailure::Nobody(error) => error,
            RpcFailure::Handler { error, .. } => self.view_error(method, error),
        })
    }

    pub(super) fn view_error(&self, method: &str, error: RpcQueryError) -> ChainError {
        match error {
            RpcQueryError::UnknownAccount { .. } | RpcQueryError::NoContractCode { .. } => {
                ChainError::NoContract { contract: self.network.contract.clone() }
            }
            RpcQueryError::ContractExecutionError { vm_error, .. } => {
                if vm_error.contains("CodeDoesNotExist") {
                    return ChainError::NoContract { contract: self.network.contract.clone() };
                }
                ChainError::Contract {
                    method: method.to_owned(),
                    code: error_code(&vm_error).map(str::to_owned),
                    message: tx::panic_message(&vm_error),
                }
            }
            other => ChainError::Answer { method: method.to_owned(), reason: other.to_string() },
        }
    }

    pub(super) async fn balance(&self, account: &AccountId) -> Result<Option<Yocto>, ChainError> {
        let request = QueryRequest::ViewAccount { account_id: account.clone() };
        match self.query(request, Finality::Final).await {
            Ok(RpcQueryResponse { kind: QueryResponseKind::ViewAccount(view), .. }) => {
                Ok(Some(Yocto(view.amount.as_yoctonear())))
            }
            Ok(_) => Err(ChainError::Answer {
                method: "view_account".to_owned(),
                reason: "it is no account".to_owned(),
            }),
            Err(RpcFailure::Handler { error: RpcQueryError::UnknownAccount { .. }, .. }) => Ok(None),
            Err(RpcFailure::Handler { error, .. }) => {
                Err(ChainError::Answer { method: "view_account".to_owned(), reason: error.to_string() })
            }
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// The final head, the last nonce that a key of the account has used, and the one from which on the chain
    /// takes none yet: nonces are bounded by a block's height.
    pub(super) async fn nonce(&self, key: &SecretKey) -> Result<(Head, u64, u64), ChainError> {
        let mut tries = 0;
        loop {
            let head = self.rpc.head().await?;
            let end = head.height.saturating_mul(AccessKey::ACCESS_KEY_NONCE_RANGE_MULTIPLIER);
            match self.key_nonce(key, end.saturating_sub(1)).await {
                Ok(used) => return Ok((head, used, end)),
                // The key of an account that was made just now is newer than the final head.
                Err(ChainError::Lagging { .. }) if tries < NEW_KEY_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Last nonce used by a key of the account; below `end`, from which on the chain takes none yet.
    pub(super) async fn key_nonce(&self, key: &SecretKey, end: u64) -> Result<u64, ChainError> {
        let Reader { account, network, .. } = self;
        let public_key = key.public_key();
        let request =
            QueryRequest::ViewAccessKey { account_id: account.clone(), public_key: public_key.clone() };
        let no_key = || ChainError::NoKey { account: account.clone(), key: public_key.to_string() };
        let no_account =
            || ChainError::NoAccount { account: account.clone(), chain_id: network.chain_id.clone() };
        let take = |response: RpcQueryResponse| match response.kind {
            QueryResponseKind::AccessKey(view) if view.nonce < end => Ok(view.nonce),
            // Or the key is newer than the head that was read.
            QueryResponseKind::AccessKey(view) => Err(Skip::Old(format!("says nonce {}", view.nonce))),
            _ => Err(Skip::Bad("it is no access key".to_owned())),
        };
        let unreadable = |reason: String| ChainError::Answer { method: "view_access_key".to_owned(), reason };
        match self.query_for(request, Finality::None, take).await {
            Ok(nonce) => Ok(nonce),
            Err(RpcFailure::Handler { error, .. }) => Err(match error {
                RpcQueryError::UnknownAccessKey { .. } => match self.balance(account).await? {
                    Some(_) => no_key(),
                    None => no_account(),
                },
                RpcQueryError::UnknownAccount { .. } => no_account(),
                other => unreadable(other.to_string()),
            }),
            Err(RpcFailure::Nobody(ChainError::Answer { reason, .. })) => Err(unreadable(reason)),
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// Whether a key has used this nonce at a final block, by any endpoint; that it has not, only one can say
    /// that is at block `since` or later, and not behind what was seen. `None` if none says.
    pub(super) async fn is_used(&self, key: &SecretKey, nonce: u64, since: u64) -> Option<bool> {
        let request = RpcQueryRequest {
            block_reference: BlockReference::Finality(Finality::Final),
            request: QueryRequest::ViewAccessKey {
                account_id: self.account.clone(),
                public_key: key.public_key(),
            },
        };
        let since = since.max(self.rpc.floor());
        let answers = self.rpc.ask_all(&request, self.rpc.limits().try_timeout).await;
        let used = |(_, answer): (&str, RpcQueryResponse)| match answer.kind {
            QueryResponseKind::AccessKey(view) if view.nonce >= nonce => Some(true),
            QueryResponseKind::AccessKey(_) if answer.block_height >= since => Some(false),
            _ => None,
        };
        answers.into_iter().filter_map(used).max()
    }

    pub(super) async fn query(
        &self,
        request: QueryRequest,
        finality: Finality,
    ) -> Result<RpcQueryResponse, RpcFailure<RpcQueryError>> {
        self.query_for(request, finality, Ok).await
    }

    pub(super) async fn query_for<T>(
        &self,
        request: QueryRequest,
        finality: Finality,
        take: impl Fn(RpcQueryResponse) -> Result<T, Skip>,
    ) -> Result<T, RpcFailure<RpcQueryError>> {
        // Only final answers are held against each other: optimistic ones may be rolled back.
        let is_final = finality == Finality::Final;
        let request = RpcQueryRequest { block_reference: BlockReference::Finality(finality), request };
        let floor = self.rpc.floor();
        let transient = |error: &RpcQueryError| {
            matches!(
                error,
                RpcQueryError::NoSyncedBlocks
                    | RpcQueryError::UnavailableShard { .. }
                    | RpcQueryError::GarbageCollectedBlock { .. }
                    | RpcQueryError::UnknownBlock { .. }
                    | RpcQueryError::InternalError { .. }
            )
        };
        let accept = |response: RpcQueryResponse| {
            let height = response.block_height;
            if height < floor {
                return Err(Skip::Old(format!("is at block {height}, {floor} was seen before")));
            }
            let taken = take(response)?;
            // What makes no sense does not make others look old.
            if is_final {
                self.rpc.rise(floor, height)?;
            }
            Ok(taken)
        };
        self.rpc.look(&request, transient, accept).await
    }
}
