#!/usr/bin/env bash
# shellcheck disable=SC2154
# Validation of opencontainers/runtime-tools: ./test --external runtime-tools=CHECKOUT [TEST...]
#
# The checkout has been built by `make runtimetest validation-executables`.
# Which sets checkout, out and scratch.
# shellcheck disable=SC1091
. "$(dirname "$0")/common.sh"

cd "$checkout" || exit 1
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(validation/*/*.t)
[ -x "${tests[0]}" ] || fail "$checkout is not built: make runtimetest validation-executables"

run() {
    local test name
    for test in "${tests[@]}"; do
        name=$(basename "$test" .t)
        RUNTIME=$1 alone timeout 120 "./$test" >"$2/$name.tap" 2>"$2/$name.err" ||
            echo "exit status $?" >>"$2/$name.err"
    done
}
count() {
    cat "$1"/*.tap | awk '/^ok.*# *[Ss][Kk][Ii][Pp]/ { skipped++; next } /^ok/ { passed++ }
        /^not ok/ { failed++ } END { print passed + 0, failed + 0, skipped + 0 }'
}
side_by_side run count
