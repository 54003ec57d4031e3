//! A bounty for a response: an example of a contract on top of Proof of Response.
//!
//! A client offers a reward for the response to a request, named by its id, from a server,
//! named by account and node key. The server accepts with collateral. Then, within the time
//! for an answer, one of three things ends it:
//!
//! - **Answered**: anybody shows the response's receipt, signed by the server's node (and the
//!   body, if the client asked for that): reward and collateral go to the server.
//! - **Isolated**: the Proof of Response contract says that the server's node was cut off from
//!   the main component after it had accepted: reward and collateral go to the client. A
//!   severed edge alone is no ground for this: an author could sever an edge of its own
//!   puppet (protocol section 7).
//! - **Expired**: neither, by the deadline: everybody gets their own back.
//!
//! Every stage has an exit that does not need the other side: `cancel` (offered, being
//! checked), `release` (being checked, for too long), `settle` (active), `collect` (done). All
//! money leaves through `collect`, which anybody may call, and a payment that cannot be
//! delivered is owed again.
//!
//! The contract trusts the Proof of Response contract that it was set up with, and nobody else;
//! it has no owner.

pub mod bounty;
mod entry;
pub mod interface;

use near_sdk::{PanicOnDefault, near};
use por_types::{AccountId, Network, Yocto};

/// Root state.
#[near(contract_state)]
#[derive(PanicOnDefault)]
pub struct BountyContract {
    /// The network that receipts are signed for; its contract is the one that is asked.
    network: Network,
    /// Bounties ever opened; the next number.
    bounties: u64,
    /// All that bounties hold and that is not being paid out.
    held: Yocto,
}

fn account(name: &near_sdk::AccountIdRef) -> AccountId {
    match name.as_str().parse() {
        Ok(account) => account,
        // The chain's own names are valid in every version of the type.
        Err(_) => near_sdk::env::panic_str("E_ARGUMENT: not an account"),
    }
}
