//! Whether a call has had its effect, by what the contract shows. For transactions whose outcome
//! no endpoint remembers any more.

use por_types::interface::{AccountArgs, ChannelArgs, ChannelStatus, ChannelView, NodeView, method};
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
                let account = self.reader.account.clone();
                let node: Option<NodeView> = self.reader.view(method::NODE, &AccountArgs { account }).await?;
                there(node.is_some_and(|node| node.node_key == args.node_key))
            }
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
            Call::Sever(args) => {
                let view = self.channel(args.order.statement.channel).await?;
                there(view.is_none_or(|view| !matches!(view.status, ChannelStatus::Open)))
            }
            // The contract refuses to do these twice.
            Call::CloseSigned(_) | Call::Finalize(_) | Call::ForgetChannel(_) | Call::Ping => Effect::Missing,
            Call::Stake { .. }
            | Call::Unstake(_)
            | Call::ProposeChannel { .. }
            | Call::TopUp { .. }
            | Call::Withdraw(_) => Effect::Unknown,
        })
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelView>, ChainError> {
        self.reader.view(method::CHANNEL, &ChannelArgs { channel }).await
    }
}

fn there(yes: bool) -> Effect {
    if yes { Effect::There } else { Effect::Missing }
}

fn proven(view: &ChannelView, side: Side) -> u128 {
    view.totals.sent_by(side).0
}
