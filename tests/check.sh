#!/bin/sh
# Runs the tests of the profile `check` of `.config/nextest.toml` where there is no nextest: the same ones, one binary after the other.
#
#   sh tests/check.sh [--profile quick …]     what `cargo test` takes
set -eu
cd "$(dirname "$0")/.."
set -- --locked --workspace "$@"

# Of `tests/it` the profile names what runs, by expressions; of everything else nothing is left out.
areas=$(sed -n '/^\[profile\.check\]/,/^\[/p' .config/nextest.toml | grep -o 'test(/[^/]*/)' | sed 's/^test(.//; s/.)$//')
test -n "$areas"
names=$(cargo test "$@" --quiet --test it -- --list --format terse | sed -n 's/: test$//p')
test -n "$names"
skip=
for name in $(echo "$names" | grep -Ev "$areas"); do skip="$skip --skip $name"; done
timeout 1800 cargo test "$@" --no-fail-fast --tests -- --exact $skip
