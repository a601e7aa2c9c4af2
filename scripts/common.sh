# shellcheck shell=bash disable=SC2034
# Shared by ./build, ./run and ./test. Sourced, never run.

say() { printf '%s\n' "$*"; }
note() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

[ -t 2 ] || note() { printf '%s\n' "$*" >&2; }

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
[ ! -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
export PATH

# install_packages PACKAGE... : installs what is missing, quietly; false if that is not possible.
install_packages() {
    local missing=() package
    have dpkg-query || { note "not a Debian-like machine: install by yourself what is missing: $*"; return 1; }
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || { note "not root, so these are not installed: ${missing[*]}"; return 1; }
    note "installing ${missing[*]}"
    # Services that come along (a registry, a daemon) stay off.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
    fi
    local log status=0
    log=$(mktemp)
    {
        timeout 120 apt-get -qq update
        DEBIAN_FRONTEND=noninteractive timeout 600 \
            apt-get -qq -y --no-install-recommends install "${missing[@]}"
    } >"$log" 2>&1 </dev/null || status=1
    [ -z "$made" ] || rm -f "$policy"
    [ $status = 0 ] || { tail -n 5 "$log" >&2; note "could not install ${missing[*]}"; }
    rm -f "$log"
    return $status
}

# need_cargo : a Rust toolchain, or a clear word how to get one.
need_cargo() {
    have cargo && have rustc && return
    fail "no cargo on PATH. Gamut is built with Rust 1.91 or newer; install it with
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
and run this again."
}

# What a build needs beside Rust: a linker and the C compiler for zstd and ring.
BUILD_PACKAGES=(gcc libc6-dev)
# What an engine needs to run: nft, ip; and what ./run and ./test call beside that.
RUN_PACKAGES=(nftables iproute2 procps util-linux curl ca-certificates)

# host_triple : the target that this machine builds for.
host_triple() { rustc -vV | sed -n 's/^host: //p'; }
