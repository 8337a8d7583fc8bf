// SPDX-License-Identifier: GPL-2.0
//! Results as KTAP, version 1.

use std::fmt::Display;
use std::io::{self, Write};

/// What became of one test.
pub enum Outcome {
    /// It passed.
    Pass,
    /// It does not apply here, and why.
    Skip(String),
    /// It failed, and how.
    Fail(String),
}

/// Writes a plan, then one line per test, then totals.
pub struct Ktap<W: Write> {
    out: W,
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl<W: Write> Ktap<W> {
    /// Writes the version and the plan.
    pub fn start(mut out: W, tests: usize) -> io::Result<Self> {
        writeln!(out, "KTAP version 1\n1..{tests}")?;
        Ok(Self {
            out,
            number: 0,
            passed: 0,
            failed: 0,
            skipped: 0,
        })
    }

    /// A remark for the reader; it counts for nothing.
    pub fn diagnostic(&mut self, text: impl Display) -> io::Result<()> {
        for line in text.to_string().lines() {
            writeln!(self.out, "# {line}")?;
        }
        self.out.flush()
    }

    /// Remarks on a failure come before its line, so that they are read with it.
    pub fn result(&mut self, name: &str, outcome: Outcome) -> io::Result<()> {
        self.number += 1;
        let number = self.number;
        match outcome {
            Outcome::Pass => {
                self.passed += 1;
                writeln!(self.out, "ok {number} {name}")?;
            }
            Outcome::Skip(reason) => {
                self.skipped += 1;
                writeln!(self.out, "ok {number} {name} # SKIP {reason}")?;
            }
            Outcome::Fail(reason) => {
                self.failed += 1;
                self.diagnostic(reason)?;
                writeln!(self.out, "not ok {number} {name}")?;
            }
        }
        self.out.flush()
    }

    /// Gives up on the rest of the plan.
    pub fn bail_out(&mut self, reason: impl Display) -> io::Result<()> {
        self.failed += 1;
        writeln!(self.out, "Bail out! {reason}")?;
        self.out.flush()
    }

    /// Writes the totals and says whether nothing failed.
    pub fn finish(mut self) -> io::Result<bool> {
        let (pass, fail, skip) = (self.passed, self.failed, self.skipped);
        self.diagnostic(format_args!(
            "Totals: pass:{pass} fail:{fail} xfail:0 xpass:0 skip:{skip} error:0"
        ))?;
        Ok(fail == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcript() -> io::Result<()> {
        let mut out = Vec::new();
        let mut ktap = Ktap::start(&mut out, 3)?;
        ktap.result("one", Outcome::Pass)?;
        ktap.result("two", Outcome::Skip("no FWB".into()))?;
        ktap.result("three", Outcome::Fail("want 1\ngot 2".into()))?;
        assert!(!ktap.finish()?);
        let want = "KTAP version 1\n1..3\nok 1 one\nok 2 two # SKIP no FWB\n# want 1\n# got 2\n\
                    not ok 3 three\n# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n";
        assert_eq!(String::from_utf8_lossy(&out), want);
        Ok(())
    }
}
