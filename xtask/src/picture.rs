//! A terminal session as a picture: what was typed and what came, in an SVG that needs no font and no script.

use std::fmt::Write;

const WIDTH: usize = 9;
const HEIGHT: usize = 19;
const MARGIN: usize = 16;

/// Turns a transcript into an SVG. A line that begins with `$ ` was typed.
pub(crate) fn svg(transcript: &str) -> String {
    let lines: Vec<&str> = transcript.lines().collect();
    let columns = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let (width, height) = (columns * WIDTH + 2 * MARGIN, lines.len() * HEIGHT + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" \
         font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"15\">\n\
         <title>A terminal session</title>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0f1720\"/>\n"
    );
    for (number, line) in lines.iter().enumerate() {
        let y = MARGIN + (number + 1) * HEIGHT - 5;
        let colour = colour(line);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{colour}\" xml:space=\"preserve\">{}</text>",
            escaped(line)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn colour(line: &str) -> &'static str {
    let refused = ["deny", "refused", "error", "RBAC", "reset"];
    if line.starts_with("$ ") {
        "#7fd1b9"
    } else if refused.iter().any(|word| line.contains(word)) {
        "#f2a38b"
    } else {
        "#d7dee6"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_typed_stands_out_and_nothing_breaks_the_markup() {
        let svg = super::svg("$ a <b> & c\nrefused");
        assert!(svg.contains("#7fd1b9") && svg.contains("#f2a38b"));
        assert!(svg.contains("$ a &lt;b&gt; &amp; c"));
        assert_eq!(svg.matches("<text").count(), 2);
    }
}
