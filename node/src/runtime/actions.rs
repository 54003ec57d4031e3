//! Calls of the contract that the operator asks for.

use std::time::Duration;

use por_types::interface::{
    ChannelArgs, ChannelStatus, ConfirmChannelArgs, ProposeChannelArgs, RegisterArgs, UnstakeArgs,
    WithdrawArgs,
};
use por_types::{AmountError, ChannelId, RegistrationProof, Yocto};

use super::Daemon;
use crate::chain::{Call, CallOutcome, ChainError, Intent};
use crate::client::{ActionResult, ClientError, ConfirmBody, ErrorCode, ProposeBody};

/// Longest wait until the own copy of the graph shows what a call has changed.
const SHOWN: Duration = Duration::from_secs(10);

/// Longest wait until an order to sever has had its effect.
const SEVERED: Duration = Duration::from_secs(60);

impl Daemon {
    /// Registers the node's key with a stake; does nothing if it is registered for this account.
    pub(crate) async fn register(&self, stake: Yocto) -> Result<ActionResult, ClientError> {
        if let Some(node) = self.chain.node_by_key(self.node_key).await? {
            if node.account == self.account {
                return Ok(ActionResult::default());
            }
            let message = format!("this node key is registered by {}", node.account);
            return Err(ClientError::new(ErrorCode::Exists, message, "use the account, or another node key"));
        }
        let config = self.chain.config().await?;
        let proof = RegistrationProof { account: self.account.clone(), node_key: self.node_key };
        let proof = self.secret.sign(&self.network, proof).signature;
        let attached = config.register_storage.checked_add(stake).map_err(amount)?;
        let args = RegisterArgs { node_key: self.node_key, proof };
        self.act(Call::Register { args, attached }).await.map(result)
    }

    pub(crate) async fn stake(&self, amount: Yocto) -> Result<ActionResult, ClientError> {
        self.act(Call::Stake { amount }).await.map(result)
    }

    pub(crate) async fn unstake(&self, amount: Yocto) -> Result<ActionResult, ClientError> {
        self.act(Call::Unstake(UnstakeArgs { amount })).await.map(result)
    }

    pub(crate) async fn withdraw(&self, amount: Option<Yocto>) -> Result<ActionResult, ClientError> {
        let available = self.chain.withdrawable(&self.account).await?;
        if amount.is_none() && available.is_zero() {
            return Ok(ActionResult { amount: Some(Yocto::ZERO), ..ActionResult::default() });
        }
        let outcome = self.act(Call::Withdraw(WithdrawArgs { amount })).await?;
        let taken = serde_json::from_value(outcome.value.clone()).ok().or(amount).unwrap_or(available);
        Ok(ActionResult { amount: Some(taken), ..result(outcome) })
    }

    pub(crate) async fn propose(&self, body: ProposeBody) -> Result<ActionResult, ClientError> {
        let ProposeBody { counterparty, deposit, terms } = body;
        let range = "use values in range, see `por channel propose --help`";
        terms.validate().map_err(|error| ClientError::new(ErrorCode::Usage, error.to_string(), range))?;
        let config = self.chain.config().await?;
        let bond = Yocto(config.params.sever_penalty.0 / 2);
        let args = ProposeChannelArgs { counterparty, terms, deposit };
        let outcome = self.act(Call::propose(args, bond, config.channel_storage).map_err(amount)?).await?;
        let channel = serde_json::from_value::<ChannelId>(outcome.value.clone()).ok();
        Ok(ActionResult { channel, ..result(outcome) })
    }

    pub(crate) async fn confirm(
        &self,
        channel: ChannelId,
        body: ConfirmBody,
    ) -> Result<ActionResult, ClientError> {
        let view = self.chain.channel(channel).await?.ok_or_else(|| no_channel(channel))?;
        if view.key_b == self.node_key && view.status == ChannelStatus::Open {
            return Ok(ActionResult { channel: Some(channel), ..ActionResult::default() });
        }
        let terms = body.terms.unwrap_or(view.terms);
        let args = ConfirmChannelArgs { channel, terms, deposit: body.deposit };
        let outcome = self.act(Call::confirm(args, view.bond).map_err(amount)?).await?;
        Ok(ActionResult { channel: Some(channel), ..result(outcome) })
    }

    pub(crate) async fn cancel(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        let outcome = self.act(Call::CancelProposal(ChannelArgs { channel })).await?;
        Ok(ActionResult { channel: Some(channel), ..result(outcome) })
    }

    pub(crate) async fn top_up(
        &self,
        channel: ChannelId,
        amount: Yocto,
    ) -> Result<ActionResult, ClientError> {
        let outcome = self.act(Call::TopUp { channel, amount }).await?;
        Ok(ActionResult { channel: Some(channel), ..result(outcome) })
    }

    pub(crate) async fn close(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        self.channels.close(channel).await?;
        Ok(ActionResult { channel: Some(channel), ..ActionResult::default() })
    }

    /// Severs a channel and waits until the graph shows it, if it does so soon.
    pub(crate) async fn sever(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        self.channels.sever(channel).await?;
        let mut versions = self.versions.clone();
        let in_use = || self.channels.check_in_use(channel).is_ok();
        let shown = async { while in_use() && versions.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(SEVERED, shown).await;
        if in_use() {
            let message = format!("the order to sever channel {channel} is signed, and not on chain yet");
            let fix = "keep the daemon running: it brings the order to the chain; see `por channel list`";
            return Err(ClientError::new(ErrorCode::Unreachable, message, fix));
        }
        Ok(ActionResult { channel: Some(channel), ..ActionResult::default() })
    }

    /// Makes a call and waits until this node's own view of the chain shows it, if it does so soon. What was made is
    /// no error: whoever is told of one makes it again, and pays again.
    async fn act(&self, call: Call) -> Result<CallOutcome, ClientError> {
        let outcome = self.chain.call(Intent::new(call)).await?;
        let shown = async {
            let version = self.chain.config().await?.graph_version;
            let mut versions = self.versions.clone();
            self.sync_now.notify_one();
            // An error: the graph is followed no more, as the node stops.
            let _ = versions.wait_for(|news| news.version >= version).await;
            Ok::<_, ChainError>(())
        };
        match tokio::time::timeout(SHOWN, shown).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what a call has changed cannot be read yet"),
            Err(_) => tracing::warn!("the graph does not show the call yet"),
        }
        Ok(outcome)
    }
}

fn result(outcome: CallOutcome) -> ActionResult {
    ActionResult { transaction: outcome.transaction, ..ActionResult::default() }
}

fn amount(error: AmountError) -> ClientError {
    ClientError::new(ErrorCode::Usage, error.to_string(), "use a smaller amount")
}

fn no_channel(channel: ChannelId) -> ClientError {
    ClientError::new(ErrorCode::NotFound, format!("there is no channel {channel}"), "see `por channel list`")
}
