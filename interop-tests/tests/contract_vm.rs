//! The contract's wasm in NEAR's own VM: its whole life, every check it makes, and random
//! sequences of calls. The harness asserts after every call that no yocto appears or vanishes
//! and that storage is paid for.

#[path = "contract_vm/acts.rs"]
mod acts;
#[path = "contract_vm/governance.rs"]
mod governance;
#[path = "contract_vm/harness.rs"]
mod harness;
#[path = "contract_vm/hostile.rs"]
mod hostile;
#[path = "contract_vm/indices.rs"]
mod indices;
#[path = "contract_vm/life.rs"]
mod life;
#[path = "contract_vm/limits.rs"]
mod limits;
#[path = "contract_vm/migration.rs"]
mod migration;
#[path = "contract_vm/penalties.rs"]
mod penalties;
#[path = "contract_vm/random.rs"]
mod random;
#[path = "contract_vm/threats.rs"]
mod threats;
