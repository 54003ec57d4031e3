//! Proof of Response: ids, amounts, signed statements and contract interface
