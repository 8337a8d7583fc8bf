# SPDX-License-Identifier: GPL-2.0
#
# What a person types. The kernel's own build reads Kbuild instead.

.PHONY: module demo shell bench bench-compare check test soak doc selftest verify firmware fuzz upstream scale mutate mutate-all stat trace picture deb deb-test host-test secure-boot-test matrix dist clippy fmt clean help
module:

# All of these may be given on the command line: make demo CPU=neoverse-n1
export KERNEL KDIR LLVM CONFIG CPU VCPUS REBOOTS KERNELS STATES RESETS MODULE COUNT SEED SCHEDULE TESTS TIME BY SUFFIX FROM

module:
	@scripts/module >/dev/null

demo shell bench bench-compare check test soak doc clippy selftest verify firmware fuzz upstream scale mutate mutate-all stat trace picture deb matrix dist:
	@scripts/$@

deb-test host-test secure-boot-test:
	@scripts/tests/$(@:-test=)

fmt:
	@scripts/lab/in-tree rustfmt --edition 2021 src/*.rs rust/*.rs
	@cd tools && ../scripts/lab/in-tree cargo fmt

clean:
	rm -rf build

help:
	@echo 'make                    the module, for the running arm64 kernel; elsewhere for the newest of trixie-backports'
	@echo 'make KERNEL=RELEASE     for any arm64 kernel that Debian publishes now'
	@echo 'make KDIR=DIR [LLVM=1]  for the kernel whose build tree, with Rust metadata, is DIR'
	@echo '                        The result is build/RELEASE/kvm_fwb_reset.ko'
	@echo 'make demo               reboot a real guest, without and with the module at work, and count'
	@echo '                        [CPU=cortex-a710,...] [KERNEL=] [VCPUS=4] [REBOOTS=3]'
	@echo 'make shell              a shell on an emulated arm64 host, with the module there to load [CPU=] [KERNEL=]'
	@echo 'make bench              what resets, calls and the module cost, in every state of the host, into docs/benchmarks.md'
	@echo '                        [CPU=] [KERNEL=] [KERNELS="stock legacy"] [STATES="none once"] [VCPUS="1 8"] [TOUCHED="0 64"]'
	@echo '                        [CALLS=] [VMS="1 100"] [GUESTS="kernel edk2"] [RUNS=3] [JOBS=2]; 20 minutes with GUESTS='
	@echo 'make bench-compare      fails if figures are worse than before [A=the committed] [B=build/bench/rows.json] [BOUND=2]'
	@echo 'make selftest           the tests that boot, on each CPU model or [CPU=] [KERNEL=]; with a storm of TIME=1 minutes'
	@echo '                        [CONFIG=debug] on a kernel with KASAN, lockdep, kmemleak and faults; [CONFIG=rt] with PREEMPT_RT and lockdep'
	@echo 'make verify             what each VM reset did to the caches, by kernel, policy and CPU; a long run'
	@echo '                        [CPU=] [KERNEL=] [KERNELS="stock rfc legacy"] [STATES="none once"] [VCPUS="1 8 64"] [RESETS=3]'
	@echo 'make firmware           a Debian guest behind EDK2, reset at odd moments, below the oracle [CPU=] [KERNEL=] [RESETS=20] [VCPUS=2]'
	@echo 'make fuzz               resets in any order, with anything between, on the module and below the oracle; a long run'
	@echo '                        [CPU=] [KERNEL=] [COUNT=1000] [SEED=] [SCHEDULE=]'
	@echo 'make upstream           KVM'"'"'s own selftests, without the module and under each policy; a long run [CPU=] [KERNEL=] [TESTS="..."]'
	@echo 'make scale              512 vCPUs, 1,000 VMs, 64 GiB in one, a long unmap [CPU=] [KERNEL=]'
	@echo 'make mutate             mutants of the module, and what catches each: the model, or a boot [BY=model|simulated|oracle|selftest|first]'
	@echo 'make mutate-all         every mutant of src/ and rust/ that cargo-mutants knows of, and whether anybody tells; a day [FROM=NUMBER]'
	@echo '                        Of some files: scripts/mutate-all FILE...'
	@echo 'make stat               build/kvm-fwb-stat, a static binary for arm64: what every guest reset cost'
	@echo 'make deb                Debian packages for arm64 hosts, in build/deb: tools, DKMS, and the module for KERNEL= [SUFFIX=]'
	@echo 'make deb-test           install, upgrade, remove and purge them on an emulated arm64 Debian, as root [KERNEL=]'
	@echo 'make host-test          build by make and by DKMS on an emulated arm64 Debian, and on one booted from its disk, as root;'
	@echo '                        two hours [KERNEL=]'
	@echo 'make secure-boot-test   the module, signed, on an emulated host that was booted with Secure Boot [KERNEL=]'
	@echo 'make matrix             the selftest on every arm64 kernel that Debian publishes now; writes docs/compatibility.md [KERNEL="..." | KDIR= VMLINUZ= LLVM=]'
	@echo 'make dist               build/dist/kvm-fwb-reset-VERSION.tar.xz of what is committed, and its checksum'
	@echo 'make picture            docs/kvm-fwb-stat.svg, its screen while guests reboot on an emulated host [KERNEL=]'
	@echo 'make trace              the one-liners of docs/tracing.md on an emulated host, while guests reboot [KERNEL=]'
	@echo 'make check              for whoever is editing: lint, the tools'"'"' own tests, one boot of the selftest [CPU=] [KERNEL=]'
	@echo 'make test               every test that a change can break, on 2 cores in half an hour [KERNEL=]'
	@echo 'make soak               what takes hours: selftest, as it is, CONFIG=debug and CONFIG=rt, with storms of TIME=60 minutes;'
	@echo '                        all of mutate, firmware, upstream, scale, secure-boot-test, verify, fuzz [COUNT=1000] and mutate-all'
	@echo 'make doc                what rustdoc says of module and tools, in build/doc [KERNEL=]'
	@echo 'make clippy, make fmt   lint, and format'
	@echo 'make clean              remove build/; what was fetched stays in ~/.cache/kvm-fwb-reset'
