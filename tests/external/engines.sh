# shellcheck shell=bash disable=SC2154
# A Gamut daemon and a dockerd beside each other, each in namespaces of its own, for suites that ask
# both. Sourced, never run. The caller sets $scratch, $out, $bin (where gamut is), $group (a control
# group), $registry (where a registry on loopback may listen) and $engines (which of the two).

# A process in each daemon's namespaces, by which the rest enters them; and how.
holders=() daemons=() inside=()

# place NAME : namespaces for a daemon, with loopback up and mounts that go nowhere.
place() {
    mkdir -p "$scratch/$1"
    unshare --mount --net --propagation private sh -c '
        mount --make-rshared / && ip link set lo up && : >"$1" && exec sleep 100000' \
        place "$scratch/$1/made" &
    holders+=($!)
    inside=(nsenter --target $! --mount --net --)
    await "namespaces" test -e "$scratch/$1/made"
}
await() {
    local what=$1 turn
    shift
    for turn in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what: nothing after ${turn%?} s"
}
answers() { "${inside[@]}" curl --silent --fail --max-time 5 "$@"; }

start_gamut() {
    printf '{"registries": {"docker.io": {"mirrors": ["http://%s"]}, "%s": {"insecure": true}}}\n' \
        $registry $registry >"$scratch/registries.json"
    "${inside[@]}" env GAMUT_SUPERVISOR="$bin/gamut-supervisor" GAMUT_MONITOR="$bin/gamut-monitor" \
        "$bin/gamut" daemon --data-root "$scratch/gamut/data" --run-root "$scratch/gamut/run" \
        --cgroup-parent "$group" --registries "$scratch/registries.json" \
        --host "unix://$scratch/gamut/sock" </dev/null >"$out/gamut.log" 2>&1 &
    daemons+=($!)
}
start_dockerd() {
    # Not the machine's own configuration.
    say '{}' >"$scratch/dockerd/none.json"
    "${inside[@]}" dockerd --data-root "$scratch/dockerd/data" --exec-root "$scratch/dockerd/run" \
        --pidfile "$scratch/dockerd/pid" --host "unix://$scratch/dockerd/sock" \
        --config-file "$scratch/dockerd/none.json" --cgroup-parent "$group" \
        --registry-mirror "http://$registry" --insecure-registry $registry \
        </dev/null >"$out/dockerd.log" 2>&1 &
    daemons+=($!)
}
# end : the daemons of this round, which take their workloads with them, and their namespaces.
end() {
    local pid
    for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null; done
    for pid in "${holders[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${holders[@]}"; do wait "$pid" 2>/dev/null; done
    daemons=() holders=()
    find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup*$group*" -exec rmdir {} + 2>/dev/null
}

count() { grep -c "^$2 " "$out/$1.results" || true; }

# compare SUITE : runs it with each engine, by the caller's functions `suite NAME`, which leaves
# NAME.xml and NAME.txt in $out, and `results NAME`, which prints `passed|failed|skipped TEST`, one a
# line, sorted. Prints the counts and what differs: gamut's word, dockerd's word, the test.
compare() {
    local name
    for name in $engines; do rm -f "$out/$name".*; done
    for name in $engines; do
        suite "$name"
        [ -s "$out/$name.xml" ] || { tail -n 20 "$out/$name.txt" >&2; fail "the suite did not run"; }
        results "$name" >"$out/$name.results"
    done
    printf '%-16s %10s %10s %10s\n' "$1" passed failed skipped
    for name in $engines; do
        printf '%-16s %10s %10s %10s\n' "$name" \
            "$(count "$name" passed)" "$(count "$name" failed)" "$(count "$name" skipped)"
    done
    [ -e "$out/gamut.results" ] && [ -e "$out/dockerd.results" ] || return 0
    join -1 2 -2 2 -o 1.1,2.1,0 "$out/gamut.results" "$out/dockerd.results" |
        awk '$1 != $2 { printf "%-8s with gamut, %-8s with dockerd: %s\n", $1, $2, $3 }' |
        tee "$out/differences"
    note "what they said: $out"
}
