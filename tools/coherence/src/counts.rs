// SPDX-License-Identifier: GPL-2.0

//! What was executed, counted section by section and judged by nobody, as JSON. All who write or read it
//! do so by these types.

use crate::{Executed, insn::Kind, verdict::Address, whole};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// Version of the format.
pub const VERSION: u32 = 1;

/// What was counted from boot to the end.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// [`VERSION`].
    pub version: u32,
    /// In the order in which they began. 0 is from boot to the first marker.
    pub sections: Vec<Section>,
}

/// What was counted from one marker to the next; between all markers of one number together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The marker's; 0 before the first.
    pub number: u64,
    /// What was said at the marker.
    pub name: String,
    /// That all CPUs began, for the host and for guests.
    pub instructions: u64,
    /// Those of guests.
    pub guest_instructions: u64,
    /// Cache and TLB maintenance.
    pub operations: Vec<Operation>,
    /// How often what is watched was executed.
    pub entries: Vec<Entry>,
}

/// How often one instruction was executed that maintains caches or TLBs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// What it is.
    pub kind: Kind,
    /// Its virtual address.
    pub pc: Address,
    /// What is watched and was last executed before it, on the same CPU.
    pub after: Option<Address>,
    /// How often.
    pub count: u64,
}

/// How often something watched was executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its virtual address.
    pub pc: Address,
    /// How often.
    pub count: u64,
}

impl Counts {
    /// Reads them from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, holds no counts, or is of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let counts: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: no counts of the oracle", path.display()))?;
        ensure!(
            counts.version == VERSION,
            "{}: counts of version {}, and this program knows {VERSION}",
            path.display(),
            counts.version
        );
        Ok(counts)
    }

    /// Writes them to a file, which is there in full or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        whole::write(path, self)
    }
}

/// Where something is counted: a section by its place, an operation or what is watched.
type Place = (usize, Option<Kind>, u64, Option<u64>);

/// Counts, from what a machine executes.
#[derive(Debug)]
pub struct Census {
    sections: Vec<Section>,
    current: usize,
    begun_at: Executed,
    /// What is watched and was last executed, for each CPU.
    last: Vec<Option<u64>>,
    counts: BTreeMap<Place, u64>,
    /// What came last, again and again: loops over lines are found without a look at the map.
    run: Option<(Place, u64)>,
}

impl Census {
    /// Of a machine with so many CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            sections: vec![Section::default()],
            current: 0,
            begun_at: Executed::default(),
            last: vec![None; cpus],
            counts: BTreeMap::new(),
            run: None,
        }
    }

    fn add(&mut self, place: Place) {
        match &mut self.run {
            Some((same, count)) if *same == place => *count += 1,
            _ => {
                self.end_run();
                self.run = Some((place, 1));
            }
        }
    }

    fn end_run(&mut self) {
        if let Some((place, count)) = self.run.take() {
            *self.counts.entry(place).or_default() += count;
        }
    }

    /// A CPU executes an operation.
    pub fn operation(&mut self, cpu: usize, pc: u64, kind: Kind) {
        self.add((self.current, Some(kind), pc, self.last[cpu]));
    }

    /// A CPU executes what is watched.
    pub fn entry(&mut self, cpu: usize, pc: u64) {
        self.last[cpu] = Some(pc);
        self.add((self.current, None, pc, None));
    }

    /// Section `number` begins, or goes on, `executed` being what was so far.
    pub fn section(&mut self, number: u64, executed: Executed) {
        self.end_section(executed);
        let known = self.sections.iter().position(|s| s.number == number);
        self.current = known.unwrap_or_else(|| {
            self.sections.push(Section {
                number,
                ..Section::default()
            });
            self.sections.len() - 1
        });
        // What went before it is no cause of what is in it.
        self.last.fill(None);
    }

    fn end_section(&mut self, executed: Executed) {
        let section = &mut self.sections[self.current];
        section.instructions += executed.all - self.begun_at.all;
        section.guest_instructions += executed.guests - self.begun_at.guests;
        self.begun_at = executed;
    }

    /// Names the current section.
    pub fn name(&mut self, name: String) {
        self.sections[self.current].name = name;
    }

    /// All that was counted, in all that was `executed`.
    pub fn counts(&mut self, executed: Executed) -> Counts {
        self.end_section(executed);
        self.end_run();
        let mut sections = self.sections.clone();
        for (&(section, kind, pc, after), &count) in &self.counts {
            let pc = Address(pc);
            match kind {
                Some(kind) => sections[section].operations.push(Operation {
                    kind,
                    pc,
                    after: after.map(Address),
                    count,
                }),
                None => sections[section].entries.push(Entry { pc, count }),
            }
        }
        Counts {
            version: VERSION,
            sections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    fn executed(all: u64, guests: u64) -> Executed {
        Executed { all, guests }
    }

    /// Each is counted in its section, by who was entered last on the same CPU in the same section.
    #[test]
    fn sections_causes_and_cpus_are_told_apart() {
        let mut census = Census::new(2);
        census.section(1, executed(10, 0));
        census.entry(0, 0x100);
        for _ in 0..3 {
            census.operation(0, 0x500, Kind::Dc);
        }
        census.operation(1, 0x500, Kind::Dc);
        census.entry(0, 0x200);
        census.operation(0, 0x500, Kind::Dc);
        census.section(2, executed(30, 5));
        census.operation(0, 0x500, Kind::Dc);
        census.section(1, executed(70, 5));
        let counts = census.counts(executed(71, 6));

        let told = |section: &Section| {
            let operations = section.operations.iter();
            operations
                .map(|o| (o.after.map(|Address(pc)| pc), o.count))
                .collect::<Vec<_>>()
        };
        let [boot, first, second] = &counts.sections[..] else {
            panic!("{counts:?}")
        };
        assert_eq!((boot.instructions, boot.guest_instructions), (10, 0));
        assert_eq!((first.instructions, first.guest_instructions), (21, 6));
        assert_eq!(told(first), [(None, 1), (Some(0x100), 3), (Some(0x200), 1)]);
        assert_eq!(first.entries.len(), 2);
        assert_eq!((second.instructions, second.number), (40, 2));
        assert_eq!(told(second), [(None, 1)]);
    }

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let path = std::env::temp_dir().join(format!("counts.{}", process::id()));
        let mut census = Census::new(1);
        census.entry(0, 0xffff_8000_8000_1000);
        census.operation(0, 0xffff_8000_8000_2000, Kind::Tlbi);
        let counts = census.counts(executed(2, 0));
        counts.write(&path)?;
        let read = Counts::read(&path);
        let other = fs::read_to_string(&path)?.replace("\"version\": 1", "\"version\": 2");
        fs::write(&path, other)?;
        let refused = Counts::read(&path);
        fs::remove_file(&path)?;
        assert_eq!(read?, counts);
        assert!(refused.unwrap_err().to_string().contains("of version 2"));
        Ok(())
    }
}
