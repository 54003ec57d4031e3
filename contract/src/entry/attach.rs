//! Attachment: a node joins the main component (protocol section 7).

use near_sdk::near;
use por_types::interface::{AttachedEvent, Event, PingArgs, code};

use super::caller;
use crate::answers::emit;
use crate::args::args;
use crate::fail::{fail, require};
use crate::flow::Op;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Attaches the caller's node through an attached neighbour; while checks are pending the
    /// ping is recorded and judged after them.
    pub fn ping(&mut self) {
        let PingArgs { through } = args();
        let account = caller();
        let node = Self::caller_index(&account);
        let Some(through) = Self::node_index(&through) else {
            fail!(code::NOT_REGISTERED, "{through} has no node; name a neighbour");
        };
        let idle = self.flow.is_idle();
        let record = Self::load_node(node);
        let waits = record.later.pinging || (idle && record.attached_since_ms.is_some());
        require!(!waits, code::ATTACHED, "your node is attached, or a ping of it waits to be judged");
        self.submit(Op::Ping { node, through });
        if idle {
            emit(&Event::Attached(vec![AttachedEvent { account, attached: true }]));
        }
    }
}
