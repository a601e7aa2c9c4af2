#!/usr/bin/env bash
# A tour of every command of the docker client, against Gamut and against dockerd:
#
#   ./test --external docker-tour=SWAGGER-DIR
#
# SWAGGER-DIR holds moby's descriptions of the API (api/docs/v1.*.yaml); each answer of Gamut to the
# client is held against the one of the negotiated version. The commands are those of
# docker-tour.commands. DOCKER and DOCKERD name other programs than those of the PATH, CONTAINERD_BIN
# a directory that goes before it for dockerd, and API the version that the client is told to speak
# (default: the newest that client and engine share; the comparison with dockerd is made in the newest
# that all three share).
#
# In target/external/docker-tour: gamut.txt and dockerd.txt, what each said; tour.diff; and
# gamut.records and dockerd.records, one line of JSON per exchange (tests/recorder). ENGINES=gamut
# leaves dockerd out.
#
# docs/docker-compatibility.md is made of such records, and of those that tests/e2e/operations.rs
# writes to GAMUT_TEST_RECORDS if GAMUT_TEST_SWAGGER names SWAGGER-DIR:
#
#   api-recorder --document SWAGGER-DIR "docker 28=.../gamut.records" "tests=FILE" \
#       >docs/docker-compatibility.md
set -u -o pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
. "$here/scripts/common.sh"

swagger=$(cd "${1:?the directory of moby\'s api/docs}" && pwd) || exit 1
only=${2-}
target="${CARGO_TARGET_DIR:-$here/target}"
out="${OUT:-$target/external/docker-tour}"
gamut="${GAMUT_BIN:-$target/gamut-debug/gamut}"
docker="${DOCKER:-$(command -v docker || true)}"
dockerd="${DOCKERD-$(command -v dockerd || true)}"
recorder="$target/debug/api-recorder"

[ "$(id -u)" = 0 ] || fail "engines need root"
[ -x "$docker" ] || fail "no docker client: install one, or name it by DOCKER"
[ -x "$gamut" ] || [ -n "${ENGINES-}" ] || fail "no $gamut: run ./build --debug first"
have jq && have busybox || fail "the tour needs jq and busybox"
[ -n "$(find "$swagger" -name 'v1.*.yaml' | head -n 1)" ] || fail "no v1.*.yaml in $swagger"
(cd "$here" && cargo build --locked --quiet -p gamut-tests --bin api-recorder) || exit 1

mkdir -p "$out"
work=$(mktemp -d)
chmod 755 "$work"
started=()
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${started[@]}"; do
        timeout 30 tail --pid="$pid" -f /dev/null 2>/dev/null
    done
    find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null
    rm -rf --one-file-system "$work"
}
group="gamut-tour-$$"
trap finish EXIT

# --- fixtures ------------------------------------------------------------------------------------

mkdir -p "$work"/{fixtures/bind,fixtures/context,root/{bin,etc,tmp,proc,sys,dev},bin}
cp "$(command -v busybox)" "$work/root/bin/busybox"
busybox --list | while read -r name; do
    [ "$name" = busybox ] || ln -s busybox "$work/root/bin/$name"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$work/root/etc/passwd"
printf 'root:x:0:\nnobody:x:65534:\n' >"$work/root/etc/group"
echo file >"$work/root/etc/file"
echo other >"$work/root/etc/other"
tar --sort=name --mtime=@1700000000 --owner=0 --group=0 -C "$work/root" -cf "$work/rootfs.tar" .
printf 'FROM scratch\nCOPY file /\n' >"$work/fixtures/context/Dockerfile"
echo file >"$work/fixtures/context/file"

cat >"$work/bin/shape" <<'END'
#!/bin/sh
jq -S . 2>&1
END
cat >"$work/bin/keys" <<'END'
#!/bin/sh
jq -r 'paths(..) | map(if type == "number" then "[]" else . end) | join(".")' | sort -u
END
cat >"$work/bin/in-net" <<'END'
#!/bin/sh
exec nsenter --net="/proc/$ENGINE_PID/ns/net" "$@"
END
ln -s "$docker" "$work/bin/docker"
chmod 755 "$work/bin/shape" "$work/bin/keys" "$work/bin/in-net"

