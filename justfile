# Recipes for people who work on Celeriac. `just` lists these; CONTRIBUTING.md explains them.

features := "--all-features"

# List the recipes.
default:
    @just --list

# Format and lint, as CI does.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets {{features}} -- -D warnings

# The tests that need no service and no root: unit, property, macros, catalogue.
fast:
    cargo test {{features}} --lib
    cargo test {{features}} --test task_macro --test catalogue --test canvas --test manual --test architecture

# One test target, or some of its tests: `just test runtime panics`.
test target *names:
    cargo test {{features}} --test {{target}} {{names}}

# Everything, as CI runs it: root on Debian, about half an hour.
all:
    ./test.sh

# The documentation of the types.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps {{features}}

# One benchmark: `just bench throughput`.
bench name *args:
    cargo bench {{features}} --bench {{name}} -- {{args}}

# The licences and sources of the dependencies: `cargo install cargo-deny` first.
deny:
    cargo deny check licenses bans sources
