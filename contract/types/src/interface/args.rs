//! Arguments of the methods, and what the caller attaches.

use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use super::Params;
#[cfg(doc)]
use super::{ConfigView, MAX_PAGE, method};
use crate::{
    ChannelId, ChannelState, CooperativeClose, Draw, Hash, NewTerms, NodeKey, SeverOrder, Side, Signature,
    Signed, Terms, Totals, Yocto,
};

/// Arguments of [`method::NEW`]. No deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewArgs {
    pub chain_id: String,
    /// May set parameters with notice; cannot touch user funds.
    pub owner: AccountId,
    pub treasury: AccountId,
    pub params: Params,
    /// The node that this account registers is the genesis anchor, which always counts as
    /// attached (protocol section 7). `None`: the owner.
    #[serde(default)]
    pub anchor: Option<AccountId>,
    /// Lifts the hard bounds on parameters. Nodes refuse such a contract outside localnet.
    #[serde(default)]
    pub test: bool,
}

/// Arguments of [`method::REGISTER`]. Attached deposit: storage, the rest becomes stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterArgs {
    pub node_key: NodeKey,
    /// `node_key`'s signature of [`crate::RegistrationProof`].
    pub proof: Signature,
}

/// Arguments of [`method::UNSTAKE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnstakeArgs {
    pub amount: Yocto,
}

/// Arguments of [`method::PROPOSE_CHANNEL`]. Attached: at least `deposit`, the bond (half of
/// [`Params::sever_penalty`]) and [`ConfigView::channel_storage`]. What is attached above that
/// becomes withdrawable. Locks half a penalty of the proposer's stake. Returns the
/// [`ChannelId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeChannelArgs {
    pub counterparty: AccountId,
    pub terms: Terms,
    /// The proposer's deposit.
    pub deposit: Yocto,
}

/// Arguments of [`method::CONFIRM_CHANNEL`]. Attached: at least `deposit` and the bond (half of
/// [`Params::sever_penalty`]); the rest becomes withdrawable. Locks half a penalty of the
/// confirmer's stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmChannelArgs {
    pub channel: ChannelId,
    /// The terms that the confirmer read; must equal the proposal's.
    pub terms: Terms,
    pub deposit: Yocto,
}

/// Arguments of calls that name only a channel.
///
/// - [`method::CANCEL_PROPOSAL`]: by the proposer; deposit and bond become withdrawable.
/// - [`method::TOP_UP`]: by either side; everything attached is added to its deposit.
/// - [`method::FORGET_CHANNEL`]: by anyone, once nothing is left to finalize. Removes the
///   record; its storage deposit becomes withdrawable for the proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelArgs {
    pub channel: ChannelId,
}

/// Arguments of [`method::REQUEST_CLOSE`] and [`method::CONFIRM_CLOSE`]: the totals that the
/// caller states. A confirmation must state the request's totals. Until it is confirmed, a
/// request binds nobody: the channel stays in the graph and either side may replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseArgs {
    pub channel: ChannelId,
    pub totals: Totals,
}

/// Arguments of [`method::CLOSE_SIGNED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseSignedArgs {
    pub close: CooperativeClose,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::SUBMIT_STATE`]: evidence during a notice or challenge window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitStateArgs {
    pub state: Signed<ChannelState>,
    /// Whose signature it is; that side's own total is what it proves.
    pub signer: Side,
}

/// What makes a partition check cheaper. A wrong or stale witness costs gas and changes
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Indices of nodes from one end of the channel to the other, each linked to the next: the
    /// ends are still connected.
    #[serde(default)]
    pub path: Vec<u32>,
    /// The side that is cut off: it is searched alone.
    #[serde(default)]
    pub closed: Option<Side>,
}

/// Arguments of [`method::SEVER`]. By anyone. The edge leaves the graph in this call and its
/// partition check begins. Attach [`ConfigView::check_deposit`]: needed if the check does not
/// finish in this call, the unused rest becomes withdrawable for the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverArgs {
    pub order: Signed<SeverOrder>,
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::FINALIZE`]. By anyone. The next step that time allows:
///
/// - a closing channel past its notice is paid out, becomes `Closed`, and its edge leaves the
///   graph with a partition check; deposit as with [`method::SEVER`]. Refused while too many
///   checks are pending;
/// - a severed one past its challenge window is paid out and becomes `Closed`;
/// - a `Closed` one past `bonds_until_ms` has its bonds returned (or, if they were forfeited,
///   given to the treasury) and its stake unlocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizeArgs {
    pub channel: ChannelId,
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::CHECK`]: continues pending partition checks, and what waits behind
/// them, as far as the gas lasts. By anyone; the caller is paid for its gas out of the
/// closers' deposits, as far as these last. `witness` is about the check at the head of the
/// queue. Returns how many checks are still pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckArgs {
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::PING`]: the caller's node becomes attached if it has an open channel
/// to the attached node of `through` (protocol section 7). While checks are pending it is
/// recorded and judged after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingArgs {
    pub through: AccountId,
}

/// Arguments of [`method::DRAW`]: by anyone who holds both signatures, on a channel that is
/// open. Each side's draw becomes withdrawable; the totals become floors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawArgs {
    pub draw: Draw,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::REPLACE_TERMS`]: as [`DrawArgs`], for new terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceTermsArgs {
    pub act: NewTerms,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::SET_PARAMS`]. By the owner. In force after a notice of
/// [`ConfigView::governance_notice_ms`]; replaces a change that is still waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetParamsArgs {
    pub params: Params,
}

/// Arguments of [`method::ANNOUNCE_UPGRADE`]. By the owner. After the notice anyone may call
/// [`method::UPGRADE`] with the code itself as input; it is deployed and migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceUpgradeArgs {
    /// SHA-256 of the code.
    pub code_hash: Hash,
}

/// Arguments of [`method::MIGRATE`], which is open to the contract's own account only when it
/// has to take over a state of another version, and then to anyone until it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateArgs {
    /// Most channels to convert in this call; `None`: as many as the gas allows.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Arguments of [`method::WITHDRAW`]: `None` takes everything withdrawable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawArgs {
    #[serde(default)]
    pub amount: Option<Yocto>,
}

/// Arguments of [`method::NODE`], [`method::WITHDRAWABLE`], [`method::ATTACHMENT`],
/// [`method::SET_OWNER`] and [`method::SET_TREASURY`] (the last two by the owner).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountArgs {
    pub account: AccountId,
}

/// Arguments of [`method::DOWNTIME`]: block times, milliseconds, `from_ms <= to_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowntimeArgs {
    pub account: AccountId,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// Arguments of [`method::NODE_BY_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyArgs {
    pub node_key: NodeKey,
}

/// Page of a list view: the records with index or channel id `from..from + limit` that exist.
/// The last index is in [`ConfigView`]; forgotten channels leave gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageArgs {
    pub from: u64,
    /// At most [`MAX_PAGE`].
    pub limit: u32,
}

/// Arguments of [`method::NEIGHBOURS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighboursArgs {
    /// Index of the node whose neighbours are asked for.
    pub index: u32,
    /// Smallest neighbour index to answer.
    pub from: u32,
    /// At most [`MAX_PAGE`].
    pub limit: u32,
}

/// Arguments of [`method::CHANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesArgs {
    /// Version that the caller already has.
    pub since: u64,
    pub limit: u32,
}
