//! A walk over an encoded table that bounds what decoding it may cost.

use nom::{
    IResult, Parser,
    bytes::complete::take,
    combinator::map,
    multi::length_data,
    number::complete::{be_u8, be_u32},
};

/// Deepest nesting of tables and arrays that is accepted, the outermost table not counted.
const DEPTH_MAX: usize = 32;
/// Most values, those of all nested tables and arrays together, that are accepted.
const ENTRIES_MAX: usize = 4096;

/// Whether `bytes` (without the length in front) are a well-formed table within the limits, whose
/// names are UTF-8.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    let mut entries_left = ENTRIES_MAX;
    table(bytes, DEPTH_MAX, &mut entries_left).is_some()
}

fn table(mut bytes: &[u8], depth_left: usize, entries_left: &mut usize) -> Option<()> {
    while !bytes.is_empty() {
        let (rest, name) = short_string(bytes).ok()?;
        str::from_utf8(name).ok()?;
        bytes = value(rest, depth_left, entries_left)?;
    }
    Some(())
}

fn array(mut bytes: &[u8], depth_left: usize, entries_left: &mut usize) -> Option<()> {
    while !bytes.is_empty() {
        bytes = value(bytes, depth_left, entries_left)?;
    }
    Some(())
}

fn value<'a>(bytes: &'a [u8], depth_left: usize, entries_left: &mut usize) -> Option<&'a [u8]> {
    *entries_left = entries_left.checked_sub(1)?;
    let (&kind, rest) = bytes.split_first()?;
    let skip = |len: usize| rest.get(len..);
    match kind {
        b'V' => Some(rest),
        b't' | b'b' | b'B' => skip(1),
        b's' | b'U' | b'u' => skip(2),
        b'I' | b'i' | b'f' => skip(4),
        b'D' => skip(5),
        b'l' | b'L' | b'd' | b'T' => skip(8),
        b'S' | b'x' => long_string(rest).ok().map(|(rest, _)| rest),
        b'A' | b'F' => {
            let (rest, content) = long_string(rest).ok()?;
            let walk = if kind == b'F' { table } else { array };
            walk(content, depth_left.checked_sub(1)?, entries_left)?;
            Some(rest)
        }
        _ => None,
    }
}

/// Bytes after a length of one octet.
pub(super) fn short_string(bytes: &[u8]) -> IResult<&[u8], &[u8]> {
    length_data(be_u8).parse(bytes)
}

/// Bytes after a length of four octets.
pub(super) fn long_string(bytes: &[u8]) -> IResult<&[u8], &[u8]> {
    length_data(be_u32).parse(bytes)
}

/// A number of `len` octets that nobody needs to know.
pub(super) fn number(len: usize) -> impl FnMut(&[u8]) -> IResult<&[u8], ()> {
    move |bytes| map(take(len), |_| ()).parse(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[1, b'k', kind], payload].concat()
    }

    fn nested(kind: u8, depth: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..depth {
            let name: &[u8] = if kind == b'F' { &[1, b'k'] } else { &[] };
            content = [name, &[kind], &(content.len() as u32).to_be_bytes(), &content].concat();
        }
        match kind {
            b'F' => content,
            _ => [&[1, b'k'], &content[..]].concat(),
        }
    }

    #[test]
    fn every_kind_of_value_is_known_with_its_length() {
        for (kind, len) in b"tbBsUuIifDlLdTV".iter().zip([1, 1, 1, 2, 2, 2, 4, 4, 4, 5, 8, 8, 8, 8, 0]) {
            assert!(is_sound(&entry(*kind, &vec![0; len])));
            assert!(!is_sound(&entry(*kind, &vec![0; len + 1])));
            assert!(len == 0 || !is_sound(&entry(*kind, &vec![0; len - 1])));
        }
        assert!(is_sound(&entry(b'S', &[0, 0, 0, 2, 0xFF, 0xFE])));
        assert!(!is_sound(&entry(b'Z', &[])));
    }

    #[test]
    fn nesting_has_a_limit() {
        for kind in [b'F', b'A'] {
            assert!(is_sound(&nested(kind, DEPTH_MAX)));
            assert!(!is_sound(&nested(kind, DEPTH_MAX + 1)));
            assert!(!is_sound(&nested(kind, 2_000)));
        }
    }

    #[test]
    fn entries_have_a_limit() {
        let array = |len: usize| [&(len as u32).to_be_bytes()[..], &vec![b'V'; len]].concat();
        assert!(is_sound(&entry(b'A', &array(ENTRIES_MAX - 1))));
        assert!(!is_sound(&entry(b'A', &array(ENTRIES_MAX))));
    }

    #[test]
    fn a_name_that_is_not_text_is_refused() {
        assert!(!is_sound(&[1, 0xFF, b'V']));
    }
}
