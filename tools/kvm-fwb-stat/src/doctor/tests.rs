// SPDX-License-Identifier: GPL-2.0

use super::{Facts, Report};
use crate::{
    cli,
    snapshot::{DEFAULT_ROOT, Tree, tests::tree},
};
use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write, path::Path};

const KMSG: &str = "6,1,0,-;CPU features: detected: GIC system register CPU interface\n";
const KMSG_FWB: &str = "6,2,0,-;CPU features: detected: Stage-2 Force Write-Back\n";
const CONFIG: &str = "CONFIG_MODULES=y\nCONFIG_RUST=y\nCONFIG_KVM=y\nCONFIG_KPROBES=y\n\
    CONFIG_DYNAMIC_FTRACE_WITH_ARGS=y\nCONFIG_DEBUG_FS=y\n";
const SYMBOLS: &str = "0 T kvm_reset_vcpu\n0 T stage2_unmap_vm\n0 T kvm_arch_vcpu_ioctl\n\
    0 T kvm_arch_vcpu_ioctl_run\n0 T kvm_arch_destroy_vm\n0 t other\t[module]\n";
/// CTR_EL0 with IDC and neither, and with DIC too.
const NO_DIC: u64 = 0x9444_c004;
const DIC: u64 = 0xb444_c004;

/// A host's file system, as far as it is looked at.
struct Host(tempfile::TempDir);

