//! What a node decides by itself, where the protocol leaves it the choice.

use por_types::{NodeKey, Yocto};

use super::SignedReceipt;

/// How long a node waits for a late downstream node before it severs the edge (protocol
/// section 5), as long as that node is not in breach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Patience {
    /// Severs this long after its bound has passed, milliseconds.
    AfterMs(u64),
    /// Severs with this sync at which it has paid its own upstream node late.
    Syncs(u32),
    /// Passes late payments on for as long as the downstream node pays them.
    #[default]
    Never,
}

/// When a proof of a severed edge goes upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderPace {
    #[default]
    AtOnce,
    /// With the next sync of that edge.
    WithSync,
}

/// What a node spends on a silent neighbour whose edge it has severed: it asks for the missing answer
/// over other routes, so that others find it silent too (protocol section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pursue {
    /// Most that may be away for such requests begun within the window; refunds count back.
    pub budget: Yocto,
    /// Most requests for one severed edge.
    pub max_requests: u32,
    /// A pursuit ends after this long, milliseconds.
    pub window_ms: u64,
}

/// How a pursuit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PursuitEnd {
    /// The node has answered over another route; `held`: with the missing answer.
    Answered { held: bool },
    /// No edge of the node is left in the graph.
    Isolated,
    /// Budget or requests are spent.
    Spent,
    /// The window has passed.
    TimedOut,
}

/// App that every node serves by itself, for the prices of the edges alone: the body is a request id
/// of 32 bytes, the response a [`HeldAnswer`] in borsh.
pub const ANSWER_APP: &str = "por/answer/1";

/// Response limit for [`ANSWER_APP`], bytes.
pub const ANSWER_LIMIT: u64 = 20 << 10;

/// What a node has of a request that has passed it.
#[derive(Clone, Debug, PartialEq, Eq, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum HeldAnswer {
    /// Nothing, or nothing any more.
    Unknown,
    /// The request, and no answer yet.
    Working,
    /// The answer; the body where it is small.
    Held { receipt: SignedReceipt, body: Option<Vec<u8>> },
}

/// What a node does where the protocol leaves it the choice (protocol sections 5 and 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub patience: Patience,
    pub orders: OrderPace,
    /// Severs at once where the other end is in breach: no Ack, a missing sync, unpaid lateness.
    pub act_on_breach: bool,
    /// Lateness that is tolerated before it counts as unpaid, milliseconds: clocks and loads jitter.
    pub margin_ms: u64,
    /// An edge that loses more than this within the window is severed; `None` for no such limit.
    pub loss_limit: Option<Yocto>,
    pub loss_window_ms: u64,
    /// Most peers whose edges are severed by own decision within the window: when many look late at
    /// once, the fault is more likely here.
    pub max_severs: u32,
    pub sever_window_ms: u64,
    /// Off if `None`.
    pub pursuit: Option<Pursue>,
    /// When syncs with a peer fall, milliseconds modulo the heartbeat; else a phase of the edge's own.
    pub phases: std::collections::BTreeMap<NodeKey, u64>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            patience: Patience::Never,
            orders: OrderPace::AtOnce,
            act_on_breach: true,
            margin_ms: 1_000,
            loss_limit: None,
            loss_window_ms: 600_000,
            max_severs: 4,
            sever_window_ms: 60_000,
            pursuit: None,
            phases: Default::default(),
        }
    }
}
