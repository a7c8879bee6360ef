//! Octets in error texts, printed as RabbitMQ prints them: clients and operators compare the texts.

use std::fmt::{self, Write};

/// The first octets of a payload, kept for an error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snippet {
    octets: [u8; SNIPPET_BYTES_MAX],
    len: u8,
    is_cut: bool,
}

/// Octets of a payload that an error text shows.
const SNIPPET_BYTES_MAX: usize = 16;
/// Octets of which [`list`] writes the numbers; more would not fit a reply text.
const LIST_BYTES_MAX: usize = 255;
/// Width of the page that Erlang's pretty printer breaks terms for.
const PAGE_COLUMNS: usize = 80;

impl Snippet {
    /// The start of `payload`.
    pub fn new(payload: &[u8]) -> Self {
        let len = payload.len().min(SNIPPET_BYTES_MAX);
        let mut octets = [0; SNIPPET_BYTES_MAX];
        octets[..len].copy_from_slice(&payload[..len]);
        Self { octets, len: len as u8, is_cut: payload.len() > len }
    }

    /// `type 1, all octets = <<0,20,0,10>>`, the beginning of a frame's error text.
    pub(super) fn describe(&self, kind: u8) -> String {
        let extent = if self.is_cut { "first 16" } else { "all" };
        let mut text = format!("type {kind}, {extent} octets = ");
        self.print(&mut text);
        text
    }

    /// Appends the octets as `~p` prints a binary that starts at the end of `text`: as text if
    /// all of it is printable Latin-1, else as numbers broken into lines.
    fn print(&self, text: &mut String) {
        let octets = &self.octets[..self.len as usize];
        if !octets.is_empty() && octets.iter().all(|&octet| is_printable(octet)) {
            text.push_str("<<\"");
            octets.iter().for_each(|&octet| push_escaped(octet, text));
            text.push_str("\">>");
            return;
        }
        let column = column(text);
        let width = (PAGE_COLUMNS - 3).saturating_sub(column);
        let mut left = width;
        text.push_str("<<");
        for (i, octet) in octets.iter().enumerate() {
            let mut item = octet.to_string();
            if i + 1 < octets.len() {
                item.push(',');
            }
            if item.len() > left {
                push_line_break(column + 2, text);
                left = width;
            }
            left = left.saturating_sub(item.len());
            text.push_str(&item);
        }
        text.push_str(">>");
    }
}

/// Appends `{name,value}` as `~p` prints it at the end of `text`.
pub(super) fn print_pair(name: &str, value: impl fmt::Display, text: &mut String) {
    let column = column(text);
    let value = value.to_string();
    text.push('{');
    text.push_str(name);
    text.push(',');
    if column + name.len() + value.len() + 3 > PAGE_COLUMNS - 2 {
        push_line_break(column + 1, text);
    }
    text.push_str(&value);
    text.push('}');
}

/// `<<0,20,0,10>>`: the octets as `~w` prints them, up to a length that no reply text can show.
pub(super) fn list(octets: &[u8]) -> String {
    let mut text = String::from("<<");
    for (i, octet) in octets.iter().take(LIST_BYTES_MAX).enumerate() {
        let comma = if i > 0 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{octet}");
    }
    text.push_str(">>");
    text
}

fn is_printable(octet: u8) -> bool {
    matches!(octet, 8..=13 | 27 | 32..=126 | 160..)
}

fn push_escaped(octet: u8, text: &mut String) {
    match octet {
        8 => text.push_str("\\b"),
        9 => text.push_str("\\t"),
        10 => text.push_str("\\n"),
        11 => text.push_str("\\v"),
        12 => text.push_str("\\f"),
        13 => text.push_str("\\r"),
        27 => text.push_str("\\e"),
        b'"' => text.push_str("\\\""),
        b'\\' => text.push_str("\\\\"),
        _ => text.push(char::from(octet)),
    }
}

fn column(text: &str) -> usize {
    text.rsplit('\n').next().map_or(0, |line| line.chars().count())
}

fn push_line_break(indent: usize, text: &mut String) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_octets_are_text_with_escapes() {
        let text = Snippet::new(b"he\"l\\o\n\t\x1b").describe(1);
        assert_eq!(text, r#"type 1, all octets = <<"he\"l\\o\n\t\e">>"#);
        assert_eq!(Snippet::new(b"caf\xe9").describe(1), "type 1, all octets = <<\"caf\u{e9}\">>");
    }

    #[test]
    fn other_octets_are_numbers() {
        assert_eq!(Snippet::new(b"").describe(8), "type 8, all octets = <<>>");
        assert_eq!(Snippet::new(b"x\x7f").describe(1), "type 1, all octets = <<120,127>>");
        assert_eq!(list(b"ab\0"), "<<97,98,0>>");
    }

    #[test]
    fn long_numbers_break_where_the_erlang_printer_breaks() {
        assert_eq!(
            Snippet::new(&[130; 14]).describe(1),
            "type 1, all octets = <<130,130,130,130,130,130,130,130,130,130,130,130,130,130>>"
        );
        assert_eq!(
            Snippet::new(&[130; 15]).describe(1),
            "type 1, all octets = <<130,130,130,130,130,130,130,130,130,130,130,130,130,130,\n                       130>>"
        );
        assert_eq!(
            Snippet::new(&[130; 14]).describe(255),
            "type 255, all octets = <<130,130,130,130,130,130,130,130,130,130,130,130,130,\n                         130>>"
        );
        assert_eq!(
            Snippet::new(&[130; 17]).describe(1),
            "type 1, first 16 octets = <<130,130,130,130,130,130,130,130,130,130,130,130,\n                            130,130,130,130>>"
        );
    }

    #[test]
    fn a_pair_breaks_when_it_would_pass_the_page() {
        let text = |octets: &[u8]| {
            let mut text = Snippet::new(octets).describe(1) + ": ";
            print_pair("invalid_frame_end_marker", 170, &mut text);
            text
        };
        assert_eq!(text(&[0; 11]), "type 1, all octets = <<0,0,0,0,0,0,0,0,0,0,0>>: {invalid_frame_end_marker,170}");
        assert_eq!(
            text(&[0; 12]),
            "type 1, all octets = <<0,0,0,0,0,0,0,0,0,0,0,0>>: {invalid_frame_end_marker,\n                                                   170}"
        );
        let mut text = Snippet::new(&[130; 17]).describe(255) + ": ";
        print_pair("invalid_frame_end_marker", 170, &mut text);
        assert!(
            text.ends_with("130>>: {invalid_frame_end_marker,\n                                                  170}")
        );
    }
}
