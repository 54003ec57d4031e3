//! The state machine's door.

use std::collections::VecDeque;

use por_types::ChannelId;

use crate::api::{ChannelSnapshot, CoreConfig, Input, Output, RestoreError, Restored, Time};

/// A node: all its edges, exchanges and channels.
#[derive(Debug)]
pub struct Node {
    config: CoreConfig,
    outputs: VecDeque<Output>,
}

impl Node {
    /// Continues from the rows of the store; empty for a new node.
    pub fn new(config: CoreConfig, restored: Restored) -> Result<Node, RestoreError> {
        let _ = restored;
        Ok(Node { config, outputs: VecDeque::new() })
    }

    /// Takes one input. Only queues work; drain [`Node::poll`] after a batch of inputs.
    pub fn handle(&mut self, now: Time, input: Input) {
        let _ = (now, input, &self.config);
    }

    /// The next thing to carry out. The first call after inputs forms the flush.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send `Input::Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    pub fn channel(&self, id: ChannelId) -> Option<ChannelSnapshot> {
        let _ = id;
        None
    }

    pub fn channels(&self) -> Vec<ChannelSnapshot> {
        Vec::new()
    }
}
