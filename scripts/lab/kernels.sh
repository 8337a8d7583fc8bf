# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What is known of arm64 kernels, and may change from version to version: what the module needs of one, which compilers
# and programs it takes, how the Rust metadata that Debian's headers lack is made again, and what proves it right.
# Sourced here, and by DKMS on a host (debian/dkms/build): it knows of no cache, no tree and no network.

# option FILE NAME: its value in a kernel's configuration, without quotes
option() { sed -nE "s/^$2=\"?([^\"]*)\"?\$/\\1/;T;p;q" "$1"; }

# unfit CONFIG: why the module cannot be used with a kernel configured so; nothing where it can
unfit() {
	local name
	for name in CONFIG_RUST CONFIG_KVM CONFIG_KPROBES CONFIG_DYNAMIC_FTRACE_WITH_ARGS CONFIG_DEBUG_FS; do
		[[ $(option "$1" $name) == y ]] || { echo "is built without $name: take one with it, as Debian's are since 7.2" && return; }
	done
	for name in CONFIG_CFI CONFIG_CFI_CLANG; do
		[[ $(option "$1" $name) != y ]] ||
			{ echo "is built with $name, and calls through the module's redirects would be refused: take one without" && return; }
	done
	name=CONFIG_KVM_GENERIC_PRE_FAULT_MEMORY
	[[ $(option "$1" $name) != y ]] ||
		echo "maps guest memory without a KVM_RUN ($name), which the module does not know yet: take one without"
}

# cc_of CONFIG: the C compiler that built the kernel, by the name it had there; of clang it is the distribution's that
# comes first
cc_of() {
	local cc
	cc=$(option "$1" CONFIG_CC_VERSION_TEXT)
	cc=${cc%% *}
	[[ $(option "$1" CONFIG_CC_IS_CLANG) != y ]] || cc=clang
	echo "${cc:-gcc}"
}
# by_cc CONFIG: how make is told so
by_cc() {
	local cc
	cc=$(cc_of "$1")
	if [[ $cc == clang ]]; then echo LLVM=1; else echo "CC=$cc"; fi
}

# lacking CONFIG [metadata]: Debian's packages that an arm64 host has to install to build the module for a kernel
# configured so, or its metadata too; nothing where all are there
lacking() {
	local cc packages=()
	cc=$(cc_of "$1")
	need() { [[ -e $1 ]] || command -v "$1" >/dev/null || packages+=("$2"); }
	need make make
	if [[ $cc == clang ]]; then
		need clang clang
		need ld.lld lld
		need llvm-nm llvm
	else
		need gcc gcc
		need "$cc" "${cc#*-linux-gnu-}"
	fi
	need /usr/include/stdio.h libc6-dev
	need rustc rustc
	need bindgen bindgen
	if [[ ${2-} ]]; then
		need "$(rustc --print sysroot 2>/dev/null || echo /usr)/lib/rustlib/src/rust/library" rust-src
		need bc bc
		need bison bison
		need flex flex
		need cpio cpio
		need perl perl
		need rsync rsync
		need xz xz-utils
		need python3 python3-minimal
		need pahole dwarves
		need /usr/include/libelf.h libelf-dev
		need /usr/include/elfutils/libdw.h libdw-dev
		need /usr/include/openssl/ssl.h libssl-dev
		# The configuration asks it which signatures it knows.
		need openssl openssl
		[[ $(option "$1" CONFIG_COMPAT_VDSO) != y ]] || need arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf
	fi
	echo "${packages[*]}"
}

# other_compiler CONFIG TOOLS [CMD...]: how one of TOOLS (rustc, bindgen), as it is here or as CMD runs it, differs from that
# which built the kernel; nothing where none does. rustc makes and reads metadata; bindgen only makes it.
other_compiler() {
	local config=$1 tools=$2 tool want have
	shift 2
	for tool in $tools; do
		want=$(option "$config" "CONFIG_${tool^^}_VERSION_TEXT")
		have=$("$@" "$tool" --version 2>/dev/null || :)
		[[ ! $want || $have == "$want" ]] || { echo "was built with '$want', and here is '${have:-none}'" && return; }
	done
}