# --- engines -------------------------------------------------------------------------------------

# engine NAME COMMAND... : starts an engine in namespaces of its own, and a registry beside it.
engine() {
    local name=$1 place=$work/$1
    shift
    mkdir -p "$place"
    unshare --mount --net --propagation private sh -c 'ip link set lo up; exec "$@"' engine "$@" \
        >"$out/$name.log" 2>&1 </dev/null &
    eval "${name}_pid=$!"
    started+=($!)
    if have docker-registry; then
        printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:5000}\n' \
            "$place/registry" >"$place/registry.yml"
        sleep 0.2
        nsenter --net="/proc/$!/ns/net" docker-registry serve "$place/registry.yml" >/dev/null 2>&1 </dev/null &
        started+=($!)
    fi
}
# reached SOCKET : waits until an engine answers.
reached() {
    local try
    for try in $(seq 300); do
        DOCKER_HOST="unix://$1" timeout 10 "$docker" version >/dev/null 2>&1 && return
        sleep 0.2
    done
    return 1
}
# newest SOCKET : the newest version that client and engine share.
newest() { DOCKER_HOST="unix://$1" "$docker" version --format '{{.Client.APIVersion}}'; }

# tour NAME SOCKET API : all commands, what they say in $out/NAME.txt, exchanges in NAME.records.
tour() {
    local name=$1 socket=$2 api=$3 line said status pid place=$work/$1-tour
    eval "pid=\$${1%%-*}_pid"
    rm -f "$out/$name.records"
    "$recorder" "$work/$name.api" "$socket" "$swagger" "$out/$name.records" &
    local recorder_pid=$!
    started+=($recorder_pid)
    rm -rf --one-file-system "$place"
    cp -r "$work/fixtures" "$place"
    cp "$work/rootfs.tar" "$place/rootfs.tar"
    echo content >"$place/file"
    # For whoever is inside of the engine's namespace as for the client.
    export DOCKER_HOST="unix://$work/$name.api" DOCKER_CONFIG="$place/config" DOCKER_API_VERSION="$api"
    export T=$place ENGINE_PID=$pid DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false COLUMNS=200
    START=$(date +%s) && export START
    sleep 0.3
    while read -r line; do
        case $line in '' | '# '*) continue ;; '## '*) echo; echo "$line"; continue ;; esac
        echo "\$ $line"
        said=$(PATH="$work/bin:$PATH" timeout -k 5 60 bash -c "$line" 2>&1 </dev/null)
        status=$?
        [ -z "$said" ] || printf '%s\n' "$said"
        [ $status = 0 ] || echo "[exit status $status]"
    done < <(if [ -n "$only" ]; then grep -E "$only" "$here/tests/external/docker-tour.commands"
        else cat "$here/tests/external/docker-tour.commands"; fi) >"$out/$name.raw"
    unset DOCKER_HOST DOCKER_API_VERSION DOCKER_CONFIG
    kill $recorder_pid
    normalise "$place" <"$out/$name.raw" >"$out/$name.txt"
}
# normalise PLACE : what differs from run to run, by its kind.
normalise() {
    sed -E \
        -e "s#$1#PLACE#g" -e "s#$work/[a-z-]+#ROOT#g" \
        -e 's/[0-9a-f]{64}/ID/g' -e 's/\b[0-9a-f]{12}\b/SHORT/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(\.[0-9]+)?( ?[-+][0-9:]{4,5}( [A-Z]+)?|Z)?/TIME/g' \
        -e 's/(About an? |Less than an? )?[0-9]* ?(seconds?|minutes?|hours?|years?) ago/AGO/g' \
        -e 's/\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b/MAC/g' \
        -e 's/Up (About an? |Less than an? )?[0-9]* ?(seconds?|minutes?)/Up AGO/g' \
        -e 's/"(Pid|time|timeNano)": [0-9]+/"\1": N/g' \
        -e 's/\b[0-9.]+ ?([kKMG]i?B|B)\b/SIZE/g' \
        -e 's/[[:space:]]+$//' -e '/^\{|^ |^\$/!s/ {2,}/  /g'
}

