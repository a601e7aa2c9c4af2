#!/usr/bin/env bash
# shellcheck disable=SC2154
# Integration tests of opencontainers/runc: ./test --external runc-bats=CHECKOUT [FILE.bats...]
#
# The checkout has been built by `make test-binaries`, go is on PATH, and the images of busybox and
# Debian lie in tests/integration/testdata, where get-images.sh looks for them.
# Which sets checkout, out and scratch.
# shellcheck disable=SC1091
. "$(dirname "$0")/common.sh"

cd "$checkout/tests/integration" || exit 1
files=("$@")
[ ${#files[@]} -gt 0 ] || files=(*.bats)
have bats || fail "install bats"
have go || fail "the suite's get-images.sh asks go for the architecture: put it on PATH"
[ -x ../cmd/_bin/recvtty ] || fail "$checkout is not built: make test-binaries"

# runc wants a terminal of its own, so it gets one, at which nobody types and nobody hangs up.
run() {
    local quiet
    mkfifo "$scratch/quiet"
    sleep 7200 >"$scratch/quiet" &
    quiet=$!
    # shellcheck disable=SC2016
    RUNC=$1 FILES="${files[*]}" alone sh -c \
        'exec timeout 7000 script -qefc "bats -t \$FILES" /dev/null <"$1"' script "$scratch/quiet" |
        tr -d '\r' >"$2/bats.tap"
    kill $quiet
    rm -f "$scratch/quiet"
}
count() {
    awk '/^ok.*# *skip/ { skipped++; next } /^ok/ { passed++ } /^not ok/ { failed++ }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1/bats.tap"
}
side_by_side run count
