#!/usr/bin/env bash
# Builds the contract.
#
#   build.sh           writes contract/res/por_contract.wasm and por_contract.build.json
#   build.sh --check   builds aside and compares with the committed wasm, if this compiler is
#                      the recorded one; otherwise only says so. Prints the fresh wasm's path,
#                      which POR_CONTRACT_WASM makes the tests run on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
res=$repo/contract/res
ceiling=250000
# shellcheck source=contract/build/toolchain.sh
source "$here/toolchain.sh"
choose_toolchain

build() {
    local target_dir=$1
    (
        cd "$repo"
        # Flags of the caller's environment must not change the bytes.
        unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
        RUSTFLAGS=$(wasm_rustflags "$repo") CARGO_TARGET_DIR=$target_dir CARGO_INCREMENTAL=0 \
            cargo build --quiet --locked --package por-contract --lib --profile wasm \
            --target $WASM_TARGET "${WASM_CARGO_ARGS[@]}"
    )
    echo "$target_dir/$WASM_TARGET/wasm/por_contract.wasm"
}

sha() { sha256sum "$1" | cut -d' ' -f1; }

check_size() {
    local size
    size=$(stat -c %s "$1")
    echo "$1: $size bytes" >&2
    if [ "$size" -gt $ceiling ]; then
        echo "error: the wasm is larger than $ceiling bytes" >&2
        exit 1
    fi
}

field() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}$/\1/p" "$res/por_contract.build.json"; }

target_dir=${POR_WASM_TARGET_DIR:-${CARGO_TARGET_DIR:-$repo/target}/contract-wasm}
case "${1:-}" in
"")
    fresh=$(build "$target_dir")
    check_size "$fresh"
    mkdir -p "$res"
    cp "$fresh" "$res/por_contract.wasm"
    cat >"$res/por_contract.build.json" <<JSON
{
  "compiler": "$(compiler_version)",
  "sha256": "$(sha "$fresh")"
}
JSON
    cat "$res/por_contract.build.json"
    ;;
--check)
    committed=$(sha "$res/por_contract.wasm")
    if [ "$committed" != "$(field sha256)" ]; then
        echo "error: por_contract.wasm is not the file that por_contract.build.json describes; run build.sh" >&2
        exit 1
    fi
    fresh=$(build "$target_dir")
    check_size "$fresh"
    if [ "$(compiler_version)" != "$(field compiler)" ]; then
        echo "built with $(compiler_version); the committed wasm is by $(field compiler), so bytes are not compared" >&2
    elif [ "$(sha "$fresh")" != "$committed" ]; then
        echo "error: the committed wasm differs from what these sources build; run contract/build/build.sh and commit" >&2
        exit 1
    else
        echo "the committed wasm is what these sources build" >&2
    fi
    echo "$fresh"
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac
