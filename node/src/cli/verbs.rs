//! Verbs that ask the running daemon.

use por_types::interface::ChannelStatus;
use por_types::{Terms, Yocto};

use super::args::ChannelAction;
use super::{Context, tables};
use crate::client::ChannelInfo;
use crate::config::CONFIRM_DEPOSIT;
use crate::exit::{CliError, tell};

pub(super) async fn register(context: &Context, stake: Yocto) -> Result<(), CliError> {
    let client = context.client()?;
    let result = client.register(stake).await?;
    if result.transaction.is_some() || context.output.json {
        return context.output.print(&result, tables::action);
    }
    // Nothing was to be done; what was asked for on top must not be taken for done.
    let now = client.status().await?.stake;
    tell(format_args!("this node is registered already, with a stake of {}", now.to_near_string()));
    if !stake.is_zero() && stake != now {
        tell("`por stake AMOUNT` adds to it");
    }
    Ok(())
}

pub(super) async fn stake(context: &Context, amount: Yocto) -> Result<(), CliError> {
    let result = context.client()?.stake(amount).await?;
    context.output.print(&result, tables::action)
}

pub(super) async fn unstake(context: &Context, amount: Yocto) -> Result<(), CliError> {
    let result = context.client()?.unstake(amount).await?;
    context.output.print(&result, tables::action)
}

pub(super) async fn withdraw(context: &Context, amount: Option<Yocto>) -> Result<(), CliError> {
    let result = context.client()?.withdraw(amount).await?;
    if result.transaction.is_none() {
        tell(
            "nothing can be withdrawn yet: channels pay out when their close takes effect, bonds and \
             what was unstaked come back a while later (`por channel list`, `por status`)",
        );
    }
    context.output.print(&result, tables::action)
}

pub(super) async fn status(context: &Context) -> Result<(), CliError> {
    let status = context.client()?.status().await?;
    context.output.print(&status, tables::status)
}

pub(super) async fn peers(context: &Context) -> Result<(), CliError> {
    let peers = context.client()?.peers().await?;
    context.output.print(&peers, |peers| tables::peers(peers))
}

pub(super) async fn channel(context: &Context, action: ChannelAction) -> Result<(), CliError> {
    let terms = match &action {
        ChannelAction::Propose { .. } => "use values in range, see `por channel propose --help`",
        _ => "",
    };
    let client = context.client()?;
    let result = match action {
        ChannelAction::List => {
            let channels = client.channels().await?;
            return context.output.print(&channels, |channels| tables::channels(channels));
        }
        ChannelAction::Propose { account, deposit, terms: args } => {
            let proposal = Terms::from(args);
            proposal.validate().map_err(|error| CliError::usage(error.to_string(), terms))?;
            client.propose_channel(&account, deposit, proposal).await?
        }
        ChannelAction::Cancel { channel } => client.cancel_channel(channel).await?,
        ChannelAction::Confirm { channel, deposit } => {
            client.confirm_channel(channel, deposit.unwrap_or(CONFIRM_DEPOSIT), None).await?
        }
        ChannelAction::TopUp { channel, amount } => client.top_up_channel(channel, amount).await?,
        ChannelAction::Close { channel } => client.close_channel(channel).await?,
        ChannelAction::Sever { channel, yes } => {
            let mine = client.channels().await?.into_iter().find(|info| info.channel == channel);
            let in_use = |info: &ChannelInfo| {
                matches!(info.status, ChannelStatus::Open | ChannelStatus::Closing { .. })
            };
            if let Some(info) = mine.filter(in_use).filter(|_| !yes) {
                let what =
                    format!("severing channel {channel} costs its bond, {}", info.bond.to_near_string());
                let fix = "`por channel close` costs nothing, with the other side there; else add --yes";
                return Err(CliError::usage(what, fix));
            }
            client.sever_channel(channel).await?
        }
    };
    context.output.print(&result, tables::action)
}
