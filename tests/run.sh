#!/bin/sh
# Runs every test, those that need programs which are not ours included. A test whose program is not here is named first, left out, and
# counted by the runner as skipped.
#
#   sh tests/run.sh [--release …]     what both `cargo nextest run` and `cargo test` take
#
# A test says what it needs where it stands, as `#[ignore = "needs curl, node"]`, so that a plain `cargo test` leaves it out, too.
set -eu
cd "$(dirname "$0")/.."
# Servers lie where not everybody looks for programs.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# Whether a program is here; `mount` is the right to mount a file system.
is_here() {
    case $1 in
    bash | curl | haproxy | jq | nginx | pushpin | python3) command -v "$1" >/dev/null ;;
    chromium) test -x /usr/bin/chromium ;;
    firefox) test -x /usr/bin/firefox-esr ;;
    mount) unshare -m mount -t tmpfs tmpfs /tmp 2>/dev/null ;;
    nchan) test -e /usr/lib/nginx/modules/ngx_nchan_module.so ;;
    node) command -v node >/dev/null && test -e target/tools/node/installed ;;
    python) test -e target/tools/py/installed ;;
    varnish) command -v varnishd >/dev/null ;;
    *)
        echo "tests/run.sh does not know what '$1' is, which a test needs" >&2
        exit 1
        ;;
    esac
}

# One line a test: its path as the runners print it, and what it needs.
needs=$(find tests/it crates/*/tests crates/*/src src -name '*.rs' -exec awk '
    /^ *#\[ignore = "needs / { sub(/.*"needs /, ""); sub(/".*/, ""); gsub(/,/, ""); needs = $0; next }
    needs != "" && match($0, /fn [a-z0-9_]+\(/) {
        module = FILENAME; sub(/\.rs$/, "", module); sub(/^(tests\/it|crates\/[a-z]+\/(tests\/[a-z]+|src)|src)\//, "", module)
        gsub(/\//, "::", module)
        print module "::" substr($0, RSTART + 3, RLENGTH - 4), needs; needs = ""
    }' {} +)
lacking=
for program in $(printf '%s\n' "$needs" | cut -d' ' -f2- | tr ' ' '\n' | sort -u); do
    if ! is_here "$program"; then
        tests=$(printf '%s\n' "$needs" | awk -v program="$program" '{ for (i = 2; i <= NF; i++) if ($i == program) print $1 }')
        echo "skipped for lack of $program: $(echo $tests | sed 's/ /, /g')"
        lacking="$lacking $tests"
    fi
done

set -- --locked --workspace "$@"
if cargo nextest --version >/dev/null 2>&1; then
    names=$(echo $lacking | tr ' ' '|')
    # Most tests wait more than they compute. A container may have less of the processors than it sees.
    if command -v nproc >/dev/null; then
        quota=$(awk '$1 ~ /^[0-9]+$/ { print int(($1 + $2 - 1) / $2) }' /sys/fs/cgroup/cpu.max 2>/dev/null || true)
        cores=$(nproc)
        [ "${quota:-$cores}" -ge "$cores" ] || cores=$quota
        NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((cores * 2))}
        export NEXTEST_TEST_THREADS
    fi
    exec cargo nextest run "$@" --run-ignored all --final-status-level skip -E "not test(/^(${names:-none})\$/)"
fi
skip=
for name in $lacking; do skip="$skip --skip $name"; done
cargo test "$@" --no-run --quiet --lib --bins --tests
timeout 1800 cargo test "$@" --no-fail-fast --lib --bins --tests -- --include-ignored --exact $skip && code=0 || code=$?
printf "%s\n" $lacking | sort -u | sed "s/^./skipped for lack of its program: &/"
exit $code
