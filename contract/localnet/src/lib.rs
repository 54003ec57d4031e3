//! A NEAR chain in one process, running real wasm in NEAR's own VM and serving NEAR's JSON-RPC
