//! The statements of Proof of Response and the contract's interface.
//!
//! Everything that is signed, hashed or passed to the contract is defined here once,
//! for the contract (wasm), the protocol core, nodes and tools alike. The crate has no
//! network, no clock and, unless the feature `dalek` is on, no signature code: the
//! contract injects the VM's own check through [`Verify`].
//!
//! Byte formats are borsh (little endian, length-prefixed by `u32`) and are fixed by
//! golden vectors in `vectors/`, which an implementation in another language can check
//! itself against.

mod amount;
mod bounds;
mod channel;
mod closing;
#[cfg(feature = "dalek")]
mod dalek;
mod ids;
pub mod interface;
mod merkle;
mod network;
mod receipt;
mod request;
mod route;
mod settle;
mod sign;
mod terms;

pub use amount::{AmountError, Yocto};
pub use channel::{ChannelState, Item, ItemKind, Items, Side, Totals};
pub use closing::{CooperativeClose, Draw, NewTerms, SeverOrder, SeverReason};
#[cfg(feature = "dalek")]
pub use dalek::{DalekVerify, NodeSecret};
pub use ids::{ChannelId, Hash, IdError, NodeKey, RequestId, Signature};
pub use merkle::{FlushOf, FlushProof, FlushRoot, FlushTree, MAX_FLUSH_DEPTH, leaf_hash};
pub use near_account_id::AccountId;
pub use network::{MAX_CHAIN_ID_LEN, Network};
pub use receipt::{ReceiptError, SignedReceipt};
pub use request::{
    Invalid, InvalidReason, MAX_APP_LEN, RegistrationProof, RequestHead, ResponseReceipt, SignedInvalid,
    SignedRequest,
};
pub use route::{Hop, MAX_HOPS, RouteError};
pub use settle::{Funds, Payout};
pub use sign::{Purpose, Signed, Statement, Verify, sha256};
pub use terms::{EdgeQuote, Terms, TermsError};

/// The contract that [`interface`] describes, as built by `contract/build/build.sh`.
#[cfg(feature = "wasm")]
pub const CONTRACT_WASM: &[u8] = include_bytes!("../../res/por_contract.wasm");
