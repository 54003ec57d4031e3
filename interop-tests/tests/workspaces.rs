//! The contract through near-workspaces: against the local chain's binary, or against the
//! node that `NEAR_SANDBOX_BIN_PATH` names. Nothing here rests on more than what a real
//! sandbox node does: times come from its blocks, gas rewards may flow to the contract, and
//! calls take the time they take.

#[path = "workspaces/channel.rs"]
mod channel;
#[path = "workspaces/governance.rs"]
mod governance;
#[path = "workspaces/hostile.rs"]
mod hostile;
#[path = "workspaces/life.rs"]
mod life;
#[path = "workspaces/net.rs"]
mod net;
#[path = "workspaces/partition.rs"]
mod partition;
#[path = "workspaces/random.rs"]
mod random;

const NEAR: u128 = por_types::Yocto::ONE_NEAR.0;
