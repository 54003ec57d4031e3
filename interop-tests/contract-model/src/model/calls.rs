//! The calls of the interface.

use por_types::interface::*;

/// Instead of a code: near-sdk's own refusal of a deposit.
pub const NO_DEPOSIT: &str = "no deposit";

/// A call of the interface.
#[derive(Clone, Debug)]
pub enum Call {
    Register(RegisterArgs),
    Stake,
    Unstake(UnstakeArgs),
    Propose(ProposeChannelArgs),
    Confirm(ConfirmChannelArgs),
    Cancel(ChannelArgs),
    TopUp(ChannelArgs),
    RequestClose(CloseArgs),
    ConfirmClose(CloseArgs),
    CloseSigned(CloseSignedArgs),
    SubmitState(SubmitStateArgs),
    Sever(SeverArgs),
    Finalize(FinalizeArgs),
    Forget(ChannelArgs),
    Withdraw(WithdrawArgs),
    Unregister,
    Draw(DrawArgs),
    ReplaceTerms(ReplaceTermsArgs),
    Ping(PingArgs),
    Check(CheckArgs),
    SetParams(SetParamsArgs),
    SetOwner(AccountArgs),
    SetTreasury(AccountArgs),
    AnnounceUpgrade(AnnounceUpgradeArgs),
    CancelUpgrade,
}

impl Call {
    /// The method, and the arguments as JSON.
    pub fn encode(&self) -> (&'static str, Vec<u8>) {
        fn json(args: &impl serde::Serialize) -> Vec<u8> {
            serde_json::to_vec(args).expect("arguments are JSON")
        }
        let none = serde_json::json!({});
        match self {
            Call::Register(args) => (method::REGISTER, json(args)),
            Call::Stake => (method::STAKE, json(&none)),
            Call::Unstake(args) => (method::UNSTAKE, json(args)),
            Call::Propose(args) => (method::PROPOSE_CHANNEL, json(args)),
            Call::Confirm(args) => (method::CONFIRM_CHANNEL, json(args)),
            Call::Cancel(args) => (method::CANCEL_PROPOSAL, json(args)),
            Call::TopUp(args) => (method::TOP_UP, json(args)),
            Call::RequestClose(args) => (method::REQUEST_CLOSE, json(args)),
            Call::ConfirmClose(args) => (method::CONFIRM_CLOSE, json(args)),
            Call::CloseSigned(args) => (method::CLOSE_SIGNED, json(args)),
            Call::SubmitState(args) => (method::SUBMIT_STATE, json(args)),
            Call::Sever(args) => (method::SEVER, json(args)),
            Call::Finalize(args) => (method::FINALIZE, json(args)),
            Call::Forget(args) => (method::FORGET_CHANNEL, json(args)),
            Call::Withdraw(args) => (method::WITHDRAW, json(args)),
            Call::Unregister => (method::UNREGISTER, json(&none)),
            Call::Draw(args) => (method::DRAW, json(args)),
            Call::ReplaceTerms(args) => (method::REPLACE_TERMS, json(args)),
            Call::Ping(args) => (method::PING, json(args)),
            Call::Check(args) => (method::CHECK, json(args)),
            Call::SetParams(args) => (method::SET_PARAMS, json(args)),
            Call::SetOwner(args) => (method::SET_OWNER, json(args)),
            Call::SetTreasury(args) => (method::SET_TREASURY, json(args)),
            Call::AnnounceUpgrade(args) => (method::ANNOUNCE_UPGRADE, json(args)),
            Call::CancelUpgrade => (method::CANCEL_UPGRADE, json(&none)),
        }
    }
}
