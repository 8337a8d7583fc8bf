# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What every script here shares. Sourced, never run.
set -euo pipefail
shopt -s inherit_errexit

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${XDG_CACHE_HOME:-${HOME:?set HOME, the cache lies below it}/.cache}/kvm-fwb-reset
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
logs=$cache/log
mkdir -p "$logs"

# Progress counts from the start of what the person typed, through all the scripts that it runs.
export STARTED=${STARTED:-$EPOCHSECONDS}
step() { printf '[%3d s] %s\n' $((EPOCHSECONDS - STARTED)) "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# locked NAME: only one process at a time goes on from here; the lock goes with the process.
locked() {
	mkdir -p "$cache/lock"
	exec {lock_fd}>"$cache/lock/${1//\//_}"
	flock -n "$lock_fd" && return
	step "waiting for another run to finish with $1"
	flock "$lock_fd"
}

# logged NAME CMD...: keep a long command's output in a log, and show its end only if it fails.
logged() {
	local log=$logs/$1.log
	shift
	"$@" >"$log" 2>&1 </dev/null {lock_fd}>&- && return
	tail -n 20 "$log" >&2
	die "failed: $1; the whole output is in $log"
}

# fresh DIR: an empty DIR.new to build in. `finish DIR` gives it its name, so that what has the name is whole.
fresh() { rm -rf "$1.new" && mkdir -p "$1.new"; }
finish() { rm -rf "$1" && mv "$1.new" "$1"; }
