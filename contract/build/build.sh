#!/usr/bin/env bash
# Builds the contract, and the example of one on top of it.
#
#   build.sh           writes contract/res/NAME.wasm and NAME.build.json, for por_contract and
#                      por_bounty
#   build.sh --check   builds aside and compares with the committed wasm, if this compiler is
#                      the recorded one; otherwise only says so. Prints the path of the fresh
#                      por_contract.wasm, which POR_CONTRACT_WASM makes the tests run on;
#                      por_bounty.wasm lies beside it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
res=$repo/contract/res
ceiling=250000
# shellcheck source=contract/build/toolchain.sh
source "$here/toolchain.sh"
choose_toolchain

# Each contract alone, so that none is built with another's features.
build() {
    local package=$1
    (
        cd "$repo"
        # Flags of the caller's environment must not change the bytes.
        unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
        RUSTFLAGS=$(wasm_rustflags "$repo") CARGO_TARGET_DIR=$target_dir CARGO_INCREMENTAL=0 \
            cargo build --quiet --locked --package "${package//_/-}" --lib --profile wasm \
            --target $WASM_TARGET "${WASM_CARGO_ARGS[@]}"
    )
    echo "$target_dir/$WASM_TARGET/wasm/$package.wasm"
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

# field NAME KEY: what NAME.build.json says.
field() { sed -n "s/^ *\"$2\": \"\(.*\)\",\{0,1\}$/\1/p" "$res/$1.build.json"; }

write() {
    local name=$1 fresh
    fresh=$(build "$name")
    check_size "$fresh"
    mkdir -p "$res"
    cp "$fresh" "$res/$name.wasm"
    cat >"$res/$name.build.json" <<JSON
{
  "compiler": "$(compiler_version)",
  "sha256": "$(sha "$fresh")"
}
JSON
    cat "$res/$name.build.json"
}

check() {
    local name=$1 committed fresh
    committed=$(sha "$res/$name.wasm")
    if [ "$committed" != "$(field "$name" sha256)" ]; then
        echo "error: $name.wasm is not the file that $name.build.json describes; run build.sh" >&2
        exit 1
    fi
    fresh=$(build "$name")
    check_size "$fresh"
    if [ "$(compiler_version)" != "$(field "$name" compiler)" ]; then
        echo "$name: built with $(compiler_version); the committed wasm is by $(field "$name" compiler), so bytes are not compared" >&2
    elif [ "$(sha "$fresh")" != "$committed" ]; then
        echo "error: the committed $name.wasm differs from what these sources build; run contract/build/build.sh and commit" >&2
        exit 1
    else
        echo "the committed $name.wasm is what these sources build" >&2
    fi
    echo "$fresh"
}

target_dir=${POR_WASM_TARGET_DIR:-${CARGO_TARGET_DIR:-$repo/target}/contract-wasm}
case "${1:-}" in
"")
    write por_contract
    write por_bounty
    ;;
--check)
    check por_bounty >/dev/null
    check por_contract
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac
