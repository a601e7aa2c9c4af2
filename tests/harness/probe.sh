#!/bin/sh
# What unikernels/probe does, for Linux: one program, two forms, the same test.

# Ends when asked to, as a program should that is the first one of its container.
until_asked() {
    trap "$1" TERM
    while :; do sleep 0.05; done
}

run() {
    name=$1
    shift
    case $name in
    print) for word; do echo "$word"; done ;;
    args) echo probe; for word; do echo "$word"; done ;;
    env) env ;;
    hostname) hostname ;;
    exit) exit "$1" ;;
    sleep) sleep "$1" ;;
    tick)
        trap 'exit 0' TERM
        count=0
        while :; do
            echo "tick $count"
            count=$((count + 1))
            usleep $((${1:-1000} * 1000))
        done
        ;;
    stop)
        [ "$1" != ignore ] || { trap '' TERM; while :; do sleep 0.05; done; }
        echo waiting
        until_asked 'echo stopping; exit 0'
        ;;
    resolve) awk -v name="$1" '$2 == name { print $1 }' /etc/hosts ;;
    get) wget -q -O - "$1" | { echo status 200; cat; } ;;
    serve)
        mkdir -p /tmp/www
        echo "$(hostname) /" >/tmp/www/index.html
        httpd -p "${1:-80}" -h /tmp/www
        echo "listening on port ${1:-80}"
        until_asked 'echo stopped; exit 0'
        ;;
    *) echo "unknown command $name" >&2; exit 1 ;;
    esac
}

if [ "$1" = args ]; then
    run "$1" "$@"
    exit
fi
if [ "$1" != do ]; then
    run "$@"
    exit
fi
shift
while [ $# -gt 0 ]; do
    words=
    while [ $# -gt 0 ] && [ "$1" != then ]; do
        words="$words $1"
        shift
    done
    shift
    # shellcheck disable=SC2086
    run $words
done
