# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# A clean arm64 Debian, whose programs run by user-mode emulation: what tests that install something take for a host.
# Sourced after lib.sh, by root. Whoever sources it sets $work, an empty directory for what becomes of it.
# shellcheck disable=SC2016 # meant for inner shells
# shellcheck disable=SC2154 # set by whoever sources it

((EUID == 0)) || die "needs root, to register an emulator for arm64 programs: run it as root"
arm64_tree=$cache/tree/arm64 arm64_packages=dkms,e2fsprogs

# Debian's emulator, the one of the tree that packs (scripts/deb): older ones hang in rustc. The kernel keeps it open (F),
# so that it is there in any root. By a name of this test's own, to be taken back whoever else runs.
binfmt=/proc/sys/fs/binfmt_misc
export binfmt_name=${binfmt_name:-kvm-fwb-reset-$$}
unregister() {
	[[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc "$binfmt"
	[[ ! -e $binfmt/$binfmt_name ]] || echo -1 >"$binfmt/$binfmt_name"
}
register() {
	local zero16='\x00\x00\x00\x00\x00\x00\x00\x00'
	unregister
	# An ELF file of 64 bits, little-endian, EXEC or DYN, for machine 183.
	printf ':%s:M::%s:%s:%s:F' "$binfmt_name" "\x7fELF\x02\x01\x01\x00$zero16\x02\x00\xb7\x00" \
		'\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' \
		"$cache/tree/deb/usr/bin/qemu-aarch64" >"$binfmt/register"
}

# apt gives dpkg a session of its own, which no signal to this test would reach. So the test is started again as the first
# process of a namespace: what is in there ends with it, however it ends.
if (($$ != 1)); then
	unshare --pid --mount-proc --kill-child "$0" "$@" <&0 &
	trap 'kill -KILL $! 2>/dev/null || :; unregister' EXIT
	trap 'exit 1' INT TERM
	wait $!
	exit
fi

# arm64_host: register the emulator, make the tree if there is none, and have `host` start from it
arm64_host() {
	register
	mkdir -p "$work"/{upper,overlay,root,bare}
	(make_arm64_tree) || exit
}
make_arm64_tree() {
	locked tree/arm64
	[[ ! -e $arm64_tree/.packages || $(<"$arm64_tree/.packages") != "$arm64_packages" ]] || return 0
	step "making a clean arm64 tree, emulated (a few minutes)"
	fresh "$arm64_tree"
	chmod 755 "$arm64_tree.new"
	# Inside it nothing reaches the network unless a test wants it, so what the packages depend on is there before.
	logged tree-arm64 "$repo/scripts/lab/in-tree" --alone mmdebstrap --mode=root --variant=apt --architectures=arm64 \
		--skip=check/qemu --include="$arm64_packages" --aptopt='APT::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' --aptopt='APT::Sandbox::User "root"' --dpkgopt=force-unsafe-io \
		trixie "$arm64_tree.new"
	echo "$arm64_packages" >"$arm64_tree.new/.packages"
	finish "$arm64_tree"
}

# host CMD...: on the arm64 host, which starts as the tree is; $work is its /packages, and /packages/bare its own root
# without what is mounted there
host() {
	"$repo/scripts/lab/in-tree" --alone bash -euc '
		tree=$1 work=$2
		shift 2
		mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/overlay" "$work/root"
		for d in /dev /proc; do mount --rbind $d "$work/root$d"; done
		mkdir -p "$work/root/packages"
		mount --bind "$work" "$work/root/packages"
		mount --bind "$work/root" "$work/root/packages/bare"
		exec chroot "$work/root" env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
	' host "$arm64_tree" "$work" "$@"
}

# stand_in NAME VERSION [FILE...]: a package with these empty files, in place of a large one
stand_in() {
	local dir=$work/stand-in file
	rm -rf "$dir"
	mkdir -p "$dir/DEBIAN"
	printf '%s\n' "Package: $1" "Version: $2" "Architecture: arm64" "Maintainer: nobody <nobody@localhost>" \
		"Description: stand-in" >"$dir/DEBIAN/control"
	for file in "${@:3}"; do
		mkdir -p "$dir/$(dirname "$file")"
		touch "$dir/$file"
	done
	dpkg-deb -b "$dir" "$work/$1_$2.deb" >/dev/null
}
