# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it
# What every script here shares. Sourced, never run.
set -euo pipefail
shopt -s inherit_errexit
# Where chroot is, which Debian gives root alone in its PATH.
[[ :$PATH: == *:/usr/sbin:* ]] || PATH+=:/usr/sbin:/sbin

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=${XDG_CACHE_HOME:-${HOME:?set HOME, the cache lies below it}/.cache}/kvm-fwb-reset
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
logs=$cache/log
mkdir -p "$logs"
# What runs on the emulated host is built for.
arm64=aarch64-unknown-linux-gnu
# What is only looked at is not linked, and a plugin cannot be linked as they are.
unlinked=-Ctarget-feature=-crt-static
[[ $repo$cache != *[[:space:]:]* ]] || {
	echo "the kernel's build takes no path with a space or a colon: move this clone from '$repo', or set XDG_CACHE_HOME, now '${cache%/*}'" >&2
	exit 1
}

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
	"$@" >"$log" 2>&1 </dev/null && return
	tail -n 20 "$log" >&2
	die "failed: $1; the whole output is in $log"
}

# fresh DIR: an empty DIR.new to build in. `finish DIR` gives it its name, so that what has the name is whole.
fresh() { rm -rf "$1.new" && mkdir -p "$1.new"; }
finish() { rm -rf "$1" && mv "$1.new" "$1"; }

# arm64_debian: is this a host that the module is for, with compilers and kernels as Debian has them?
arm64_debian() { [[ $(uname -m) == aarch64 ]] && command -v apt-get >/dev/null; }

# git_says ARG...: what git says of this repository; fails where it is none, as one unpacked from a tarball
git_says() { git -c safe.directory="$repo" -C "$repo" "$@" 2>/dev/null; }

# number NAME VALUE MAX: is a whole number from 1 to MAX, or ends here
number() {
	if ! [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || (($2 > $3)); then die "$1=$2 should be a whole number from 1 to $3"; fi
}

# words NAME TEXT ALLOWED...: NAME is set to the words of TEXT, each of which must be allowed
words() {
	local -n list=$1
	local word
	read -ra list <<<"$2"
	for word in "${list[@]}"; do
		[[ " ${*:3} " == *" $word "* ]] || die "$1: '$word' is not one of: ${*:3}"
	done
}

# The CPU models of the lab: what each must turn out to be, or its tests would test something else.
cpu_models=(cortex-a710 neoverse-n1 'max,pauth-impdef=on' cortex-a57 a64fx)
cpu_facts() { # CPU: as in the module's `host` file
	local facts
	case $1 in
	cortex-a710) facts='1 0 1 1 icache as_once' ;;
	neoverse-n1) facts='0 0 1 1 unmap unmaps' ;;
	max,pauth-impdef=on) facts='1 1 1 1 none as_once' ;;
	cortex-a57) facts='0 0 0 0 unmap unmaps' ;;
	a64fx) facts='0 0 1 1 unmap unmaps' ;;
	*) return ;;
	esac
	paste -d ' ' <(printf '%s\n' fwb dic idc vhe native_reset lazy) <(tr ' ' '\n' <<<"$facts")
}
known_cpu() {
	local models
	models=$("$repo/scripts/lab/in-tree" qemu-system-aarch64 -M virt -cpu help | awk '/^ / { print $1 }')
	[[ $'\n'$models$'\n' == *$'\n'"${1%%,*}"$'\n'* ]] ||
		die "CPU=$1 is no model that QEMU knows; the lab's are ${cpu_models[*]}"
}

# cpu_on CPU [KERNEL]: its facts as one word, on the release's kernel or on a wrong one (scripts/lab/wrong-kernel); no word for a
# CPU of which nobody has said what is due
cpu_on() {
	local facts
	facts=$(cpu_facts "$1" | tr ' \n' ':,')
	case ${2-stock} in
	rfc) facts=${facts/native_reset:icache/native_reset:none} ;;
	legacy) facts=${facts/native_reset:icache/native_reset:unmap} ;;
	unclean) facts=${facts/lazy:unmaps/lazy:refused} ;;
	esac
	echo "${facts%,}"
}

# a_core: waits for one of as many places as this machine has cores, whoever runs beside; it goes with the process. What
# takes one waits for no lock.
a_core() {
	local n waited=
	mkdir -p "$cache/lock"
	while :; do
		for ((n = $(nproc); n > 0; n--)); do
			exec {core_fd}>"$cache/lock/core.$n"
			flock -n "$core_fd" && return
			exec {core_fd}>&-
		done
		[[ $waited ]] || step "waiting for one of $(nproc) cores"
		waited=yes
		sleep 0.5
	done
}

# two_at_a_time CMD...: CMD beside what goes on, as soon as that is no more than one other
two_at_a_time() {
	(($(jobs -rp | wc -l) < 2)) || wait -n || :
	"$@" &
}
