# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Parts of a run, each one test or many, and their count. Sourced after ktap.sh by what ends in
# "N passed, N failed, N skipped".

export TERM=dumb
cd "${repo:?source lib.sh first}" || exit
parts=$(mktemp -d)
: >"$parts/counts"
# However this ends, it ends in the count, and nothing goes on behind it.
trap ended EXIT
trap 'add 0 1 0; exit 1' INT TERM
ended() {
	local group
	for group in $(jobs -rp); do kill -- "-$group" 2>/dev/null || :; done
	wait
	[[ ! -s $parts/times ]] || step "longest: $(sort -rn "$parts/times" | head -n 8 | paste -sd , | sed 's/,/, /g')"
	awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$parts/counts"
	rm -rf "$parts"
}

add() { echo "$@" >>"$parts/counts"; }
# took BEGIN NAME: a part that began then has ended
took() { echo "$((EPOCHSECONDS - $1)) s for ${2//,/}" >>"$parts/times"; }
# all_passed: so far
all_passed() { ! awk '$2' "$parts/counts" | grep -q .; }

# part NAME CMD...: one test, that CMD succeeds; what it printed is shown only if it does not
part() {
	local name=$1 begin=$EPOCHSECONDS status=0 log
	shift
	step "$name"
	log=$(mktemp -p "$parts")
	"$@" >"$log" 2>&1 </dev/null || status=$?
	took "$begin" "$name"
	if ((status == 0)); then
		add 1 0 0
		return
	fi
	add 0 1 0
	failed "$name" "$log"
	return 1
}
failed() { printf '%s\nFAILED: %s\n' "$(tail -n 60 "$2")" "$1"; }

# counted NAME FILTER CMD...: as many tests as FILTER finds in what CMD printed, which is "passed failed skipped"
counted() {
	local name=$1 filter=$2 begin=$EPOCHSECONDS status=0 counts log
	shift 2
	step "$name"
	log=$(mktemp -p "$parts")
	"$@" >"$log" 2>&1 </dev/null || status=$?
	took "$begin" "$name"
	read -ra counts < <("$filter" "$log")
	# One that says that it failed, or found nothing to run, has failed at least once.
	if ((status && !counts[1] || !counts[0] && !counts[2])); then counts[1]=1; fi
	add "${counts[@]}"
	((counts[1] == 0)) || failed "$name" "$log"
}
cargo_counts() {
	awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$1"
}

# beside CMD...: parts of their own, beside what goes on and at most one other; in a process group, to be ended with it
beside() {
	set -m
	two_at_a_time "$@"
	set +m
}

in_tools() { (cd tools && "$repo/scripts/lab/in-tree" "$@"); }

# lint: what is seen without running anything of it
lint() {
	local scripts
	mapfile -t scripts < <(find .ci scripts debian/dkms -type f -not -path '*/config/*' | sort)
	part "shellcheck" scripts/lab/in-tree shellcheck --external-sources "${scripts[@]}" || :
	part "rustfmt, module" scripts/lab/in-tree rustfmt --edition 2021 --check src/*.rs rust/*.rs || :
	part "rustfmt, tools" in_tools cargo fmt --check || :
	part "clippy, tools" scripts/clippy tools || :
}
unit_tests() { counted "unit tests, tools" cargo_counts in_tools cargo test --locked; }

# selftest CONFIG: the tests that boot, on the kernel of that name (scripts/lab/config), or with none on Debian's; a boot's
# log is a part
selftest() {
	local begin=$EPOCHSECONDS name=selftest${1:+ on the kernel $1} status=0 mark failed logs log
	step "$name"
	# Logs of a run before are none of this one's.
	mark=$(mktemp -p "$parts")
	CONFIG=${1-} scripts/selftest || status=$?
	took "$begin" "$name"
	mapfile -t logs < <(find build/selftest"${1:+-$1}" -maxdepth 1 -name '*.log' -newer "$mark" 2>/dev/null | sort)
	for log in "${logs[@]}"; do
		counted "${1:+$1: }${log##*/}" ktap cat "$log"
		read -r _ failed _ < <(ktap "$log")
		((!failed)) || status=0
	done
	((status == 0 && ${#logs[@]})) || { add 0 1 0 && echo "FAILED: $name ended with status $status after ${#logs[@]} boots"; }
}
