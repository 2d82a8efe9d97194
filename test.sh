#!/usr/bin/env bash
# The test command: everything that has to hold, on a fresh Debian machine with Rust installed.
#
#   ./test.sh            format, lint, docs, then all tests (unit, property, conformance, crash, examples)
#
# It runs as root where it must mount small file systems for the full-disk tests. It installs these packages of Debian's
# where they are missing, and keeps apt from starting what is in them:
#   gcc mount                 to build, and for the full-disk tests
#   rabbitmq-server           brings Erlang; the tests start nodes of their own, on ports and directories of their own
#   redis-server              likewise; brings redis-cli
#   chromium, chromium-driver the tests of Soil's pages drive a real browser
#   python3-venv              for environments in target/, into which the tests install from PyPI at their first run
#                             celery[redis] 5.7 (CELERIAC_TEST_PYTHON names another Python) and moto 5, a server of S3
# Services that the system runs itself are neither used nor touched. Without a service the tests fail; none is skipped.
set -euo pipefail
cd "$(dirname "$0")"
started=$SECONDS
faults=

leave() {
    rm -f "${policy:-}"
    [ -z "$faults" ] || kill -- "-$faults" 2>/dev/null || true
}
trap leave EXIT

say() { printf '\n== %s (at %d s)\n' "$*" "$((SECONDS - started))"; }

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null || get "$1" "$2"
}

get() { # get WHAT PACKAGE
    say "installing $2"
    if [ "$(id -u)" != 0 ]; then
        echo "test.sh: '$1' is missing and this is not root: run 'apt-get install $2' first" >&2
        exit 1
    fi
    [ -n "${updated:-}" ] || { apt-get update -qq; updated=1; }
    # By this file the administrator of a Debian machine says that packages are not to start their services.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

if ! command -v cargo >/dev/null; then
    echo "test.sh: no cargo: install Rust 1.95 or later (https://rustup.rs) and run this again" >&2
    exit 1
fi
need cc gcc
need mount mount
need /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server
need redis-server redis-server
need chromium chromium
need chromedriver chromium-driver
need setpriv util-linux
need /usr/bin/python3 python3-venv
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || get ensurepip python3-venv

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

say "building the tests"
cargo test --workspace --all-features --no-run --quiet

say "tests"
# The fleets of tests/faults mostly wait, for leases and for nodes that start: they run beside the rest.
beside=target/faults.log
set -m # in a process group of its own
cargo test --workspace --all-features --test faults >"$beside" 2>&1 &
faults=$!
set +m
others=()
for file in tests/*.rs tests/*/main.rs macros/tests/*.rs; do
    name=${file%/main.rs}
    name=$(basename "$name" .rs)
    [ "$name" = faults ] || others+=(--test "$name")
done
cargo test --workspace --all-features --lib --bins --examples "${others[@]}"
cargo test --workspace --all-features --doc
say "the rest of tests/faults"
if ! wait "$faults"; then
    cat "$beside"
    echo "test.sh: tests/faults failed; its output is above" >&2
    exit 1
fi
faults=
tail -n 3 "$beside"

say "all green"
