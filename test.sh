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
#   postgresql                likewise; the servers run as the user postgres, which the package makes
#   mariadb-server            likewise
#   prometheus                likewise; brings promtool, which checks our metrics and alert rules
#   chromium, chromium-driver the tests of Soil's pages drive a real browser
#   python3-venv              for environments in target/, into which the tests install from PyPI at their first run
#                             celery[redis] 5.7 (CELERIAC_TEST_PYTHON names another Python), what watches and traces it
#                             (Flower, celery-exporter, opentelemetry-instrumentation-celery), moto 5, a server of S3, and
#                             axe-core 4.12 (in axe-playwright-python), which looks over the pages of the console
# Services that the system runs itself are neither used nor touched. Without a service the tests fail; none is skipped.
set -euo pipefail
cd "$(dirname "$0")"
started=$SECONDS
declare -A lanes=() # the process groups of what runs beside

leave() {
    rm -f "${policy:-}"
    for group in "${lanes[@]}"; do
        kill -- "-$group" 2>/dev/null || true
    done
}
trap leave EXIT

# say STEP begins a step; what each one took is told at the end.
steps=()
say() {
    steps+=("$((SECONDS - started)) $*")
    printf '\n== %s (at %d s)\n' "$*" "$((SECONDS - started))"
}

where_the_time_went() {
    local index next
    printf '\n%8s  %s\n' seconds step
    for index in "${!steps[@]}"; do
        next=${steps[index + 1]:-$((SECONDS - started))}
        printf '%8d  %s\n' "$((${next%% *} - ${steps[index]%% *}))" "${steps[index]#* }"
    done
}

# What the tests say is kept, so that what failed can be told once more at the end.
log=target/tests.log

told() { # told COMMAND...
    "$@" 2>&1 | tee -a "$log"
}

# Whoever looks at a long output sees its end. So that has the names of the failed tests, each below its target, and then what
# they say: the first lines, and those from where it panics. Of a target that ended in the middle it has the last lines.
what_failed() {
    printf '\n== what failed\n'
    awk '
        /^ +(Running|Doc-tests) / { target = $0; next }
        /^test .* \.\.\. FAILED/ || /process didn.t exit successfully/ {
            if (target != "") print target
            target = ""
            print
        }' "$log"
    awk '
        function tell(line) {
            if (++told < 500) print line
            else if (told == 500) print "(there is more of it in target/tests.log)"
        }
        function tell_last(from,    i) {
            if (from < NR - 59) from = NR - 59
            for (i = from; i < NR; i++) tell(last[i % 60])
        }
        { last[NR % 60] = $0 }
        /^ +(Running|Doc-tests) / { target = $0; begun = NR; whole = 0; case_begun = 0; section = 0 }
        # The targets with cases tell of one after the other.
        /^case .* \.\.\.$/ { case_begun = NR }
        /^test .* \.\.\. ok/ { case_begun = 0 }
        /^test .* \.\.\. FAILED/ && case_begun { tell("\n" target); tell_last(case_begun); tell($0); case_begun = 0 }
        # The others have a section for each that failed.
        /^---- / { tell("\n" target); tell($0); section = NR; panic = 0; next }
        /^test result: / { whole = 1 }
        /^failures:$/ || /^test result: / { section = 0 }
        section && /panicked at/ && !panic { panic = NR }
        section && (NR <= section + 30 || panic && NR <= panic + 60) { tell($0) }
        /process didn.t exit successfully/ && !whole { tell("\n" target); tell_last(begun + 1); tell($0) }
    ' "$log"
}

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
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || get postgres postgresql
need mariadbd mariadb-server
need mariadb-install-db mariadb-server
need chromium chromium
need chromedriver chromium-driver
need promtool prometheus
need setpriv util-linux
need /usr/bin/python3 python3-venv
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || get ensurepip python3-venv

if [ "$(id -u)" != 0 ]; then
    echo "test.sh: the full-disk tests mount a small tmpfs, which needs root: run this as root" >&2
    exit 1
fi

say "format"
cargo fmt --all --check

say "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --quiet

# One pass builds the tests, examples and benches and lints them: cargo calls clippy in the place of the compiler, which
# builds as the compiler does. These two variables are what `cargo clippy -- -D warnings` sets.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
say "lint, and building the tests"
cargo test --workspace --all-features --lib --bins --tests --benches --no-run --quiet
# Tests start the examples as programs. Named as targets of `cargo test`, examples would be built as tests instead.
cargo build --workspace --all-features --examples --quiet

say "tests"
# Two lanes run side by side, because most tests wait more than they compute. One lane has the targets that start services,
# one after the other: two RabbitMQs starve each other on two cores. The other lane has all that needs no service.
services=(amqp brokers celery_suite commit_table flower interop otel redis_store rpc_store services_smoke stores faults)
rest=()
for file in tests/*.rs tests/*/main.rs; do
    name=${file%/main.rs}
    name=$(basename "$name" .rs)
    case " ${services[*]} " in
    *" $name "*) ;;
    *) rest+=("$name") ;;
    esac
done
targets() { # targets TARGET...
    cargo test --workspace --all-features --no-fail-fast "${@/#/--test=}"
}
with_services() {
    local name failed=0
    for name in "${services[@]}"; do # cargo would take them in the order of their names
        targets "$name" || failed=1
    done
    return "$failed"
}

failed=
: >"$log"
set -m # the lane is in a process group of its own
with_services >target/lane-services.log 2>&1 &
set +m
lanes[services]=$!
told cargo test --workspace --all-features --no-fail-fast --lib --bins --example custom_broker "${rest[@]/#/--test=}" || failed+=" rest"
told cargo test --workspace --all-features --doc || failed+=" doc"
say "the rest of the tests with services"
wait "${lanes[services]}" || failed+=" services"
unset "lanes[services]"
told cat target/lane-services.log
if [ -n "$failed" ]; then
    where_the_time_went
    what_failed
    echo "test.sh: these parts failed, and their output is above:$failed" >&2
    exit 1
fi

where_the_time_went
printf '\n== all green after %d s\n' "$((SECONDS - started))"
