//! Whether a call has had its effect, by what the contract shows. For transactions whose outcome
//! no endpoint remembers any more.

use por_types::interface::{AccountArgs, ChannelStatus, ChannelView, NodeView, method};
use por_types::{ChannelId, Side};

use super::super::call::Call;
use super::super::error::ChainError;
use super::super::intent::IntentRecord;
use super::Sender;

/// What the contract shows of a call.
pub(super) enum Effect {
    There,
    /// It is not there, or repeating the call does no harm.
    Missing,
    /// The contract's state cannot tell; repeating could pay twice.
    Unknown,
}

impl Sender {
    pub(super) async fn effect(&self, record: &IntentRecord) -> Effect {
        match self.look_for(&record.intent.call).await {
            Ok(effect) => effect,
            Err(error) => {
                tracing::warn!(%error, "the effect of a call cannot be looked for");
                Effect::Unknown
            }
        }
    }

    async fn look_for(&self, call: &Call) -> Result<Effect, ChainError> {
        Ok(match call {
            Call::Register { args, .. } => {
                there(self.own_node().await?.is_some_and(|node| node.node_key == args.node_key))
            }
            Call::Unregister => there(self.own_node().await?.is_none()),
            Call::Ping(_) => there(self.own_node().await?.is_some_and(|node| node.attached)),
            Call::ConfirmChannel { args, .. } => {
                let view = self.channel(args.channel).await?;
                there(!matches!(view.map(|view| view.status), Some(ChannelStatus::Proposed)))
            }
            Call::CancelProposal(args) => {
                let view = self.channel(args.channel).await?;
                there(!matches!(view.map(|view| view.status), Some(ChannelStatus::Proposed)))
            }
            Call::RequestClose(args) | Call::ConfirmClose(args) => {
                let view = self.channel(args.channel).await?;
                there(!matches!(view.map(|view| view.status), Some(ChannelStatus::Open)))
            }
            Call::SubmitState(args) => {
                let statement = &args.state.statement;
                let claimed = statement.totals.sent_by(args.signer);
                let view = self.channel(statement.channel).await?;
                there(view.is_none_or(|view| proven(&view, args.signer) >= claimed.0))
            }
            Call::Sever { args, .. } => {
                let view = self.channel(args.order.statement.channel).await?;
                there(view.is_none_or(|view| severed(&view.status)))
            }
            // One act per sequence: a later one means that this one cannot be repeated either.
            Call::Draw(args) => {
                let view = self.channel(args.draw.channel).await?;
                there(view.is_none_or(|view| view.sequence >= args.draw.sequence))
            }
            Call::ReplaceTerms(args) => {
                let view = self.channel(args.act.channel).await?;
                there(view.is_none_or(|view| view.sequence >= args.act.sequence))
            }
            Call::SetParams(args) => {
                let config = self.reader.config().await?;
                let next = config.next_params.map(|next| next.params);
                there(next.unwrap_or(config.params) == args.params)
            }
            Call::SetOwner(args) => there(self.reader.config().await?.owner == args.account),
            Call::SetTreasury(args) => there(self.reader.config().await?.treasury == args.account),
            Call::AnnounceUpgrade(args) => {
                let next = self.reader.config().await?.next_code;
                there(next.is_some_and(|next| next.code_hash == args.code_hash))
            }
            Call::CancelUpgrade => there(self.reader.config().await?.next_code.is_none()),
            // The contract refuses to do these twice, or twice is once.
            Call::CloseSigned(_)
            | Call::Finalize { .. }
            | Call::ForgetChannel(_)
            | Call::Check(_)
            | Call::Migrate(_) => Effect::Missing,
            Call::Stake { .. }
            | Call::Unstake(_)
            | Call::ProposeChannel { .. }
            | Call::TopUp { .. }
            | Call::Withdraw(_) => Effect::Unknown,
        })
    }

    async fn own_node(&self) -> Result<Option<NodeView>, ChainError> {
        let account = self.reader.account.clone();
        self.reader.view(method::NODE, &AccountArgs { account }).await
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelView>, ChainError> {
        self.reader.channel(channel).await
    }
}

fn there(yes: bool) -> Effect {
    if yes { Effect::There } else { Effect::Missing }
}

/// A close that is only announced can still be severed, and so can the bonds of a paid out one.
fn severed(status: &ChannelStatus) -> bool {
    match status {
        ChannelStatus::Severed { .. } | ChannelStatus::Cancelled => true,
        ChannelStatus::Closed { severed, bonds_until_ms, .. } => *severed || bonds_until_ms.is_none(),
        ChannelStatus::Proposed | ChannelStatus::Open | ChannelStatus::Closing { .. } => false,
    }
}

fn proven(view: &ChannelView, side: Side) -> u128 {
    view.totals.sent_by(side).0
}
