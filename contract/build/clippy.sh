#!/usr/bin/env bash
# Lints the contracts as they are compiled for wasm, warnings are errors.
#
# With a rustup toolchain that has the target, clippy itself runs on the wasm code. A
# distribution compiler comes without clippy: then the compiler checks the wasm code, and
# clippy the same sources for the host.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
host_rustc=${RUSTC:-}
# shellcheck source=contract/build/toolchain.sh
source "$here/toolchain.sh"
choose_toolchain
cd "$repo"
target_dir=${POR_WASM_TARGET_DIR:-${CARGO_TARGET_DIR:-$repo/target}/contract-wasm}

if [ ${#WASM_CARGO_ARGS[@]} -eq 0 ]; then
    RUSTFLAGS=$(wasm_rustflags "$repo") CARGO_TARGET_DIR=$target_dir \
        cargo clippy --locked --package por-contract --package por-bounty --lib --target $WASM_TARGET -- -D warnings
    exit
fi
echo "no clippy for wasm with $(compiler_version): checking wasm with the compiler, host with clippy" >&2
RUSTFLAGS="$(wasm_rustflags "$repo") -D warnings" CARGO_TARGET_DIR=$target_dir \
    cargo check --locked --package por-contract --package por-bounty --lib --target $WASM_TARGET "${WASM_CARGO_ARGS[@]}"
unset RUSTC RUSTC_BOOTSTRAP
[ -z "$host_rustc" ] || export RUSTC=$host_rustc
cargo clippy --locked --package por-contract --package por-bounty --all-targets -- -D warnings
