// SPDX-License-Identifier: GPL-2.0
//! What the module promises not to cost, and what `lazy` is to save, held against rows.

use std::io::Write;

use anyhow::{Context, Result};
use bench::row::{Key, What};
use contract::ktap::{Ktap, Outcome};

use crate::compare::compare;
use crate::kept::{Kept, Row, name};

/// How one figure is to compare with another.
enum Rule {
    /// At most so many instructions more.
    More(u64),
    /// At most so many percent of it.
    Percent(u64),
    /// The same.
    Equal,
}

/// A row's figure.
struct Figure {
    row: Key,
    name: &'static str,
}

/// One promise: in words, and a figure against another.
struct Promise {
    words: &'static str,
    figure: Figure,
    rule: Rule,
    base: Figure,
}

/// A single call with the module at rest or not there, or beside others.
fn call(state: &str, vms: Option<u32>, beside_reset: bool) -> Key {
    Key {
        cpu: "cortex-a710".into(),
        kernel: "stock".into(),
        vms,
        beside_reset,
        ..Key::new(What::Call, state)
    }
}

fn read(file: &str, vms: u32) -> Key {
    Key {
        cpu: "cortex-a710".into(),
        kernel: "stock".into(),
        file: Some(file.into()),
        vms: Some(vms),
        ..Key::new(What::Read, "once")
    }
}

fn reset(state: &str, pages: &str) -> Key {
    Key {
        cpu: "neoverse-n1".into(),
        kernel: "stock".into(),
        vcpus: Some(8),
        mib: Some(64),
        pages: Some(pages.into()),
        ..Key::new(What::Reset, state)
    }
}

fn promise(words: &'static str, name: &'static str, row: Key, rule: Rule, base: Key) -> Promise {
    let figure = |row| Figure { row, name };
    Promise {
        words,
        figure: figure(row),
        rule,
        base: figure(base),
    }
}

/// The sizes of pages that rows tell of, from the smallest to the largest: other kernels have others.
fn sizes(kept: &Kept) -> [String; 2] {
    let bytes = |size: &str| {
        let unit = match size.chars().last() {
            Some('K') => 1 << 10,
            Some('M') => 1 << 20,
            _ => 1 << 30,
        };
        let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse::<u64>().unwrap_or(0) * unit
    };
    let mut sizes: Vec<_> = kept.0.keys().filter_map(|key| key.pages.clone()).collect();
    sizes.sort_by_key(|size| bytes(size));
    let or = |size: Option<&String>, default: &str| size.cloned().unwrap_or(default.into());
    [or(sizes.first(), "4K"), or(sizes.last(), "2M")]
}

