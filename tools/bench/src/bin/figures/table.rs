// SPDX-License-Identifier: GPL-2.0
//! Tables in Markdown.

use std::fmt;

/// A table whose first column is text and whose others are numbers.
pub struct Table {
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    pub fn new<T: Into<String>>(head: impl IntoIterator<Item = T>) -> Self {
        Self {
            head: head.into_iter().map(Into::into).collect(),
            lines: Vec::new(),
        }
    }

    pub fn line(&mut self, line: impl IntoIterator<Item = String>) {
        self.lines.push(line.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|---|{}", "--:|".repeat(self.head.len() - 1))?;
        for line in &self.lines {
            writeln!(f, "| {} |", line.join(" | "))?;
        }
        Ok(())
    }
}

/// A number, in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let numbers = [0, 999, 1000, 16_777_280].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "16,777,280"]);
    }

    #[test]
    fn a_table() {
        let mut table = Table::new(["", "tlbi"]);
        table.line(["once".into(), grouped(1234)]);
        assert_eq!(
            table.to_string(),
            "|  | tlbi |\n|---|--:|\n| once | 1,234 |\n"
        );
    }
}
