// SPDX-License-Identifier: GPL-2.0
//! What this host was booted with.

use std::fs;
use std::io;

/// The value of a word of the kernel's command line, `NAME=VALUE` or `NAME` alone.
pub fn word(name: &str) -> io::Result<Option<String>> {
    let line = fs::read_to_string("/proc/cmdline")?;
    Ok(find(&line, name).map(str::to_owned))
}

fn find<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find_map(|word| match word.strip_prefix(name)? {
        "" => Some(""),
        rest => rest.strip_prefix('='),
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn words() {
        let line = "quiet fwb.expect=fwb:1,dic:0 fwb.events kvm-arm.mode=nvhe\n";
        assert_eq!(find(line, "fwb.expect"), Some("fwb:1,dic:0"));
        assert_eq!(find(line, "fwb.events"), Some(""));
        assert_eq!(find(line, "kvm-arm.mode"), Some("nvhe"));
        assert_eq!(find(line, "fwb.exp"), None);
        assert_eq!(find(line, "mode"), None);
    }
}
