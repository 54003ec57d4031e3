//! Proof of Response: the protocol as a state machine without I/O
