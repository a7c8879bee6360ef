//! Patterns of LIKE: `%` is any text, `_` any one character, the rest itself.
//!
//! A match takes at most (octets of the text) x (units of the pattern) steps: after a mismatch only
//! the last `%` is tried further, since an earlier one could not do better.

/// A pattern that is ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    units: Box<[Unit]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Octet(u8),
    /// `_`
    Character,
    /// `%`
    Any,
}

impl Pattern {
    /// `escape` takes its meaning from `%`, `_` or itself that follows; before anything else it
    /// stands for what it is.
    pub(super) fn new(text: &str, escape: Option<char>) -> Self {
        let mut units = Vec::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(mut c) = chars.next() {
            if Some(c) == escape
                && let Some(escaped) = chars.next_if(|next| matches!(next, '%' | '_') || Some(*next) == escape)
            {
                c = escaped;
            } else if c == '%' {
                if units.last() != Some(&Unit::Any) {
                    units.push(Unit::Any);
                }
                continue;
            } else if c == '_' {
                units.push(Unit::Character);
                continue;
            }
            units.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Unit::Octet));
        }
        Self { units: units.into() }
    }

    /// Whether all of `text` matches; `None` if that takes more than `steps`, from which what was
    /// needed is taken.
    pub(super) fn matches(&self, text: &[u8], steps: &mut usize) -> Option<bool> {
        let (mut at, mut unit) = (0, 0);
        // Where the last `%` stopped taking, and the unit behind it.
        let mut retry = None;
        loop {
            *steps = steps.checked_sub(1)?;
            match self.units.get(unit) {
                None if at == text.len() => return Some(true),
                Some(Unit::Any) => {
                    unit += 1;
                    if unit == self.units.len() {
                        return Some(true);
                    }
                    retry = Some((at, unit));
                    continue;
                }
                Some(Unit::Octet(octet)) if text.get(at) == Some(octet) => {
                    at += 1;
                    unit += 1;
                    continue;
                }
                Some(Unit::Character) if at < text.len() => {
                    at = next_character(text, at);
                    unit += 1;
                    continue;
                }
                _ => {}
            }
            match retry {
                Some((taken, behind)) if taken < text.len() => {
                    at = next_character(text, taken);
                    unit = behind;
                    retry = Some((at, behind));
                }
                _ => return Some(false),
            }
        }
    }
}

/// Where the character after the one at `at` begins.
fn next_character(text: &[u8], at: usize) -> usize {
    let is_continuation = |octet: &&u8| **octet & 0xC0 == 0x80;
    at + 1 + text[at + 1..].iter().take_while(is_continuation).take(3).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, escape: Option<char>, text: &str) -> bool {
        Pattern::new(pattern, escape).matches(text.as_bytes(), &mut 10_000).unwrap()
    }

    #[test]
    fn percent_is_any_text_and_underscore_one_character() {
        let rows = [
            ("12%3", "123", true),
            ("12%3", "12993", true),
            ("12%3", "1234", false),
            ("l_se", "lose", true),
            ("l_se", "loose", false),
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%%", "", true),
            ("_", "", false),
            ("_", "é", true),
            ("__", "é", false),
            ("%__", "é", false),
            ("%_", "aé", true),
            ("%b%", "abc", true),
            ("%ab", "aab", true),
            ("%ab%ab", "abab", true),
            ("%ab%ab", "abaab", true),
            ("%abab", "ababab", true),
            ("a%", "ba", false),
            ("A%", "ab", false),
            (".*", "ab", false),
            ("a%\n", "a\n\n", true),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern, None, text), expected, "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn escape_takes_the_meaning_of_what_follows() {
        let rows = [
            ("!_%", '!', "_foo", true),
            ("!_%", '!', "xfoo", false),
            ("!!%", '!', "!a", true),
            ("!a", '!', "!a", true),
            ("a!", '!', "a!", true),
            ("%_%", '%', "_foo", true),
            ("_D7$_", '$', "XD7_", true),
            ("_D7__", '_', "XD7_", true),
            ("%D7%%", '%', "XD7_", false),
            ("%D7%%", '%', "XD7%", true),
            ("é%", 'é', "%", true),
        ];
        for (pattern, escape, text, expected) in rows {
            assert_eq!(matches(pattern, Some(escape), text), expected, "{text:?} LIKE {pattern:?} ESCAPE {escape:?}");
        }
    }

    #[test]
    fn patterns_that_backtrack_take_no_more_steps_than_text_times_pattern() {
        let text = "a".repeat(300);
        let pattern = Pattern::new(&format!("{}b", "%a".repeat(100)), None);
        let mut steps = 300 * 201;
        assert_eq!(pattern.matches(text.as_bytes(), &mut steps), Some(false));
    }

    #[test]
    fn match_without_steps_left_is_given_up() {
        assert_eq!(Pattern::new("%b", None).matches(&[b'a'; 100], &mut 20), None);
    }
}
