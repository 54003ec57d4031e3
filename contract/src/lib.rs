//! Proof of Response: the NEAR contract that holds the channels
