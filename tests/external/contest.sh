#!/usr/bin/env bash
# shellcheck disable=SC2154
# contest of youki-dev/youki: ./test --external contest=CHECKOUT [GROUP...]
#
# The checkout has been built by `just contest`, or what that calls: contest and runtimetest lie at
# its top. Each group of tests runs by itself, since one that panics takes the others along; the
# tests of such a group that were not heard of do not count.
# Which sets checkout, out and scratch.
# shellcheck disable=SC1091
. "$(dirname "$0")/common.sh"

cd "$checkout" || exit 1
[ -x contest ] && [ -x runtimetest ] || fail "$checkout is not built: just contest"
[ -e bundle.tar.gz ] || cp "tests/contest/contest/bundle.tar.gz" . || exit 1
groups=("$@")
[ ${#groups[@]} -gt 0 ] || mapfile -t groups < <(./contest list 2>/dev/null)

run() {
    local group
    for group in "${groups[@]}"; do
        RUNTIME_KIND=runc RUST_BACKTRACE=0 alone timeout 300 \
            ./contest run --runtime "$1" --runtimetest ./runtimetest -t "$group" \
            >"$2/$group.txt" 2>&1 || echo "exit status $?" >>"$2/$group.txt"
    done
}
count() {
    cat "$1"/*.txt | awk '/^[0-9]+ \/ [0-9]+ : .* : ok$/ { passed++ }
        /^[0-9]+ \/ [0-9]+ : .* : not ok$/ { failed++ }
        /^[0-9]+ \/ [0-9]+ : .* : skipped$/ { skipped++ }
        END { print passed + 0, failed + 0, skipped + 0 }'
}
side_by_side run count
