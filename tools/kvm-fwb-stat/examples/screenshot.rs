// SPDX-License-Identifier: GPL-2.0
//! What a terminal showed, as a picture: reads what `tmux capture-pane -ep` says, and writes SVG.

use anstyle_svg::Term;
use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let mut screen = String::new();
    io::stdin().read_to_string(&mut screen)?;
    let picture = picture(&screen);
    io::stdout().lock().write_all(picture.as_bytes())
}

/// The screen, without the empty lines at its end.
fn picture(screen: &str) -> String {
    Term::new().render_svg(screen.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_colours_stay() {
        let svg = picture("\x1b[1;33mOWES <&> 1\x1b[0m\nplain\n\n\n");
        assert!(svg.starts_with("<svg "));
        assert!(svg.contains("OWES &lt;&amp;&gt; 1") && svg.contains("plain"));
        assert!(svg.contains("bold") && svg.contains("fg-yellow"));
        assert!(!svg.contains('\x1b'));
    }
}