wanted() { case " ${ENGINES-gamut dockerd} " in *" $1 "*) ;; *) return 1 ;; esac; }
[ -n "$dockerd" ] || note "no dockerd on this machine: install it, or name it by DOCKERD, to compare"

gamut_socket=$work/gamut/run/gamut.sock
dockerd_socket=$work/dockerd/docker.sock
api=${API-}
if wanted gamut; then
    engine gamut env "GAMUT_SUPERVISOR=${GAMUT_SUPERVISOR:-${gamut%/*}/gamut-supervisor}" \
        "GAMUT_MONITOR=${GAMUT_MONITOR:-${gamut%/*}/gamut-monitor}" \
        "$gamut" daemon --data-root "$work/gamut/data" --run-root "$work/gamut/run" \
        --cgroup-parent "/$group/gamut"
    reached "$gamut_socket" || { tail "$out/gamut.log"; fail "Gamut does not come up"; }
    api=${api:-$(newest "$gamut_socket")}
fi
if wanted dockerd && [ -n "$dockerd" ]; then
    # shellcheck disable=SC2086
    engine dockerd env "PATH=${CONTAINERD_BIN:+$CONTAINERD_BIN:}$PATH" "$dockerd" \
        --data-root "$work/dockerd/data" --exec-root "$work/dockerd/exec" \
        --pidfile "$work/dockerd/pid" -H "unix://$dockerd_socket" \
        --cgroup-parent "/$group/dockerd" ${DOCKERD_FLAGS-}
    reached "$dockerd_socket" || { tail "$out/dockerd.log"; fail "dockerd does not come up"; }
    api=$(printf '%s\n%s\n' "${api:-9.99}" "$(newest "$dockerd_socket")" | sort -V | head -n 1)
    note "the tour with dockerd, API $api"
    tour dockerd "$dockerd_socket" "$api"
fi
if wanted gamut; then
    note "the tour with gamut, API $api"
    tour gamut "$gamut_socket" "$api"
fi

# --- what came of it -----------------------------------------------------------------------------

problems() {
    jq -r 'select(.problems != []) | . as $r | .problems[] | "\($r.method) \($r.operation) \($r.status): \(.)"' \
        "$out/$1.records" | sort | uniq -c | sort -rn
}
undescribed() {
    jq -r 'select(.undescribed != []) | . as $r | .undescribed[] | "\($r.method) \($r.operation) \($r.status): \(.)"' \
        "$out/$1.records" | sort | uniq -c | sort -rn
}
# shapes NAME : what is wrong with answers but their status, which the description often leaves out.
shapes() { sed -E 's/^ *[0-9]+ //; /status [0-9]+ is not described/d' "$out/$1.problems" | sort; }
for name in gamut dockerd; do
    [ -e "$out/$name.records" ] || continue
    problems $name >"$out/$name.problems"
    undescribed $name >"$out/$name.undescribed"
    say "$name: $(grep -c . "$out/$name.records") answers, $(grep -c . "$out/$name.problems") kinds of problems, $(grep -c . "$out/$name.undescribed") undescribed fields"
done
[ ! -e "$out/dockerd.txt" ] || {
    diff -U 3 "$out/dockerd.txt" "$out/gamut.txt" >"$out/tour.diff"
    say "$(grep -c '^\$' "$out/gamut.txt") commands; $(grep -c '^[-+][^-+]' "$out/tour.diff") lines differ from dockerd's: $out/tour.diff"
}
if wanted gamut; then
    touch "$out/dockerd.problems"
    bad=$(comm -23 <(shapes gamut) <(shapes dockerd))
    [ -z "$bad" ] || { say "answers that are not as described, unlike dockerd's:"; say "$bad"; exit 1; }
fi