fn promises([small, huge]: &[String; 2]) -> Vec<Promise> {
    use Rule::{Equal, More, Percent};
    let none = || call("none", None, false);
    let idle = || call("once", None, false);
    let other = || call("once", None, true);
    let crowd = || call("once", Some(1000), false);
    let (run, get, init) = ("run.instructions", "get.instructions", "init.instructions");
    let elided = |words, pages: &str| Promise {
        base: Figure {
            row: reset("lazy", pages),
            name: "mapped_bytes",
        },
        ..promise(
            words,
            "elided_clean_bytes",
            reset("lazy", pages),
            Equal,
            reset("lazy", pages),
        )
    };
    let resets = |words, name, pages: &str, percent| {
        promise(
            words,
            name,
            reset("lazy", pages),
            Percent(percent),
            reset("once", pages),
        )
    };
    vec![
        promise(
            "KVM_GET_ONE_REG costs nothing more",
            get,
            idle(),
            More(0),
            none(),
        ),
        promise(
            "nor while another VM is in reset",
            get,
            other(),
            More(0),
            none(),
        ),
        // A redirect, a barrier and one load.
        promise(
            "KVM_RUN costs a look at the gate",
            run,
            idle(),
            More(120),
            none(),
        ),
        promise(
            "nor more while one is in reset that has another gate",
            run,
            other(),
            More(0),
            idle(),
        ),
        // A lookup of the VM, as a reader that unloading waits for.
        promise(
            "and a lookup where one that is in reset has the same gate",
            run,
            call("once", Some(1000), true),
            More(600),
            none(),
        ),
        // What the VM is in debt for and counts.
        promise(
            "KVM_ARM_VCPU_INIT costs its bookkeeping",
            init,
            idle(),
            More(5000),
            none(),
        ),
        // A lookup in a deeper table; larger numbers to print.
        promise(
            "KVM_RUN costs the same with 1,000 VMs",
            run,
            crowd(),
            More(0),
            idle(),
        ),
        promise(
            "KVM_ARM_VCPU_INIT costs the same with 1,000 VMs",
            init,
            crowd(),
            More(200),
            idle(),
        ),
        promise(
            "a reader of all counters does not go through 1,000 VMs",
            "instructions",
            read("stats", 1000),
            More(1000),
            read("stats", 1),
        ),
        promise(
            "nor does a reader of one VM's",
            "instructions",
            read("vms/<name>/stats", 1000),
            More(1000),
            read("vms/<name>/stats", 1),
        ),
        elided(
            "lazy leaves out to clean all that was mapped in small pages",
            small,
        ),
        elided(
            "lazy leaves out to clean all that was mapped in huge pages",
            huge,
        ),
        resets(
            "re-inits under lazy cost half of once's with small pages",
            "reinit.instructions",
            small,
            50,
        ),
        resets(
            "and a fifth with huge ones",
            "reinit.instructions",
            huge,
            20,
        ),
        // What is touched again is cleaned then, under once as well. Among so many instructions a timer tick
        // does not show.
        resets(
            "a guest that touches the rest again pays what it pays under once",
            "again_100.instructions",
            small,
            101,
        ),
    ]
}

fn find<'a>(kept: &'a Kept, key: &Key) -> Result<&'a Row> {
    let row = kept.0.get(key);
    row.with_context(|| format!("there is no row {}", name(key)))
}

fn outcome(kept: &Kept, promise: &Promise) -> (Outcome, String) {
    let value = |figure: &Figure| Ok::<_, anyhow::Error>(find(kept, &figure.row)?.get(figure.name));
    let (here, base) = match (value(&promise.figure), value(&promise.base)) {
        (Ok(here), Ok(base)) => (here, base),
        (Err(error), _) | (_, Err(error)) => {
            return (Outcome::Fail(format!("{error:#}")), String::new());
        }
    };
    let (holds, allowed) = match promise.rule {
        Rule::More(more) => (
            here <= base + more,
            format!("at most {more} more are allowed"),
        ),
        Rule::Percent(percent) => (
            here * 100 <= base * percent,
            format!("at most {percent} % of it are allowed"),
        ),
        Rule::Equal => (here == base, "they are to be the same".into()),
    };
    let said = format!(
        "{}, {}: {here}; {}, {}: {base}; {allowed}",
        name(&promise.figure.row),
        promise.figure.name,
        name(&promise.base.row),
        promise.base.name
    );
    // A row without the figure would keep any promise.
    match holds && here > 0 && base > 0 {
        true => (Outcome::Pass, said),
        false => (Outcome::Fail("it does not hold".into()), said),
    }
}

/// Rows that only a kernel and the module decide on. What a reader prints depends on what was booted before it,
/// and the module's size on where it was built.
fn exact(kept: &Kept) -> Kept {
    let rows = kept
        .0
        .iter()
        .filter(|(key, _)| matches!(key.what, What::Call | What::Reset));
    Kept(rows.map(|(key, row)| (key.clone(), row.clone())).collect())
}

