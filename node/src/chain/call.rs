//! The calls a node makes, with what each attaches.

use por_types::interface::{
    AccountArgs, AnnounceUpgradeArgs, CALL_GAS, CHECK_GAS, ChannelArgs, CheckArgs, CloseArgs,
    CloseSignedArgs, ConfirmChannelArgs, DrawArgs, FinalizeArgs, MigrateArgs, PingArgs, ProposeChannelArgs,
    RegisterArgs, ReplaceTermsArgs, SetParamsArgs, SeverArgs, SubmitStateArgs, UnstakeArgs, WithdrawArgs,
    method,
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
    /// `attached`: [`por_types::interface::ConfigView::check_deposit`], for a partition check
    /// that does not finish in the call; what is not used becomes withdrawable.
    Sever {
        #[serde(flatten)]
        args: SeverArgs,
        #[serde(default)]
        attached: Yocto,
    },
    /// `attached`: as with `Sever` while the channel is closing, else nothing.
    Finalize {
        #[serde(flatten)]
        args: FinalizeArgs,
        #[serde(default)]
        attached: Yocto,
    },
    ForgetChannel(ChannelArgs),
    Withdraw(WithdrawArgs),
    Ping(PingArgs),
    Check(CheckArgs),
    Draw(DrawArgs),
    ReplaceTerms(ReplaceTermsArgs),
    Unregister,
    SetParams(SetParamsArgs),
    SetOwner(AccountArgs),
    SetTreasury(AccountArgs),
    AnnounceUpgrade(AnnounceUpgradeArgs),
    CancelUpgrade,
    Migrate(MigrateArgs),
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
            Call::Sever { .. } => method::SEVER,
            Call::Finalize { .. } => method::FINALIZE,
            Call::ForgetChannel(_) => method::FORGET_CHANNEL,
            Call::Withdraw(_) => method::WITHDRAW,
            Call::Ping(_) => method::PING,
            Call::Check(_) => method::CHECK,
            Call::Draw(_) => method::DRAW,
            Call::ReplaceTerms(_) => method::REPLACE_TERMS,
            Call::Unregister => method::UNREGISTER,
            Call::SetParams(_) => method::SET_PARAMS,
            Call::SetOwner(_) => method::SET_OWNER,
            Call::SetTreasury(_) => method::SET_TREASURY,
            Call::AnnounceUpgrade(_) => method::ANNOUNCE_UPGRADE,
            Call::CancelUpgrade => method::CANCEL_UPGRADE,
            Call::Migrate(_) => method::MIGRATE,
        }
    }

    /// What the transaction transfers to the contract.
    pub const fn attached(&self) -> Yocto {
        match self {
            Call::Register { attached, .. }
            | Call::ProposeChannel { attached, .. }
            | Call::ConfirmChannel { attached, .. }
            | Call::Sever { attached, .. }
            | Call::Finalize { attached, .. } => *attached,
            Call::Stake { amount } | Call::TopUp { amount, .. } => *amount,
            _ => Yocto::ZERO,
        }
    }

    /// Gas to attach; what is not burnt is refunded.
    pub const fn gas(&self) -> u64 {
        match self {
            Call::Sever { .. } | Call::Finalize { .. } | Call::Check(_) | Call::Migrate(_) => CHECK_GAS,
            _ => CALL_GAS,
        }
    }

    /// Arguments as the contract reads them.
    pub fn args(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Call::Register { args, .. } => serde_json::to_vec(args),
            Call::Stake { .. } | Call::Unregister | Call::CancelUpgrade => Ok(b"{}".to_vec()),
            Call::Unstake(args) => serde_json::to_vec(args),
            Call::ProposeChannel { args, .. } => serde_json::to_vec(args),
            Call::ConfirmChannel { args, .. } => serde_json::to_vec(args),
            Call::TopUp { channel, .. } => serde_json::to_vec(&ChannelArgs { channel: *channel }),
            Call::RequestClose(args) | Call::ConfirmClose(args) => serde_json::to_vec(args),
            Call::CloseSigned(args) => serde_json::to_vec(args),
            Call::SubmitState(args) => serde_json::to_vec(args),
            Call::Sever { args, .. } => serde_json::to_vec(args),
            Call::Finalize { args, .. } => serde_json::to_vec(args),
            Call::CancelProposal(args) | Call::ForgetChannel(args) => serde_json::to_vec(args),
            Call::Withdraw(args) => serde_json::to_vec(args),
            Call::Ping(args) => serde_json::to_vec(args),
            Call::Check(args) => serde_json::to_vec(args),
            Call::Draw(args) => serde_json::to_vec(args),
            Call::ReplaceTerms(args) => serde_json::to_vec(args),
            Call::SetParams(args) => serde_json::to_vec(args),
            Call::SetOwner(args) | Call::SetTreasury(args) => serde_json::to_vec(args),
            Call::AnnounceUpgrade(args) => serde_json::to_vec(args),
            Call::Migrate(args) => serde_json::to_vec(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_an_earlier_version_stored_is_still_read() {
        let stored = r#"{"call":"finalize","with":{"channel":7}}"#;
        let call: Call = serde_json::from_str(stored).expect("reads");
        let args = FinalizeArgs { channel: ChannelId(7), witness: None };
        assert_eq!(call, Call::Finalize { args, attached: Yocto::ZERO });
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let args = FinalizeArgs { channel: ChannelId(u64::MAX), witness: Some(Default::default()) };
        let through: por_types::AccountId = "alice.near".parse().expect("account");
        let secret = por_types::NodeSecret::from_seed(&[7; 32]);
        let network = por_types::Network { chain_id: "testnet".to_owned(), contract: through.clone() };
        let order = por_types::SeverOrder {
            channel: ChannelId(u64::MAX),
            signer: secret.public(),
            reason: por_types::SeverReason::MissedSync,
            request: Some(por_types::RequestId([9; 32])),
        };
        let sever = SeverArgs { order: secret.sign(&network, order), witness: None };
        let draw = por_types::Draw {
            channel: ChannelId(1),
            sequence: 2,
            expires_ms: 3,
            totals: por_types::Totals::default(),
            draw_a: Yocto(u128::MAX),
            draw_b: Yocto::ZERO,
        };
        let signature = secret.sign(&network, draw.clone()).signature;
        let calls = [
            Call::Sever { args: sever, attached: Yocto::near(1) },
            Call::Draw(DrawArgs { draw, signature_a: signature, signature_b: signature }),
            Call::Finalize { args, attached: Yocto::near(1_000_000) },
            Call::Ping(PingArgs { through }),
            Call::Check(CheckArgs::default()),
            Call::Unregister,
            Call::CancelUpgrade,
        ];
        for call in calls {
            let text = serde_json::to_string(&call).expect("writes");
            assert_eq!(serde_json::from_str::<Call>(&text).expect("reads"), call, "{text}");
            assert_eq!(call.args().expect("args").first(), Some(&b'{'));
        }
    }
}
