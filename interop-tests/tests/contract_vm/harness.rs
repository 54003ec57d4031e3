//! The VM that all these tests share, see `por-contract-model`.

pub use por_contract_model::vm::*;
