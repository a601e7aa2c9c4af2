#!/usr/bin/env bash
# Conformance tests of the Common Workflow Language that run containers:
#
#   ./test --external cwl=CHECKOUT [TEST...]
#
# CHECKOUT is one of common-workflow-language/cwl-v1.2. cwltool runs those of its tests whose tool, or
# a step of it, has a DockerRequirement, by the stock docker client against a Gamut daemon and a
# dockerd of their own, with the same stand-ins for the images: a Debian with Python. Both counts and
# the tests that end differently are printed; what each said is kept in $OUT (default:
# target/external/cwl). ENGINES=gamut leaves dockerd out.
#
# Needs PYTHON (default: python3) with cwltool and cwltest, and the docker client.
set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$here/scripts/common.sh"
. "$here/tests/external/engines.sh"

checkout=$(cd "${1:?the checkout of the suite}" && pwd) || exit 1
shift
target="${CARGO_TARGET_DIR:-$here/target}"
out="${OUT:-$target/external/cwl}"
bin="${GAMUT_DIRECTORY:-$target/gamut-debug}"
python=$(command -v "${PYTHON:-python3}" || true)
engines="${ENGINES:-gamut dockerd}"
registry=127.0.0.1:5000

skip() { say "SKIPPED  cwl: $*"; exit 0; }
[ "$(id -u)" = 0 ] || fail "the daemons make containers and control groups, which needs root"
[ -x "$bin/gamut" ] || fail "no $bin/gamut: run ./build --debug first"
[ -f "$checkout/conformance_tests.yaml" ] || fail "$checkout is no checkout of cwl-v1.2"
[ -n "$python" ] && "$python" -c 'import cwltool, cwltest' 2>/dev/null ||
    skip "no Python with cwltool and cwltest: python3 -m pip install cwltool cwltest, and name it by PYTHON"
for program in docker dockerd containerd ip unshare nsenter curl; do
    have $program || skip "no $program"
done
archive=$("$here/tests/debian" python) || skip "no Debian root file system"
mkdir -p "$out"
scratch=$(mktemp -d -t gamut-cwl.XXXXXX)
chmod 755 "$scratch"
group="/gamut-cwl-$$"
trap 'end; rm -rf --one-file-system "$scratch"' EXIT

# chosen NAME... : numbers and names of those tests (all without a name) that run containers.
chosen() {
    "$python" - "$checkout" "$@" <<'PYTHON'
import os, re, sys
from ruamel.yaml import YAML

def tests(path):
    for test in YAML(typ="safe").load(open(path)):
        if "$import" in test:
            yield from tests(os.path.join(os.path.dirname(path), test["$import"]))
        else:
            yield os.path.dirname(path), test

def wants_containers(path, seen):
    path = os.path.realpath(path.split("#")[0])
    if path in seen or not os.path.isfile(path):
        return False
    seen.add(path)
    text = open(path, errors="replace").read()
    if "DockerRequirement" in text:
        return True
    parts = re.findall(r"[\w./-]+\.(?:cwl|yml|yaml)\b", text)
    return any(wants_containers(os.path.join(os.path.dirname(path), part), seen) for part in parts)

checkout, names = sys.argv[1], sys.argv[2:]
found = tests(os.path.join(checkout, "conformance_tests.yaml"))
for number, (directory, test) in enumerate(found, 1):
    if (not names or test["id"] in names) and wants_containers(
        os.path.join(directory, test["tool"]), set()
    ):
        print(number, test["id"])
PYTHON
}

entry='["bash","-c","case $1 in -*) exec bash \"$@\";; *) exec \"$@\";; esac","entry"]'
# suite NAME : the tests against the daemon NAME.
suite() {
    local socket="unix://$scratch/$1/sock" image
    place "$1"
    "start_$1"
    await "$1" answers --unix-socket "$scratch/$1/sock" http://here/_ping
    local client=("${inside[@]}" env --chdir="$checkout" -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH
        DOCKER_HOST="$socket" HOME="$scratch/$1" PYTHONDONTWRITEBYTECODE=1
        PATH="$(dirname "$python"):$PATH")
    for image in debian:stable-slim python:3-slim alpine:latest; do
        "${client[@]}" docker import "$archive" "$image" >"$out/$1.import" || fail "$1 takes no image"
    done
    # As its own entry point does: options are bash's, all else is a command.
    "${client[@]}" docker import -c "ENTRYPOINT $entry" "$archive" bash:4.4 >>"$out/$1.import" ||
        fail "$1 takes no image"
    "${client[@]}" timeout 3000 "$python" -m cwltest --test conformance_tests.yaml \
        -n "$tests" --tool "$(dirname "$python")/cwltool" --junit-xml "$out/$1.xml" --timeout 120 \
        </dev/null >"$out/$1.txt" 2>&1
    end
}
# results NAME : `passed|failed|skipped TEST`, one a line, sorted. Of some of the tests cwltest tells the
# names of others, but their order is right.
results() {
    "$python" - "$out/$1.xml" "$out/tests" <<'PYTHON' | sort -u -k 2
import sys
import xml.etree.ElementTree as tree

names = [line.split()[1] for line in open(sys.argv[2])]
for name, case in zip(names, tree.parse(sys.argv[1]).iter("testcase"), strict=True):
    kinds = {child.tag for child in case}
    word = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
    print(word, name)
PYTHON
}
chosen "$@" >"$out/tests"
# By number: it does not find the first one by its name.
tests=$(cut -d' ' -f1 "$out/tests" | paste -sd,)
[ -n "$tests" ] || fail "no such test: $*"
compare cwl
