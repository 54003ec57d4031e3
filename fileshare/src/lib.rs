//! File sharing over Proof of Response: put, get and the demo
