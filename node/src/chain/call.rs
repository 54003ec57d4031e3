//! The calls a node makes, with what each attaches.

use por_types::interface::{
    CALL_GAS, ChannelArgs, CloseArgs, CloseSignedArgs, ConfirmChannelArgs, ProposeChannelArgs, RegisterArgs,
    SeverArgs, SubmitStateArgs, UnstakeArgs, WithdrawArgs, method,
};
use por_types::{AmountError, ChannelId, Yocto};
use serde::{Deserialize, Serialize};

/// A call of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", content = "with", rename_all = "snake_case")]
pub enum Call {
    /// `attached`: storage deposit and stake.
    Register {
        args: RegisterArgs,
        attached: Yocto,
    },
    Stake {
        amount: Yocto,
    },
    Unstake(UnstakeArgs),
    /// `attached`: deposit, bond and storage, see [`Call::propose`].
    ProposeChannel {
        args: ProposeChannelArgs,
        attached: Yocto,
    },
    /// `attached`: deposit and bond, see [`Call::confirm`].
    ConfirmChannel {
        args: ConfirmChannelArgs,
        attached: Yocto,
    },
    CancelProposal(ChannelArgs),
    TopUp {
        channel: ChannelId,
        amount: Yocto,
    },
    RequestClose(CloseArgs),
    ConfirmClose(CloseArgs),
    CloseSigned(CloseSignedArgs),
    SubmitState(SubmitStateArgs),
    Sever(SeverArgs),
    Finalize(ChannelArgs),
    ForgetChannel(ChannelArgs),
    Withdraw(WithdrawArgs),
    Ping,
}

impl Call {
    /// A proposal with everything it needs attached.
    pub fn propose(args: ProposeChannelArgs, bond: Yocto, storage: Yocto) -> Result<Call, AmountError> {
        let attached = Yocto::checked_sum([args.deposit, bond, storage])?;
        Ok(Call::ProposeChannel { args, attached })
    }

    /// A confirmation with everything it needs attached; `bond` is the proposal's.
    pub fn confirm(args: ConfirmChannelArgs, bond: Yocto) -> Result<Call, AmountError> {
        let attached = args.deposit.checked_add(bond)?;
        Ok(Call::ConfirmChannel { args, attached })
    }

    /// Name of the contract's method.
    pub const fn method(&self) -> &'static str {
        match self {
            Call::Register { .. } => method::REGISTER,
            Call::Stake { .. } => method::STAKE,
            Call::Unstake(_) => method::UNSTAKE,
            Call::ProposeChannel { .. } => method::PROPOSE_CHANNEL,
            Call::ConfirmChannel { .. } => method::CONFIRM_CHANNEL,
            Call::CancelProposal(_) => method::CANCEL_PROPOSAL,
            Call::TopUp { .. } => method::TOP_UP,
            Call::RequestClose(_) => method::REQUEST_CLOSE,
            Call::ConfirmClose(_) => method::CONFIRM_CLOSE,
            Call::CloseSigned(_) => method::CLOSE_SIGNED,
            Call::SubmitState(_) => method::SUBMIT_STATE,
            Call::Sever(_) => method::SEVER,
            Call::Finalize(_) => method::FINALIZE,
            Call::ForgetChannel(_) => method::FORGET_CHANNEL,
            Call::Withdraw(_) => method::WITHDRAW,
            Call::Ping => method::PING,
        }
    }

    /// What the transaction transfers to the contract.
    pub const fn attached(&self) -> Yocto {
        match self {
            Call::Register { attached, .. }
            | Call::ProposeChannel { attached, .. }
            | Call::ConfirmChannel { attached, .. } => *attached,
            Call::Stake { amount } | Call::TopUp { amount, .. } => *amount,
            _ => Yocto::ZERO,
        }
    }

    /// Gas to attach; what is not burnt is refunded.
    pub const fn gas(&self) -> u64 {
        CALL_GAS
    }

    /// Arguments as the contract reads them.
    pub fn args(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Call::Register { args, .. } => serde_json::to_vec(args),
            Call::Stake { .. } | Call::Ping => Ok(b"{}".to_vec()),
            Call::Unstake(args) => serde_json::to_vec(args),
            Call::ProposeChannel { args, .. } => serde_json::to_vec(args),
            Call::ConfirmChannel { args, .. } => serde_json::to_vec(args),
            Call::TopUp { channel, .. } => serde_json::to_vec(&ChannelArgs { channel: *channel }),
            Call::RequestClose(args) | Call::ConfirmClose(args) => serde_json::to_vec(args),
            Call::CloseSigned(args) => serde_json::to_vec(args),
            Call::SubmitState(args) => serde_json::to_vec(args),
            Call::Sever(args) => serde_json::to_vec(args),
            Call::CancelProposal(args) | Call::Finalize(args) | Call::ForgetChannel(args) => {
                serde_json::to_vec(args)
            }
            Call::Withdraw(args) => serde_json::to_vec(args),
        }
    }
}
