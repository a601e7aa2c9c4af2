# shellcheck shell=bash disable=SC2034
# Shared by the runners of public suites. Sourced, never run.
#
# A suite is given as a checkout that its own documentation says how to build. Nothing of it is
# kept here. Each runner runs it against gamut-runtime and, if there is one, against the runc of
# this machine (RUNC=PATH names another), in a mount namespace of its own, and prints the counts
# side by side. What each said is kept in $OUT (default: target/external/SUITE).

set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$here/scripts/common.sh"

suite=$(basename "$0" .sh)
checkout=$(cd "${1:?the checkout of the suite}" && pwd) || exit 1
shift
target="${CARGO_TARGET_DIR:-$here/target}"
out="${OUT:-$target/external/$suite}"
gamut="${GAMUT_RUNTIME:-$target/gamut-debug/gamut-runtime}"
runc="${RUNC-$(command -v runc || true)}"

[ "$(id -u)" = 0 ] || fail "the suites make containers and control groups, which needs root"
[ -x "$gamut" ] || fail "no $gamut: run ./build --debug first, or name one by GAMUT_RUNTIME"
mkdir -p "$out"
# Suites compare what a runtime calls itself with this name.
mkdir -p "$out/bin"
ln -sf "$gamut" "$out/bin/runc"
gamut="$out/bin/runc"
scratch=$(mktemp -d)
chmod 755 "$scratch"
export TMPDIR="$scratch"
trap 'rm -rf --one-file-system "$scratch"' EXIT

# alone COMMAND... : in a mount and a network namespace of its own. Suites wait for orphans to be
# gone, which on some machines the first process takes seconds to reap: perl does it at once.
alone() {
    unshare --mount --net --propagation private \
        sh -c 'ip link set lo up; exec "$@"' alone perl -e '
            my %prctl = (x86_64 => 157, aarch64 => 167);
            my $machine = `uname -m`;
            chomp $machine;
            syscall($prctl{$machine}, 36, 1, 0, 0, 0) if $prctl{$machine}; # PR_SET_CHILD_SUBREAPER
            my $child = fork // die "fork: $!";
            exec @ARGV or die "$ARGV[0]: $!" unless $child;
            my $ended;
            1 while ($ended = wait) > 0 && $ended != $child;
            exit($? & 127 ? 128 + ($? & 127) : $? >> 8);' "$@" </dev/null
}

# side_by_side RUN COUNT : runs it for both runtimes and prints what COUNT says of each, as
# `passed failed skipped`. RUN gets a runtime and a directory for what the suite says.
side_by_side() {
    local run=$1 count=$2 name runtime
    printf '%-16s %10s %10s %10s\n' "$suite" passed failed skipped
    for name in gamut-runtime runc; do
        runtime=$gamut
        [ $name = gamut-runtime ] || runtime=$runc
        [ -n "$runtime" ] || { note "no runc on this machine: install it to compare"; continue; }
        rm -rf --one-file-system "${out:?}/$name"
        mkdir -p "$out/$name"
        "$run" "$runtime" "$out/$name"
        # shellcheck disable=SC2046
        printf '%-16s %10s %10s %10s\n' $name $("$count" "$out/$name")
    done
    note "what they said: $out"
}
