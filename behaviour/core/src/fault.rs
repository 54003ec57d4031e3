//! A peer's breach of the protocol.

/// What a peer did wrong; its connections are closed and the application is told. Everything that
/// was admitted before stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub String);

impl Fault {
    pub fn new(reason: impl Into<String>) -> Fault {
        Fault(reason.into())
    }
}
