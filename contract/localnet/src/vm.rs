//! NEAR's own virtual machine, with its cache of compiled contracts.

use std::path::Path;
use std::sync::Arc;

use near_parameters::RuntimeConfig;
use near_primitives::hash::CryptoHash;
use near_primitives::types::Gas;
use near_vm_runner::logic::{External, GasCounter, VMContext, VMOutcome};
use near_vm_runner::{Contract, ContractCode, FilesystemContractRuntimeCache};

use crate::error::{Error, Result};

mod error_map;
mod external;
mod promises;

pub(crate) use error_map::{call_error, no_contract};
pub(crate) use external::{CallExternal, Scope};
pub(crate) use promises::Origin;

/// Loaded contracts kept in memory.
const LOADED_CONTRACTS: usize = 64;
/// Compiled contracts kept on disk, in bytes.
const COMPILED_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Stack of a thread that runs contracts, in bytes. A contract's own stack is metered
/// to 256 KiB; its frames may take several times that.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The machine: cheap to share between threads.
#[derive(Clone)]
pub(crate) struct Vm {
    cache: FilesystemContractRuntimeCache,
    /// The directory of a chain without a home, removed with the machine.
    _dir: Option<Arc<tempfile::TempDir>>,
}

/// A contract's code by its hash.
struct Code {
    hash: CryptoHash,
    code: Arc<[u8]>,
}

impl Contract for Code {
    fn hash(&self) -> CryptoHash {
        self.hash
    }

    fn get_code(&self) -> Option<Arc<ContractCode>> {
        Some(Arc::new(ContractCode::new(self.code.to_vec(), Some(self.hash))))
    }
}

/// What to run.
pub(crate) struct Call<'a> {
    pub(crate) code_hash: CryptoHash,
    pub(crate) code: Arc<[u8]>,
    pub(crate) method: &'a str,
    /// Most gas the call may burn.
    pub(crate) max_gas: Gas,
}

impl Vm {
    /// A machine that keeps compiled contracts under `home`, or in a temporary place.
    pub(crate) fn new(home: Option<&Path>) -> Result<Self> {
        let dir = match home {
            Some(_) => None,
            None => Some(Arc::new(
                tempfile::Builder::new()
                    .prefix("por-localnet-")
                    .tempdir()
                    .map_err(Error::file(std::env::temp_dir()))?,
            )),
        };
        let base = match (&dir, home) {
            (Some(dir), _) => dir.path().to_path_buf(),
            (None, Some(home)) => home.join("data"),
            (None, None) => std::env::temp_dir(),
        };
        let cache = FilesystemContractRuntimeCache::with_memory_cache(
            &base,
            None::<&str>,
            "compiled-contracts",
            LOADED_CONTRACTS,
            None,
            COMPILED_BYTES,
            near_vm_runner::noop_background_spawner(),
        )
        .map_err(Error::file(base))?;
        Ok(Self { cache, _dir: dir })
    }

    /// Runs a method. An error means that the machine failed, not the contract.
    pub(crate) fn run(
        &self,
        config: &RuntimeConfig,
        call: Call<'_>,
        external: &mut (dyn External + Send),
        context: &VMContext,
    ) -> Result<VMOutcome> {
        let wasm = &config.wasm_config;
        let gas = GasCounter::new(
            wasm.ext_costs.clone(),
            call.max_gas,
            wasm.regular_op_cost,
            context.prepaid_gas,
            context.is_view(),
        );
        let code = Code { hash: call.code_hash, code: call.code };
        let prepared = near_vm_runner::prepare(&code, wasm.clone(), Some(&self.cache), gas, call.method);
        near_vm_runner::run(prepared, external, context, config.fees.clone())
            .map_err(|error| Error::inconsistent(format!("the virtual machine failed: {error}")))
    }

    /// Compiles a contract ahead of its first call.
    pub(crate) fn compile(&self, config: &RuntimeConfig, hash: CryptoHash, code: &[u8]) {
        let code = ContractCode::new(code.to_vec(), Some(hash));
        // A contract that does not compile fails when it is called.
        let _ = near_vm_runner::precompile_contract(&code, config.wasm_config.clone(), Some(&self.cache));
    }
}
