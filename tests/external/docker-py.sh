#!/usr/bin/env bash
# Integration tests of docker/docker-py: ./test --external docker-py=CHECKOUT [PYTEST ARGUMENT...]
#
# They run against a Gamut daemon and a dockerd of their own, each in namespaces of its own with the
# same images from the same registry on loopback, at the same version of the API (API=1.41 names
# another, ENGINES=gamut only one engine). Left out are swarm, services, secrets, configs, nodes and plugins, and what builds images.
# Both counts and the tests that end differently are printed; what each said is kept in $OUT
# (default: target/external/docker-py).
#
# Needs PYTHON (default: python3) with docker-py's own test requirements: pytest, pytest-timeout,
# requests, urllib3, paramiko, websocket-client. The checkout's docker package is what is tested.
set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$here/scripts/common.sh"
. "$here/tests/external/engines.sh"

checkout=$(cd "${1:?the checkout of the suite}" && pwd) || exit 1
shift
selection=("$@")
target="${CARGO_TARGET_DIR:-$here/target}"
out="${OUT:-$target/external/docker-py}"
bin="${GAMUT_DIRECTORY:-$target/gamut-debug}"
python="${PYTHON:-python3}"
api="${API:-1.41}"
engines="${ENGINES:-gamut dockerd}"
registry=127.0.0.1:5000

skip() { say "SKIPPED  docker-py: $*"; exit 0; }
[ "$(id -u)" = 0 ] || fail "the daemons make containers and control groups, which needs root"
[ -x "$bin/gamut" ] || fail "no $bin/gamut: run ./build --debug first"
[ -d "$checkout/tests/integration" ] || fail "$checkout is no checkout of docker-py"
have "$python" || skip "no $python: install it, or name one by PYTHON"
"$python" -c 'import pytest, pytest_timeout, requests, urllib3, paramiko, websocket' 2>/dev/null ||
    skip "$python lacks what the suite needs: $python -m pip install pytest pytest-timeout requests urllib3 paramiko websocket-client"
for program in dockerd containerd docker-registry skopeo busybox ip unshare nsenter; do
    have $program || skip "no $program: install docker.io, docker-registry, skopeo and busybox-static"
done
mkdir -p "$out"
scratch=$(mktemp -d -t gamut-docker-py.XXXXXX)
chmod 755 "$scratch"
group="/gamut-docker-py-$$"

# --- images ----------------------------------------------------------------------------------

# Stand-ins, made of busybox, for those that the suite names: as much of their file systems as it
# looks at. Each is a docker archive.
images() {
    "$python" - "$(command -v busybox)" "$scratch" <<'PYTHON'
import hashlib, io, json, subprocess, sys, tarfile

busybox, directory = sys.argv[1:]
users = {"root": 0, "bin": 1, "daemon": 2, "mail": 8, "postgres": 70, "guest": 405, "nobody": 65534}


def add(archive, name, content=b"", mode=0o755, kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    archive.addfile(entry, io.BytesIO(content))


def root(more):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in "bin dev etc home proc root run sys usr var".split():
            add(archive, name, kind=tarfile.DIRTYPE)
        for name in "usr/bin var/lib var/log var/opt".split():
            add(archive, name, kind=tarfile.DIRTYPE)
        add(archive, "tmp", mode=0o1777, kind=tarfile.DIRTYPE)
        with open(busybox, "rb") as file:
            add(archive, "bin/busybox", file.read())
        for applet in subprocess.check_output([busybox, "--list"], text=True).split():
            if applet != "busybox":
                add(archive, f"bin/{applet}", mode=0o777, kind=tarfile.SYMTYPE, link="busybox")
        lines = [f"{name}:x:{number}:{number}:{name}:/:/bin/sh\n" for name, number in users.items()]
        add(archive, "etc/passwd", "".join(lines).encode(), 0o644)
        lines = [f"{name}:x:{number}:\n" for name, number in users.items()]
        add(archive, "etc/group", "".join(lines).encode(), 0o644)
        for name, content in more.items():
            add(archive, name, content)
    return layer.getvalue()


def image(name, command, more):
    layer = root(more)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2019-01-01T00:00:00Z",
        "config": {"Cmd": command, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": "2019-01-01T00:00:00Z", "created_by": "busybox"}],
    }
    config = json.dumps(config).encode()
    configured = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": configured, "RepoTags": None, "Layers": ["layer.tar"]}]
    with tarfile.open(f"{directory}/{name}.tar", "w") as archive:
        add(archive, configured, config, 0o644)
        add(archive, "layer.tar", layer, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


image("alpine-3.10", ["/bin/sh"], {"etc/alpine-release": b"3.10.0\n"})
image("alpine-latest", ["/bin/sh"], {"etc/alpine-release": b"3.20.0\n"})
image("busybox-latest", ["sh"], {})
image("hello-world-latest", ["/hello"], {"hello": b"#!/bin/sh\necho Hello from Docker!\n"})
PYTHON
}

# --- the registry ----------------------------------------------------------------------------

trap 'end; rm -rf --one-file-system "$scratch"' EXIT
start_registry() {
    cat >"$scratch/registry.yml" <<YML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $scratch/registry } }
http: { addr: "$registry" }
YML
    "${inside[@]}" docker-registry serve "$scratch/registry.yml" </dev/null >>"$out/registry.log" 2>&1 &
    daemons+=($!)
    await "registry" answers "http://$registry/v2/"
}
fill_registry() {
    local name
    for name in alpine-3.10 alpine-latest busybox-latest hello-world-latest; do
        "${inside[@]}" skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
            "docker-archive:$scratch/$name.tar" "docker://$registry/library/${name%-*}:${name##*-}" ||
            fail "the registry takes no image"
    done
}