/// Tells of each promise whether it holds, and whether any figure of a call or a reset is worse than in `base`;
/// as KTAP. Whether all is well.
pub fn tell(kept: &Kept, base: &Kept, bound: f64, out: impl Write) -> Result<bool> {
    let promises = promises(&sizes(kept));
    let mut ktap = Ktap::start(out, promises.len() + 1)?;
    for promise in &promises {
        let (outcome, said) = outcome(kept, promise);
        ktap.diagnostic(said)?;
        ktap.result(promise.words, outcome)?;
    }
    let compared = compare(&exact(base), kept, bound, true)?;
    let outcome = match (compared.has_regressed(), compared.is_empty()) {
        (true, _) => Outcome::Fail(compared.to_string()),
        (false, true) => Outcome::Skip("docs/benchmarks.json is of other kernels".into()),
        (false, false) => {
            ktap.diagnostic(&compared)?;
            Outcome::Pass
        }
    };
    ktap.result("no figure is worse than the committed one", outcome)?;
    Ok(ktap.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::row::Figures;

    /// Rows that keep every promise, to the last instruction.
    fn good() -> Kept {
        let mut kept = Kept::default();
        for promise in promises(&sizes(&Kept::default())) {
            for (figure, is_base) in [(&promise.figure, false), (&promise.base, true)] {
                let row = kept.0.entry(figure.row.clone()).or_insert_with(|| Row {
                    key: figure.row.clone(),
                    figures: Figures::new(),
                    made: Default::default(),
                    runs: 1,
                    spread_ppm: 0,
                });
                let value = match promise.rule {
                    Rule::Percent(percent) if !is_base => 10 * percent,
                    _ => 1000,
                };
                row.figures.entry(figure.name.into()).or_insert(value);
            }
        }
        kept
    }

    /// The words of what does not hold.
    fn broken(kept: &Kept, base: &Kept) -> Vec<String> {
        let mut out = Vec::new();
        let well = tell(kept, base, 2.0, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("not ok"));
        let broken: Vec<_> = lines
            .map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned())
            .collect();
        assert_eq!(well, broken.is_empty());
        broken
    }

    #[test]
    fn each_promise_holds_to_its_bound_and_no_further() {
        assert!(broken(&good(), &good()).is_empty());
        for (index, promise) in promises(&sizes(&Kept::default())).iter().enumerate() {
            let mut kept = good();
            let row = kept.0.get_mut(&promise.figure.row).unwrap();
            let figure = row.figures.get_mut(promise.figure.name).unwrap();
            *figure += match promise.rule {
                Rule::More(more) => more + 1,
                _ => 1,
            };
            let broken = broken(&kept, &kept);
            assert!(
                broken.iter().any(|words| words == promise.words),
                "{index}: {broken:?}"
            );
        }
    }

    #[test]
    fn rows_that_are_not_there_keep_no_promise() {
        let broken = broken(&Kept::default(), &good());
        assert_eq!(broken.len(), promises(&sizes(&Kept::default())).len());
    }

    #[test]
    fn a_figure_that_is_worse_than_before_is_told() {
        let mut kept = good();
        let key = reset("once", "4K");
        let row = kept.0.get_mut(&key).unwrap();
        row.figures.insert("reinit.tlbi".into(), 1);
        assert_eq!(
            broken(&kept, &good()),
            ["no figure is worse than the committed one"]
        );
    }

    #[test]
    fn what_hangs_on_where_it_was_built_is_not_compared() {
        let (mut kept, mut base) = (good(), good());
        let size = Key::new(What::Module, "once");
        for (kept, bytes) in [(&mut base, 1000), (&mut kept, 2000)] {
            let mut row = kept.0[&reset("once", "4K")].clone();
            row.figures = Figures::from([("constant_bytes".into(), bytes)]);
            kept.0.insert(size.clone(), row);
        }
        assert!(broken(&kept, &base).is_empty());
    }

    #[test]
    fn pages_are_as_large_as_the_kernel_has_them() {
        let mut kept = good();
        for row in good().0.into_values() {
            let pages = row.key.pages.as_deref();
            let pages = pages.map(|size| if size == "4K" { "16K" } else { "32M" }.to_owned());
            kept.0.remove(&row.key);
            let key = Key {
                pages,
                ..row.key.clone()
            };
            kept.0.insert(key.clone(), Row { key, ..row });
        }
        assert_eq!(sizes(&kept), ["16K", "32M"]);
        assert!(broken(&kept, &Kept::default()).is_empty());
    }
}