# source_of VERSION: the package of the source that Debian's kernel package of VERSION was built from
source_of() { sed -E 's/^([0-9]+\.[0-9]+).*/linux-source-\1/' <<<"$1"; }

# lay_out DIR TARBALL HEADERS [CMD...]: make DIR the source, without what no module build reads, configured as HEADERS are. CMD
# runs tar.
lay_out() {
	local dir=$1 tarball=$2 headers=$3 top unread
	shift 3
	top=$(basename "$tarball" .tar.xz)
	unread=('drivers/*.c' 'drivers/gpu/*.h' 'sound/*.[ch]' 'net/*.c' 'fs/*.c' 'Documentation/*/*' 'arch/*/boot/dts/*')
	mkdir -p "$dir"
	"$@" tar -C "$dir" --strip-components=1 -xf "$tarball" --anchored --wildcards "${unread[@]/#/--exclude=$top/}"
	cp "$headers/.config" "$headers/Module.symvers" "$dir"
}

# metadata DIR RELEASE [CMD...]: make the Rust metadata in DIR, the source of RELEASE as it was laid out. CMD runs make.
metadata() {
	local dir=$1 release=$2
	shift 2
	"$@" make -C "$dir" -j"$(nproc)" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC="$(cc_of "$dir/.config")" \
		CROSS_COMPILE_COMPAT=arm-linux-gnueabihf- KERNELRELEASE="$release" modules_prepare
}

# disproof DIR CONFIG [CMD...]: why DIR, whose metadata was made here, is not the tree of the kernel that was published with
# CONFIG and DIR/Module.symvers; nothing where it is. A module built against anything else must not be loaded. CMD runs nm.
disproof() {
	local dir=$1 config=$2 changed exported lost
	shift 2
	# The configuration must have survived: an option whose tool is missing here would have gone, and members of
	# structures with it.
	changed=$(diff <(grep -v _VERSION "$config") <(grep -v _VERSION "$dir/.config") | sed -n 's/^[<>] //p' || :)
	[[ ! $changed ]] || {
		echo "the tree made here is configured differently: $(wc -l <<<"$changed") lines differ, such as '${changed%%$'\n'*}'"
		return
	}
	# And each Rust symbol that the kernel exports must be defined here under the same name, which rustc makes from the
	# compiler, the crate, and the types and their order.
	exported=$(rust_symbols "$dir")
	[[ $exported ]] || { echo "it exports no Rust symbol: nothing would prove that a module fits it" && return; }
	# shellcheck disable=SC2016 # meant for the inner shell
	lost=$(comm -23 <(echo "$exported") <("$@" sh -c 'nm -g --defined-only "$1"/rust/*.o' sh "$dir" |
		awk 'NF == 3 { print $3 }' | sort -u))
	[[ ! $lost ]] || {
		echo "the Rust metadata made here does not fit: $(wc -l <<<"$lost") of its $(wc -l <<<"$exported") exported symbols differ, such as ${lost%%$'\n'*}"
	}
}
# rust_symbols DIR: those that the kernel exports
rust_symbols() { awk '$2 ~ /^_R/ && $3 == "vmlinux" { print $2 }' "$1/Module.symvers" | sort -u; }

# image_of ROOT RELEASE: its image, as one of its packages has it below ROOT
image_of() {
	local image
	for image in "${1%/}/usr/lib/modules/$2/vmlinuz" "${1%/}/boot/vmlinuz-$2"; do
		[[ ! -f $image ]] || { echo "$image" && return; }
	done
}

# banner IMAGE: what `uname -v` says once it is booted; nothing if it cannot be read
banner() {
	gzip -dcf "$1" 2>/dev/null | LC_ALL=C grep -aoE 'Linux version [[:print:]]*\) #[0-9]+ [[:print:]]+' |
		sed -n '1s/.*) #/#/p' || :
}
