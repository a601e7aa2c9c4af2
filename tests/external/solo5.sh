#!/usr/bin/env bash
# Tests of Solo5/solo5 for hvt: ./test --external solo5=CHECKOUT [FILTER]
#
# The checkout has been built by `./configure.sh && make`, with the images under tests/. They run
# with gamut-monitor and, side by side, with Solo5's own monitor; FILTER is a regular expression
# over their names (default: all that end with hvt). Taps and their addresses are those of
# tests/setup-tests.sh, in a network namespace of its own.
set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$here/scripts/common.sh"

checkout=$(cd "${1:?the checkout of the suite}" && pwd) || exit 1
filter="${2:-hvt$}"
target="${CARGO_TARGET_DIR:-$here/target}"
out="${OUT:-$target/external/solo5}"
monitor="${GAMUT_MONITOR:-$target/gamut-debug/gamut-monitor}"
# The one in the checkout cannot filter.
bats=$(command -v bats) || fail "no bats: install it"

[ "$(id -u)" = 0 ] || fail "the tests of the network make taps, which needs root"
[ -x "$monitor" ] || fail "no $monitor: run ./build --debug first, or name one by GAMUT_MONITOR"
[ -x "$checkout/tests/test_hello/test_hello.hvt" ] ||
    fail "$checkout is not built: ./configure.sh && make"
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf --one-file-system "$scratch"' EXIT
ln -s "$monitor" "$scratch/solo5-hvt"

# run NAME [MONITOR] : the tests, with this program in the place of Solo5's monitors.
run() {
    rm -rf --one-file-system "${out:?}/$1"
    mkdir -p "$out/$1/tmp"
    # shellcheck disable=SC2016
    TMPDIR="$out/$1/tmp" BATS_TMPDIR="$out/$1/tmp" \
        unshare --mount --net --propagation private sh -c '
            set -e
            checkout=$1 monitor=$2 bats=$3 filter=$4
            for name in solo5-hvt solo5-hvt-debug; do
                [ -z "$monitor" ] || mount --bind "$monitor" "$checkout/tenders/hvt/$name"
            done
            ip link set lo up
            sh "$checkout/tests/setup-tests.sh" >/dev/null 2>&1
            cd "$checkout/tests"
            exec timeout 3600 "$bats" --tap --filter "$filter" tests.bats
        ' run "$checkout" "${2:-}" "$bats" "$filter" </dev/null >"$out/$1/tap" 2>"$out/$1/errors"
}
count() {
    awk '/^ok.*# *[Ss][Kk][Ii][Pp]/ { skipped++; next } /^ok/ { passed++ }
        /^not ok/ { failed++ } END { print passed + 0, failed + 0, skipped + 0 }' "$out/$1/tap"
}

printf '%-16s %10s %10s %10s\n' solo5 passed failed skipped
for name in gamut-monitor solo5-hvt; do
    if [ $name = gamut-monitor ]; then run $name "$scratch/solo5-hvt"; else run $name; fi
    # shellcheck disable=SC2046
    printf '%-16s %10s %10s %10s\n' $name $(count $name)
done
note "what they said: $out"