impl Host {
    /// One on which nothing stops the module.
    fn new(midr: &str, kmsg: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.put("proc/sys/kernel/osrelease", "7.3.4+deb13-arm64\n");
        host.put("proc/sys/kernel/arch", "aarch64\n");
        host.put(
            "sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
            midr,
        );
        host.put(
            "sys/devices/system/cpu/cpu1/regs/identification/midr_el1",
            midr,
        );
        host.put("sys/devices/system/cpu/online", "0-1\n");
        host.put("dev/kmsg", kmsg);
        host.put("dev/kvm", "");
        host.put("boot/config-7.3.4+deb13-arm64", CONFIG);
        host.put("proc/kallsyms", SYMBOLS);
        host.put("proc/sys/kernel/ftrace_enabled", "1\n");
        host.put("sys/kernel/debug/kprobes/enabled", "1\n");
        host.put(
            "sys/kernel/tracing/enabled_functions",
            "kvm_reset_vcpu (1) R  D \tops: x\n",
        );
        host.put(
            "sys/kernel/security/lockdown",
            "[none] integrity confidentiality\n",
        );
        host.put("proc/mounts", "debugfs /sys/kernel/debug debugfs rw 0 0\n");
        host
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    /// Loads the module, showing what `dir` holds.
    fn load(&self, dir: &Path) {
        self.put("sys/module/kvm_fwb_reset/taint", "OE\n");
        for name in ["host", "policy", "stats", "latency"] {
            let text = fs::read_to_string(dir.join(name)).unwrap();
            self.put(&format!("{}/{name}", &DEFAULT_ROOT[1..]), &text);
        }
        fs::create_dir_all(self.0.path().join(&DEFAULT_ROOT[1..]).join("vms")).unwrap();
    }

    fn examine(&self, ctr_el0: Option<u64>) -> (u8, String) {
        self.examine_file(None, ctr_el0)
    }

    fn examine_file(&self, file: Option<&Path>, ctr_el0: Option<u64>) -> (u8, String) {
        let arguments = cli::Doctor {
            file: file.map(Into::into),
            system: self.0.path().into(),
            ctr_el0,
        };
        let facts = Facts::gather(&arguments, &Tree::new(DEFAULT_ROOT));
        let report = Report::new(&facts);
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        (report.status(), String::from_utf8(text).unwrap())
    }
}

const A710: &str = "0x00000000412fd470\n";
const N1: &str = "0x00000000414fd0c1\n";

#[test]
fn fwb_without_dic() {
    let (status, text) = Host::new(A710, &[KMSG, KMSG_FWB].concat()).examine(Some(NO_DIC));
    assert_eq!(status, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn neither() {
    let (status, text) = Host::new(N1, KMSG).examine(Some(NO_DIC));
    assert_eq!(status, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn both() {
    let host = Host::new("0x00000000000f0510\n", &[KMSG, KMSG_FWB].concat());
    let (status, text) = host.examine(Some(DIC));
    assert_eq!(status, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn a_kernel_from_before_5_8_unmaps_whatever_the_cpu() {
    let host = Host::new(A710, KMSG_FWB);
    host.put("proc/sys/kernel/osrelease", "5.7.19\n");
    let (_, text) = host.examine(Some(NO_DIC));
    assert!(text.contains("for each vCPU, an unmap"), "{text}");
    assert!(text.contains("more than these CPUs need"), "{text}");
    assert!(
        text.contains("instead of an unmap for each of its vCPUs"),
        "{text}"
    );
    host.put("proc/sys/kernel/osrelease", "5.8.0-rc1\n");
    assert!(
        host.examine(Some(NO_DIC))
            .1
            .contains("for each vCPU, an invalidation")
    );
}

#[test]
fn without_the_log_the_cpus_names_tell() {
    let host = Host::new(A710, "6,1,0,-;what is left of a log\n");
    let (_, text) = host.examine(Some(NO_DIC));
    assert!(text.contains(
        "FEAT_S2FWB: yes, data is coherent at any reset (by the CPUs' names: Armv9.0-A)"
    ));
    // All must have it.
    host.put(
        "sys/devices/system/cpu/cpu1/regs/identification/midr_el1",
        N1,
    );
    assert!(host.examine(Some(NO_DIC)).1.contains("FEAT_S2FWB: no"));
}

#[test]
fn what_cannot_be_seen_is_not_guessed() {
    let host = Host(tempfile::tempdir().unwrap());
    host.put("proc/sys/kernel/arch", "aarch64\n");
    let (status, text) = host.examine(None);
    assert_eq!(status, 11);
    insta::assert_snapshot!(text);
}

#[test]
fn another_machine_needs_nothing_of_this() {
    let host = Host(tempfile::tempdir().unwrap());
    host.put("proc/sys/kernel/arch", "x86_64\n");
    let (status, text) = host.examine(None);
    assert_eq!(status, 11);
    insta::assert_snapshot!(text);
}

#[test]
fn all_that_stops_it_is_told() {
    let host = Host::new(A710, KMSG_FWB);
    host.remove("dev/kvm");
    host.remove("boot/config-7.3.4+deb13-arm64");
    let mut config = GzEncoder::new(Vec::new(), Compression::fast());
    config
        .write_all(b"CONFIG_MODULES=y\nCONFIG_KVM=y\n# CONFIG_RUST is not set\nCONFIG_CFI=y\n")
        .unwrap();
    fs::write(
        host.0.path().join("proc/config.gz"),
        config.finish().unwrap(),
    )
    .unwrap();
    host.put(
        "proc/kallsyms",
        &SYMBOLS.replace("stage2_unmap_vm", "stage2_unmap"),
    );
    host.put("proc/sys/kernel/ftrace_enabled", "0\n");
    host.put("proc/sys/kernel/modules_disabled", "1\n");
    host.put("sys/kernel/debug/kprobes/enabled", "0\n");
    host.put(
        "sys/kernel/livepatch/fix/vmlinux/kvm_arch_destroy_vm,1/x",
        "",
    );
    host.put(
        "sys/kernel/tracing/enabled_functions",
        "kvm_reset_vcpu (1) R I D \tops: x\n",
    );
    host.put(
        "sys/kernel/security/lockdown",
        "none integrity [confidentiality]\n",
    );
    host.put("proc/mounts", "");
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 11);
    insta::assert_snapshot!(text);

    host.put("proc/cmdline", "root=/dev/vda kvm-arm.mode=none\n");
    assert!(
        host.examine(None)
            .1
            .contains("boot without kvm-arm.mode=none")
    );
}

/// No CPU that is known, and a log that says nothing.
const UNKNOWN: &str = "0x00000000511f0011\n";

#[test]
fn what_is_redirected_without_fwb_alone_matters_there_alone() {
    let said = |cpu, kmsg, function: &str| {
        let host = Host::new(cpu, kmsg);
        host.put(
            &format!("sys/kernel/livepatch/fix/vmlinux/{function},1/x"),
            "",
        );
        host.examine(Some(NO_DIC))
    };
    for function in ["kvm_pgtable_stage2_unmap", "stage2_flush_vm"] {
        let line = format!(
            "[note] A livepatch, or another module, has {function}: only one can, and without \
             FEAT_S2FWB lazy is refused, and stage2_flush not counted\n"
        );
        let (status, text) = said(N1, KMSG, function);
        assert_eq!(status, 0, "{text}");
        assert!(text.contains(&line), "{text}");
        let (status, text) = said(A710, KMSG_FWB, function);
        assert_eq!(status, 0, "{text}");
        assert!(!text.contains(function), "{text}");
        let (_, text) = said(UNKNOWN, "6,1,0,-;what is left of a log\n", function);
        assert!(text.contains(&line), "{text}");
    }
}

const LOCKED: &str = "none [integrity] confidentiality\n";
const UNLOCKED: &str = "[none] integrity confidentiality\n";

/// The last line, which is the verdict.
fn verdict(text: &str) -> &str {
    text.lines().last().unwrap().trim()
}

#[test]
fn a_signature_is_asked_for() {
    let host = Host::new(A710, KMSG_FWB);
    host.put("sys/kernel/security/lockdown", LOCKED);
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 11);
    assert!(
        verdict(&text).contains("would not be loaded: Modules must be signed (kernel lockdown)"),
        "{text}"
    );
    // No line says otherwise.
    assert!(!text.contains("Nothing that can be seen"), "{text}");
    assert!(
        text.contains("refuses the files policy and clear even to root"),
        "{text}"
    );
    host.put("sys/kernel/security/lockdown", UNLOCKED);
    assert!(!host.examine(Some(NO_DIC)).1.contains("signed"));
    host.put("sys/module/module/parameters/sig_enforce", "Y\n");
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 11);
    assert!(
        text.contains("must be signed (module.sig_enforce)"),
        "{text}"
    );
}

/// The kernel's own vermagic with [`CONFIG`] and this.
const VERMAGIC_CONFIG: &str = "CONFIG_SMP=y\nCONFIG_PREEMPT_BUILD=y\nCONFIG_MODULE_UNLOAD=y\n";
const VERMAGIC: &str = "7.3.4+deb13-arm64 SMP preempt mod_unload aarch64";
/// What stands behind a signed module: a message of 4 bytes, and what it is.
const SIGNATURE: &[u8] = b"PKCS\0\0\x02\0\0\0\0\0\0\0\0\x04~Module signature appended~\n";

/// An object with a `.modinfo`, as small as one can be.
fn module(machine: u16, modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let at = 64 + modinfo.len() + names.len();
    for half in [1, machine] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [0, 0, at as u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 0, 0, 64, 3, 2] {
        file.extend(half.to_le_bytes());
    }
    file.extend(modinfo.as_bytes());
    file.extend(names);
    let mut section = |name: u32, kind: u32, offset: usize, size: usize| {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [0, 0, offset as u64, size as u64, 0, 1, 0] {
            file.extend(word.to_le_bytes());
        }
    };
    section(0, 0, 0, 0);
    section(1, 1, 64, modinfo.len());
    section(10, 3, 64 + modinfo.len(), names.len());
    // sh_link and sh_info are one word there.
    file
}

#[test]
fn a_file_is_taken_or_refused() {
    const ARM64: u16 = 183;
    let host = Host::new(A710, KMSG_FWB);
    let config = [CONFIG, VERMAGIC_CONFIG].concat();
    host.put("boot/config-7.3.4+deb13-arm64", &config);
    let info = format!("name=kvm_fwb_reset\0vermagic={VERMAGIC}\0");
    let good = module(ARM64, &info);
    let file = host.0.path().join("x.ko");
    let judged = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let (status, text) = host.examine_file(Some(&file), Some(NO_DIC));
        let last = verdict(&text).replace(&*file.to_string_lossy(), "FILE");
        (status, last)
    };
    let refused = |bytes: &[u8], why: &str| {
        let (status, last) = judged(bytes);
        assert_eq!(status, 11, "{last}");
        assert!(
            last.starts_with("[BAD]  FILE would not be loaded: "),
            "{last}"
        );
        assert!(last.contains(why), "{last}");
    };
    let taken = (
        0,
        "[ok]   Resets are right, and nothing seen stops FILE".into(),
    );
    assert_eq!(judged(&good), taken);

    refused(&module(62, &info), "not built for arm64");
    refused(&module(ARM64, "name=kvm\0"), "the module kvm, and not");
    refused(&module(ARM64, "name=kvm_fwb_reset\0"), "no vermagic");
    for other in ["7.3.4-arm64", "preempt_rt", "modversions"] {
        let info = match other {
            "7.3.4-arm64" => info.replace("7.3.4+deb13-arm64", other),
            "preempt_rt" => info.replace("preempt", other),
            _ => info.replace("aarch64", "modversions aarch64"),
        };
        refused(&module(ARM64, &info), "built for another kernel (7.3.4");
    }
    refused(b"\x1f\x8bpacked", "compressed");
    refused(b"no module", "no kernel module");

    // Signed or not, where that counts.
    let signed = [&good, SIGNATURE].concat();
    assert_eq!(judged(&signed), taken);
    let mut malformed = signed.clone();
    let length_at = malformed.len() - 29;
    malformed[length_at - 3] = 0xff;
    refused(&malformed, "signature is malformed");
    for why in ["kernel lockdown", "module.sig_enforce"] {
        match why {
            "kernel lockdown" => host.put("sys/kernel/security/lockdown", LOCKED),
            _ => {
                host.put("sys/kernel/security/lockdown", UNLOCKED);
                host.put("sys/module/module/parameters/sig_enforce", "Y\n");
            }
        }
        refused(&good, &format!("It is not signed, and must be ({why})"));
        let (status, last) = judged(&signed);
        assert_eq!(status, 0);
        assert!(last.starts_with("[?]"), "{last}");
    }
    host.put("sys/module/module/parameters/sig_enforce", "N\n");

    // What stops any module stops this one.
    host.put("proc/sys/kernel/modules_disabled", "1\n");
    refused(&good, "until the next boot");
    host.put("proc/sys/kernel/modules_disabled", "0\n");
    host.load(&tree("three-guests"));
    refused(&good, "loaded already: rmmod kvm_fwb_reset first");
    fs::remove_file(&file).unwrap();
    let (status, text) = host.examine_file(Some(&file), None);
    assert!(status == 11 && text.contains("No such file"), "{text}");
}

#[test]
fn a_file_for_a_kernel_whose_options_are_not_known() {
    let host = Host::new(A710, KMSG_FWB);
    host.remove("boot/config-7.3.4+deb13-arm64");
    let file = host.0.path().join("x.ko");
    for (vermagic, status, words) in [
        (VERMAGIC, 0, "of this release"),
        ("7.3.5 SMP aarch64", 11, "built for another kernel (7.3.5"),
    ] {
        let info = format!("name=kvm_fwb_reset\0vermagic={vermagic}\0");
        fs::write(&file, module(183, &info)).unwrap();
        let (found, text) = host.examine_file(Some(&file), Some(NO_DIC));
        assert_eq!(found, status);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_cpu_that_is_not_public_is_no_yes() {
    // Oryon, with a log that has lost what the kernel found.
    let host = Host::new("0x00000000511f0011\n", "6,1,0,-;what is left of a log\n");
    let (status, text) = host.examine(Some(NO_DIC));
    assert!(
        text.contains("CPUs: Oryon") && text.contains("[?]    FEAT_S2FWB"),
        "{text}"
    );
    assert!(status == 0 && verdict(&text).starts_with("[?]"), "{text}");
    // One that lacks it is enough to know that not all have it.
    host.put(
        "sys/devices/system/cpu/cpu1/regs/identification/midr_el1",
        N1,
    );
    assert!(host.examine(Some(NO_DIC)).1.contains("FEAT_S2FWB: no"));
}

#[test]
fn debugfs_elsewhere_and_switched_off() {
    let host = Host::new(A710, KMSG_FWB);
    host.load(&tree("three-guests"));
    fs::create_dir_all(host.0.path().join("mnt")).unwrap();
    fs::rename(
        host.0.path().join("sys/kernel/debug"),
        host.0.path().join("mnt/debug"),
    )
    .unwrap();
    host.put("proc/mounts", "debugfs /mnt/debug debugfs rw 0 0\n");
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 0);
    assert!(text.contains("its hooks are armed"), "{text}");

    host.put("proc/mounts", "");
    host.put("proc/filesystems", "nodev\tsysfs\n");
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 0);
    assert!(
        text.contains("It is loaded; debugfs is switched off (debugfs=off"),
        "{text}"
    );
    assert!(verdict(&text).starts_with("[?]"), "{text}");
    fs::remove_dir_all(host.0.path().join("sys/module/kvm_fwb_reset")).unwrap();
    let (_, text) = host.examine(Some(NO_DIC));
    assert!(text.contains("keep the policy given at load"), "{text}");
}

#[test]
fn loaded_and_well() {
    let host = Host::new(A710, KMSG_FWB);
    host.load(&tree("three-guests"));
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn loaded_and_degraded() {
    let host = Host::new(A710, KMSG_FWB);
    host.load(&tree("quiet"));
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 11);
    insta::assert_snapshot!(text);
}

#[test]
fn a_kernel_that_is_wrong() {
    let host = Host::new(A710, KMSG_FWB);
    host.load(&tree("unmapping"));
    let shown = |text: &str| host.put(&format!("{}/host", &DEFAULT_ROOT[1..]), text);
    shown("fwb 1\ndic 0\nidc 0\nvhe 1\nnative_reset none\nhooks armed\n");
    let (status, text) = host.examine(None);
    assert_eq!(status, 10);
    assert!(
        text.contains("NO: a guest may run stale instructions after a reset"),
        "{text}"
    );
    host.put(
        &format!("{}/policy", &DEFAULT_ROOT[1..]),
        "native fwb [once] unmap\n",
    );
    let (status, text) = host.examine(None);
    assert_eq!(status, 0);
    assert!(text.contains("Yes, by the module's policy once"), "{text}");
    assert!(text.contains("where the kernel makes none"), "{text}");
    // No unmap where data needs it.
    host.put(
        &format!("{}/policy", &DEFAULT_ROOT[1..]),
        "[native] fwb once unmap\n",
    );
    shown("fwb 0\ndic 1\nidc 1\nvhe 1\nnative_reset icache\nhooks armed\n");
    let (status, text) = host.examine(None);
    assert_eq!(status, 10);
    assert!(text.contains("read stale data"), "{text}");
}

#[test]
fn loaded_and_mute() {
    let host = Host::new(A710, KMSG_FWB);
    host.put("sys/module/kvm_fwb_reset/taint", "OE\n");
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 11);
    assert!(text.contains("It is loaded, but cannot be asked"), "{text}");
}

/// A host without FEAT_S2FWB, with the module as a tree has it, but for these words of `host` and policy.
fn lacking_fwb(name: &str, lazy: &str, policy: &str) -> String {
    let host = Host::new(N1, KMSG);
    host.load(&tree(name));
    let shown = fs::read_to_string(tree(name).join("host")).unwrap();
    let kept: String = (shown.split_inclusive('\n'))
        .filter(|line| !line.starts_with("lazy "))
        .collect();
    let root = &DEFAULT_ROOT[1..];
    host.put(&format!("{root}/host"), &format!("{kept}{lazy}"));
    host.put(&format!("{root}/policy"), &format!("[{policy}]\n"));
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 0);
    text
}

#[test]
fn what_lazy_would_save_and_gives_up() {
    insta::assert_snapshot!(lacking_fwb("lazy", "lazy unmaps\n", "once"));
    for policy in ["once", "native"] {
        let text = lacking_fwb("lazy", "lazy unmaps\n", policy);
        for words in [
            "lazy would save",
            "swap, compaction, migration, a dump, pstore",
            "never chosen by itself",
        ] {
            assert!(text.contains(words), "{policy} {words}: {text}");
        }
    }
    // Who asked for more than is needed did not ask for less.
    for policy in ["fwb", "unmap"] {
        assert!(!lacking_fwb("lazy", "lazy unmaps\n", policy).contains("lazy"));
    }
    // With FEAT_S2FWB there is no unmap to save anything of.
    let host = Host::new(A710, KMSG_FWB);
    assert!(!host.examine(Some(NO_DIC)).1.contains("lazy"));
}

#[test]
fn under_lazy() {
    insta::assert_snapshot!(lacking_fwb("lazy", "lazy unmaps\n", "lazy"));
}

#[test]
fn where_lazy_is_not_to_be_had_it_is_not_spoken_well_of() {
    for (lazy, words) in [
        ("lazy refused\n", "is refused: it could not be proven"),
        (
            "lazy as_once\n",
            "lazy is as once here: the hypervisor unmaps",
        ),
    ] {
        for policy in ["once", "native"] {
            let text = lacking_fwb("lazy", lazy, policy);
            assert!(
                text.contains(words) && !text.contains("lazy would save"),
                "{text}"
            );
        }
    }
    let text = lacking_fwb("lazy", "lazy as_once\n", "lazy");
    assert!(
        text.contains("policy lazy: one unmap for each reset of a VM\n"),
        "{text}"
    );
    // A module that does not know it.
    assert!(!lacking_fwb("unmapping", "", "once").contains("policy lazy"));
}

#[test]
fn what_is_not_counted_is_told() {
    let text = lacking_fwb("no-flush-count", "lazy refused\n", "once");
    assert!(
        text.contains("Not counted: stage2_flush; this kernel has no function"),
        "{text}"
    );
    let text = lacking_fwb("unmapping", "", "once");
    assert!(
        text.contains(
            "Not counted: dcache_clean_elide_bytes, tlbi_elide, stage2_flush; the module is older"
        ),
        "{text}"
    );
}
