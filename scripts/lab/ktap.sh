# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# KTAP, written and read. Sourced after lib.sh.

tests=0 failures=0

# result NAME [WRONG]: a test, and what is wrong, where something is
result() {
	tests=$((tests + 1))
	if [[ ${2-} ]]; then
		failures=$((failures + 1))
		remark "$2"
		printf 'not '
	fi
	echo "ok $tests $1"
}
remark() { printf '# %s\n' "${1//$'\n'/$'\n'# }"; }

# same NAME WANTED GOT: a test, that they are
same() {
	if [[ $2 == "$3" ]]; then result "$1"; else result "$1" "want $2, got ${3:-nothing}"; fi
}

# succeeds NAME CMD...: a test, that CMD does; what it said is shown only if it does not
succeeds() {
	local name=$1 said
	shift
	if said=$("$@" 2>&1 </dev/null); then result "$name"; else result "$name" "${said:-failed, and said nothing}"; fi
}

# planned: the end of the tests; fails if one of them did
planned() {
	echo "1..$tests"
	((failures == 0))
}

# ktap FILE: "passed failed skipped" of the KTAP in it; what a plan promised and nothing reported has failed
ktap() {
	sed 's/\r//g' "$1" | awk '
		/^1\.\.[0-9]+$/ { plan += substr($0, 4) }
		/^ok [0-9]+.*# SKIP/ { skipped++; next }
		/^ok [0-9]+/ { passed++ }
		/^not ok [0-9]+/ { failed++ }
		END {
			lost = plan - passed - failed - skipped
			print passed + 0, failed + (lost > 0 ? lost : 0), skipped + 0
		}'
}
