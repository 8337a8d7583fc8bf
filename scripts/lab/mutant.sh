# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Mutants of the module, and who looks at them on the build host. Sourced after lib.sh, by whoever says in $work where they
# are made.
: "${repo:?source lib.sh first}" "${work:?}"

# copy NAME: what the module and the model are built of, as it is here
copy() {
	rm -rf "${work:?}/$1"
	mkdir -p "$work/$1"
	cp -r "$repo"/{Kbuild,rust,scripts,src,tools} "$work/$1/"
}

# model NAME: the tests of tools/model that the mutant fails; simulated NAME: those of tools/simulated
model() {
	# Not where the tools are built: to cargo this is the same package, and who is newer is taken for both.
	local cargo=("$repo/scripts/lab/in-tree" env CARGO_TARGET_DIR="$work/target" cargo test --locked --package model
		--test interleavings)
	cd "$work/$1/tools" || return
	logged "mutate-$1" "${cargo[@]}" --no-run
	# What one preemption shows is found in a moment, and most of the rest by two parties alone.
	{
		LOOM_MAX_PREEMPTIONS=1 "${cargo[@]}" &&
			"${cargo[@]}" -- a_vmm_that_resets_in_parallel one_reset_and_a_runner &&
			"${cargo[@]}"
	} >"$work/$1/model" 2>&1 || :
	failed_tests "$work/$1/model"
}

simulated() {
	cd "$work/$1/tools" || return
	"$repo/scripts/lab/in-tree" env CARGO_TARGET_DIR="$work/target" cargo test --locked --package simulated \
		>"$work/$1/simulated" 2>&1 || :
	failed_tests "$work/$1/simulated"
}

# failed_tests LOG: the tests that failed, of those that cargo ran
failed_tests() { sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p' "$1" | sort -u; }
