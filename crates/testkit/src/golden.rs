//! Texts that are kept beside a test, so that a change of what people read is seen in review.

use std::path::Path;

/// Set to rewrite the files instead of comparing.
const UPDATE: &str = "UPDATE_GOLDEN";

/// Compares a text with the file that keeps it; `None` where they are the same or the file was rewritten.
pub fn differs(path: &Path, text: &str) -> Option<String> {
    if std::env::var_os(UPDATE).is_some() {
        return match std::fs::write(path, text) {
            Ok(()) => None,
            Err(error) => Some(format!("{}: {error}", path.display())),
        };
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let shown = path.display();
    (kept != text).then(|| format!("{shown}: kept:\n{kept}\nnow ({UPDATE}=1 keeps it):\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_changed_is_told_and_one_that_did_not_is_not() {
        let path = std::env::temp_dir().join(format!("golden-{}.txt", std::process::id()));
        std::fs::write(&path, "a\n").unwrap();
        assert_eq!(differs(&path, "a\n"), None);
        assert!(differs(&path, "b\n").is_some_and(|text| text.contains("kept:\na\n")));
        std::fs::remove_file(&path).unwrap();
        assert!(differs(&path, "a\n").is_some());
    }
}
