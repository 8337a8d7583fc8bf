// SPDX-License-Identifier: GPL-2.0

use super::{Facts, Report};
use crate::{
    cli,
    model::{DEFAULT_ROOT, Tree, tests::tree},
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
        let arguments = cli::Doctor {
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
    assert!(text.contains("FEAT_S2FWB: yes, data is coherent at any reset (by the CPUs' names)"));
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

#[test]
fn a_signature_is_asked_for() {
    let host = Host::new(A710, KMSG_FWB);
    host.put(
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    let (status, text) = host.examine(Some(NO_DIC));
    assert_eq!(status, 0);
    assert!(text.contains("must be signed"));
    host.put(
        "sys/kernel/security/lockdown",
        "[none] integrity confidentiality\n",
    );
    assert!(!host.examine(Some(NO_DIC)).1.contains("signed"));
    host.put("sys/module/module/parameters/sig_enforce", "Y\n");
    assert!(host.examine(Some(NO_DIC)).1.contains("must be signed"));
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
