#!/usr/bin/env bash
# The test command: everything that has to hold, on a fresh Debian machine with Rust installed.
#
#   ./test.sh            format, lint, all tests (unit, property, conformance, crash, examples), the documentation
#
# It runs as root, for it mounts file systems: one in memory for the files of the tests, and those of the full-disk tests.
# It installs these packages of Debian's where they are missing, and keeps apt from starting what is in them:
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
lanes=() # the process groups of what runs side by side

leave() {
    for group in "${lanes[@]}"; do
        kill -- "-$group" 2>/dev/null || true
    done
    [ -z "${installing:-}" ] || wait "$installing" || true # a package is not left half installed
    rm -f "${policy:-}"
    # What failed tests leave is kept, and said.
    [ -z "${files:-}" ] || [ -n "${failed:-}" ] || { umount -R -l "$files" && rmdir "$files"; }
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

packages=() # the missing ones

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null || packages+=("$2")
}

# Not synced file by file: who loses power here begins anew.
install() { # install PACKAGE...
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Options::=--force-unsafe-io "$@"
}

if ! command -v cargo >/dev/null; then
    echo "test.sh: no cargo: install Rust 1.95 or later (https://rustup.rs) and run this again" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "test.sh: it mounts small file systems and installs packages, which needs root: run this as root" >&2
    exit 1
fi
mkdir -p target
# By this file the administrator of a Debian machine says that packages are not to start their services.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
if ! command -v cc >/dev/null; then
    say "installing gcc"
    install gcc >/dev/null
fi
need mount mount
need /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server
need redis-server redis-server
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
need mariadbd mariadb-server
need mariadb-install-db mariadb-server
need chromium chromium
need chromedriver chromium-driver
need promtool prometheus
need setpriv util-linux
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if [ "${#packages[@]}" != 0 ]; then
    echo "installing, while the tests are built: ${packages[*]}"
    install "${packages[@]}" >target/packages.log 2>&1 &
    installing=$!
fi

say "format"
cargo fmt --all --check

# One pass builds the tests and benches and lints them: cargo calls clippy in the place of the compiler, which builds as
# the compiler does. These two variables are what `cargo clippy -- -D warnings` sets.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
say "lint, and building the tests"
cargo test --workspace --all-features --lib --bins --tests --benches --example custom_broker --no-run --quiet
# Tests start the examples as programs. Named as targets of `cargo test`, examples would be built as tests instead.
cargo build --workspace --all-features --examples --quiet

if [ -n "${installing:-}" ]; then
    say "the rest of the installation"
    wait "$installing" || {
        cat target/packages.log
        exit 1
    }
    installing=
fi

say "tests"
# The stores of the tests sync each commit. In memory that costs nothing, and what a killed process has written is there
# as well.
files=$(mktemp -d)
mount -t tmpfs -o mode=1777 tmpfs "$files"
export TMPDIR=$files

# Three of these run at a time, because most tests wait more than they compute. Those that take long come first; the
# targets that are not named here run in the last one.
queue=()
named=()
next() { # next ARGUMENT..., of `cargo test`
    queue+=("$*")
    for argument in "$@"; do
        named+=("$argument")
    done
}
next --test=faults -- --part=1/2
next --lib --bins --example custom_broker
next --test=brokers
next --test=faults -- --part=2/2
next --doc
for name in interop runtime compile_fail amqp console celery_suite embedded_store crash commit_table soil_pages stores flower \
    process_pool redis_store services_smoke otel rpc_store; do
    next "--test=$name"
done
rest=()
for file in tests/*.rs tests/*/main.rs tests/compile_fail/tests/*.rs; do
    name=${file%/main.rs}
    name=--test=$(basename "$name" .rs)
    case " ${named[*]} " in
    *" $name "*) ;;
    *) rest+=("$name") ;;
    esac
done
next "${rest[@]}"

run() ( # run ARGUMENT...
    case $* in
    --test=amqp | --test=brokers) export RUST_TEST_THREADS=4 ;; # they mostly wait for RabbitMQ
    --doc) export RUSTDOC=$PWD/.ci/rustdoc ;;                   # it makes the pages, too
    esac
    cargo test --workspace --all-features --no-fail-fast "$@"
)

# A lane takes what is next until nothing is left, and tells what each of them said when it is over.
lane() {
    local next begun status
    while next=$(take); do
        begun=$SECONDS status=ok
        # shellcheck disable=SC2086 # they are words
        run ${queue[next]} >"target/tests-$next.log" 2>&1 || status=FAILED
        printf '%8d  %s  cargo test %s\n' "$((SECONDS - begun))" "$status" "${queue[next]}" >>"$ended"
        flock target/telling.lock tee -a "$log" <"target/tests-$next.log"
        rm "target/tests-$next.log"
    done
}
take() {
    exec 9>target/taking.lock
    flock 9
    local next
    next=$(<target/next)
    [ "$next" -lt "${#queue[@]}" ] || return 1
    echo "$((next + 1))" >target/next
    echo "$next"
}

ended=target/ended.log
: >"$log" >"$ended"
echo 0 >target/next
for _ in 1 2 3; do
    set -m # a lane is in a process group of its own
    lane &
    set +m
    lanes+=("$!")
done
failed=
while [ "${#lanes[@]}" != 0 ]; do
    wait "${lanes[0]}" || failed=1
    lanes=("${lanes[@]:1}")
done

where_the_time_went
printf '\n%8s  tests, three at a time\n' seconds
cat "$ended"
if [ -n "$failed" ] || [ "$(grep -c '^ *[0-9]*  ok  ' "$ended")" != "${#queue[@]}" ]; then
    failed=1
    what_failed
    printf '\ntest.sh: these parts failed, and their output is above:\n' >&2
    grep '^ *[0-9]*  FAILED  ' "$ended" >&2 || true
    echo "What the failed tests left in files is in $files, which is in memory: umount it when you have seen it." >&2
    exit 1
fi
printf '\n== all green after %d s\n' "$((SECONDS - started))"
