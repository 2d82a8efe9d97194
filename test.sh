#!/usr/bin/env bash
# The test command: everything that has to hold, on a fresh Debian machine with Rust installed.
#
#   ./test.sh            format, lint, docs, then all tests (unit, property, conformance, crash, examples)
#
# It runs as root where it must mount small file systems for the full-disk tests; it installs the few Debian packages
# that are missing, and starts no service.
set -euo pipefail
cd "$(dirname "$0")"
started=$SECONDS

say() { printf '\n== %s (at %d s)\n' "$*" "$((SECONDS - started))"; }

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null && return
    say "installing $2"
    if [ "$(id -u)" != 0 ]; then
        echo "test.sh: '$1' is missing and this is not root: run 'apt-get install $2' first" >&2
        exit 1
    fi
    [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

if ! command -v cargo >/dev/null; then
    echo "test.sh: no cargo: install Rust 1.95 or later (https://rustup.rs) and run this again" >&2
    exit 1
fi
need cc gcc
need mount mount

if [ "$(id -u)" != 0 ]; then
    echo "test.sh: the full-disk tests mount a small tmpfs, which needs root: run this as root" >&2
    exit 1
fi

say "format"
cargo fmt --all --check

say "lint"
cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings

say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --quiet

say "tests"
cargo test --workspace --all-features

say "all green"