# --- the suite -------------------------------------------------------------------------------

# Credentials are those of helper programs, without an engine.
left_out=(--ignore=tests/integration/credentials)
for name in api_build api_config api_plugin api_secret api_service api_swarm models_nodes \
    models_services models_swarm; do
    left_out+=("--ignore=tests/integration/${name}_test.py")
done
[ ${#selection[@]} -gt 0 ] || selection=(tests/integration)

# suite NAME : the tests against the daemon NAME.
suite() {
    local name container socket="unix://$scratch/$1/sock"
    place "$1"
    start_registry
    [ -e "$scratch/filled" ] || { fill_registry && : >"$scratch/filled"; }
    "start_$1"
    await "$1" answers --unix-socket "$scratch/$1/sock" http://here/_ping
    for name in alpine:3.10 alpine:latest busybox:latest hello-world:latest; do
        answers --max-time 120 --unix-socket "$scratch/$1/sock" -X POST \
            "http://here/v$api/images/create?fromImage=${name%:*}&tag=${name#*:}" >>"$out/$1.pull"
    done
    mkdir -p "$scratch/$1/home/.docker" "$scratch/$1/tmp"
    # Without it, contexts are written into the checkout.
    say '{}' >"$scratch/$1/home/.docker/config.json"
    "${inside[@]}" env --chdir="$checkout" -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH \
        HOME="$scratch/$1/home" TMPDIR="$scratch/$1/tmp" DOCKER_HOST="$socket" \
        DOCKER_TEST_API_VERSION="$api" PYTHONDONTWRITEBYTECODE=1 \
        timeout 3000 "$python" -m pytest -p no:cacheprovider -q -rA --tb=short \
        --timeout 120 --junit-xml "$out/$1.xml" "${left_out[@]}" -k 'not build' \
        "${selection[@]}" </dev/null >"$out/$1.txt" 2>&1
    for container in $(answers --unix-socket "$scratch/$1/sock" \
        "http://here/v$api/containers/json?all=1" | grep -o '"Id":"[0-9a-f]*"' | cut -d'"' -f4); do
        answers --unix-socket "$scratch/$1/sock" -X DELETE \
            "http://here/v$api/containers/$container?force=1&v=1"
    done
    end
}

# results NAME : `passed|failed|skipped TEST`, one a line, sorted.
results() {
    "$python" - "$out/$1.xml" <<'PYTHON' | sort -u -k 2
import sys
import xml.etree.ElementTree as tree

for case in tree.parse(sys.argv[1]).iter("testcase"):
    kinds = {child.tag for child in case}
    word = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
    print(word, case.get("classname").removeprefix("tests.integration.") + "." + case.get("name"))
PYTHON
}
images || fail "could not make the images"
compare docker-py
