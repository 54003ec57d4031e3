//! The VM's errors as NEAR records them on chain.

use near_primitives::errors::{CompilationError, FunctionCallError, MethodResolveError, PrepareError};
use near_primitives::types::AccountId;
use near_vm_runner::logic::errors as vm;

/// A contract's failure as it appears in outcomes and query errors.
pub(crate) fn call_error(error: vm::FunctionCallError, contract: &AccountId) -> FunctionCallError {
    match error {
        vm::FunctionCallError::CompilationError(error) => {
            FunctionCallError::CompilationError(compilation(error, contract))
        }
        vm::FunctionCallError::LinkError { msg } => {
            FunctionCallError::ExecutionError(format!("Link Error: {msg}"))
        }
        vm::FunctionCallError::MethodResolveError(error) => {
            FunctionCallError::MethodResolveError(match error {
                vm::MethodResolveError::MethodEmptyName => MethodResolveError::MethodEmptyName,
                vm::MethodResolveError::MethodNotFound => MethodResolveError::MethodNotFound,
                vm::MethodResolveError::MethodInvalidSignature => MethodResolveError::MethodInvalidSignature,
            })
        }
        other => FunctionCallError::ExecutionError(other.to_string()),
    }
}

/// The failure of a call to an account that has no contract.
pub(crate) fn no_contract(contract: &AccountId) -> FunctionCallError {
    FunctionCallError::CompilationError(CompilationError::CodeDoesNotExist { account_id: contract.clone() })
}

fn compilation(error: vm::CompilationError, contract: &AccountId) -> CompilationError {
    match error {
        vm::CompilationError::CodeDoesNotExist { .. } => {
            CompilationError::CodeDoesNotExist { account_id: contract.clone() }
        }
        vm::CompilationError::PrepareError(error) => CompilationError::PrepareError(prepare(&error)),
        vm::CompilationError::WasmerCompileError { msg }
        | vm::CompilationError::WasmtimeCompileError { msg } => CompilationError::WasmerCompileError { msg },
    }
}

fn prepare(error: &vm::PrepareError) -> PrepareError {
    macro_rules! same_names {
        ($($name:ident),* $(,)?) => {
            match error { $(vm::PrepareError::$name => PrepareError::$name,)* }
        };
    }
    same_names!(
        Serialization,
        Deserialization,
        InternalMemoryDeclared,
        GasInstrumentation,
        StackHeightInstrumentation,
        Instantiate,
        Memory,
        TooManyFunctions,
        TooManyLocals,
        TooManyTables,
        TooManyTableElements,
        FunctionBodyTooLarge,
        InstrumentedCodeTooLarge,
        TooManyBlocksPerFunction,
        TooManyBlocksPerContract,
        TooManyTypes,
        TooManyParamsPerContract,
        TooManyParamsPerFunction,
        OperandStackTooLarge,
        TooManyGlobals,
    )
}
