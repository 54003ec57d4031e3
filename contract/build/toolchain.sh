# Chooses how to compile for wasm32-unknown-unknown; sourced by build.sh and clippy.sh.
#
# Two ways exist. A rustup toolchain with the target installed builds it plainly. Where the
# target cannot be fetched, a distribution compiler with library sources (Debian's rustc-web
# and rust-web-src, linker lld-22) builds the standard library along.
#
# Sets RUSTC, RUSTC_BOOTSTRAP, WASM_CARGO_ARGS (array), WASM_RUSTFLAGS, or fails with advice.

WASM_TARGET=wasm32-unknown-unknown
WASM_CARGO_ARGS=()

has_target() { [ -d "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/$WASM_TARGET/lib" ]; }
has_sources() { [ -f "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.lock" ]; }

choose_toolchain() {
    local rustc=${RUSTC:-rustc} linker
    if has_target "$rustc"; then
        export RUSTC=$rustc RUSTC_BOOTSTRAP=1
        WASM_LINKER=""
        return 0
    fi
    for linker in wasm-ld-22 wasm-ld-21 wasm-ld-20 wasm-ld-19 wasm-ld; do
        command -v "$linker" >/dev/null && break
        linker=""
    done
    if [ -n "$linker" ] && [ -x /usr/bin/rustc ] && has_sources /usr/bin/rustc; then
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
        WASM_LINKER=$linker
        WASM_CARGO_ARGS=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
        return 0
    fi
    cat >&2 <<'ADVICE'
error: no compiler for wasm32-unknown-unknown. Install one of:
  rustup target add wasm32-unknown-unknown
  apt-get install --no-install-recommends rustc-web rust-web-src lld-22
ADVICE
    return 1
}

# Flags for reproducible code that NEAR's VM accepts. `--cfg near` keeps panic messages and
# the VM's own hashes; mvp keeps newer opcodes out; the paths of this machine stay out too.
# Source locations and Debug output are left out for size: nothing prints them.
wasm_rustflags() {
    local repo=$1 cargo_home=${CARGO_HOME:-$HOME/.cargo} sysroot
    sysroot=$("$RUSTC" --print sysroot)
    local flags="--cfg near -C target-cpu=mvp -Zlocation-detail=none -Zfmt-debug=none"
    [ -z "$WASM_LINKER" ] || flags+=" -C linker=$WASM_LINKER"
    flags+=" --remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust"
    flags+=" --remap-path-prefix=$cargo_home/registry/src=/cargo"
    flags+=" --remap-path-prefix=$repo=/por"
    printf '%s' "$flags"
}

compiler_version() { "$RUSTC" --version; }
