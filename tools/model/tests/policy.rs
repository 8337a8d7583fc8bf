// SPDX-License-Identifier: GPL-2.0

//! What a re-init has to do, for every policy, host and doubt there is.

#[allow(dead_code)]
#[path = "../../../src/policy.rs"]
mod policy;

use policy::{Host, Maintenance, Policy, Remedy};

fn host(fwb: bool, dic: bool) -> Host {
    Host {
        fwb,
        dic,
        native: Maintenance::None,
        lazy: !fwb,
    }
}

#[test]
fn native_leaves_it_to_the_kernel() {
    for (fwb, dic, doubt) in all() {
        assert_eq!(host(fwb, dic).remedy(Policy::Native, doubt), Remedy::Native);
    }
}

#[test]
fn unmap_unmaps() {
    for (fwb, dic, doubt) in all() {
        assert_eq!(
            host(fwb, dic).remedy(Policy::Unmap, doubt),
            Remedy::Now(Maintenance::Unmap)
        );
    }
}

#[test]
fn without_fwb_there_is_an_unmap() {
    for dic in [false, true] {
        let host = host(false, dic);
        let now = Remedy::Now(Maintenance::Unmap);
        assert_eq!(host.remedy(Policy::Fwb, false), now);
        assert_eq!(host.remedy(Policy::Fwb, true), now);
        assert_eq!(host.remedy(Policy::Once, false), Remedy::UnmapOnce);
        assert_eq!(host.remedy(Policy::Once, true), now);
        assert_eq!(host.remedy(Policy::Lazy, false), Remedy::UnmapLazily);
        assert_eq!(host.remedy(Policy::Lazy, true), now);
        let unable = Host {
            lazy: false,
            ..host
        };
        assert_eq!(unable.remedy(Policy::Lazy, false), Remedy::UnmapOnce);
        assert_eq!(unable.remedy(Policy::Lazy, true), now);
    }
}

#[test]
fn with_fwb_there_is_an_invalidation() {
    let host = host(true, false);
    let now = Remedy::Now(Maintenance::Icache);
    assert_eq!(host.remedy(Policy::Fwb, false), now);
    assert_eq!(host.remedy(Policy::Fwb, true), now);
    for policy in [Policy::Once, Policy::Lazy] {
        assert_eq!(host.remedy(policy, false), Remedy::IcacheOwed);
        assert_eq!(host.remedy(policy, true), now);
    }
}

#[test]
fn with_fwb_and_dic_there_is_nothing() {
    for (policy, doubt) in [
        (Policy::Fwb, false),
        (Policy::Fwb, true),
        (Policy::Once, false),
        (Policy::Once, true),
        (Policy::Lazy, false),
        (Policy::Lazy, true),
    ] {
        assert_eq!(
            host(true, true).remedy(policy, doubt),
            Remedy::Now(Maintenance::None)
        );
    }
}

#[test]
fn names_and_numbers() {
    for (number, name) in ["native", "fwb", "once", "unmap", "lazy"]
        .into_iter()
        .enumerate()
    {
        let policy = Policy::from_number(number as u64).unwrap();
        assert_eq!(policy.name(), name);
        assert_eq!(Policy::from_text(name.as_bytes()), Some(policy));
        assert_eq!(
            Policy::from_text(format!("{name}\n").as_bytes()),
            Some(policy)
        );
    }
    assert_eq!(Policy::from_number(5), None);
    for text in [
        "", "\n", "Once", "once\n\n", " once", "[once]", "2", "once\0",
    ] {
        assert_eq!(Policy::from_text(text.as_bytes()), None, "{text:?}");
    }
}

fn all() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
}
