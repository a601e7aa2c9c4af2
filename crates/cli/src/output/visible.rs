//! Text that is not the engine's own (names, labels, commands, errors that repeat them), made
//! harmless for a terminal.

use std::borrow::Cow;

/// Control characters but line end and tab as text, so that they are seen and do nothing.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    let acts = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if acts(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown() {
        assert!(matches!(visible("a\tb\né"), Cow::Borrowed("a\tb\né")));
        assert_eq!(
            visible("x\u{1b}[2J\u{7}\r\u{7f}\u{9b}"),
            "x\\u{1b}[2J\\u{7}\\r\\u{7f}\\u{9b}"
        );
    }
}
