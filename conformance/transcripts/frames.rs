//! STOMP frames as text and back, with what differs from run to run replaced by a placeholder.
//!
//! Knows the wire and nothing of the code under test, so that neither hides the other's mistakes.

use super::{
    lines::Said,
    peer::{START, World},
};

/// Reads one frame or heart-beat from the front of `input`. The frame is told as it came, without the
/// NUL; sessions are `SESSION`, and names that the broker made up end in `NAME`.
pub fn read(input: &[u8], _now_secs: u64) -> Option<(Said, usize)> {
    let told = |line: String, used: usize| {
        let name = line.split('\n').next().unwrap_or_default().to_owned();
        Some((Said { name, channel: 0, line, names: Vec::new() }, used))
    };
    if input.first() == Some(&b'\n') {
        return told("heart-beat".to_owned(), 1);
    }
    let head_end = input.windows(2).position(|pair| pair == b"\n\n")? + 2;
    let head = std::str::from_utf8(&input[..head_end]).expect("heads are text in tests");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map(|text| text.parse().unwrap());
    let body = &input[head_end..];
    let end: usize = match length {
        Some(length) => length,
        None => body.iter().position(|&octet| octet == 0)?,
    };
    let nul = body.get(end)?;
    assert_eq!(*nul, 0, "a NUL ends a frame");
    // The line end behind a frame belongs to it: a heart-beat comes alone.
    let used = head_end + end + 1 + usize::from(body.get(end + 1) == Some(&b'\n'));
    told(format!("{}{}", plain(head), String::from_utf8_lossy(&body[..end])), used)
}

fn plain(head: &str) -> String {
    let mut out = String::new();
    let mut rest = head;
    let prefixes = [("session-", "SESSION"), ("stomp-subscription-", "NAME"), ("amq.gen-", "NAME")];
    while let Some((at, (prefix, word))) =
        prefixes.iter().filter_map(|one| Some((rest.find(one.0)?, one))).min_by_key(|(at, _)| *at)
    {
        let (before, after) = rest.split_at(at);
        let name = &after[prefix.len()..];
        let len = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(name.len());
        out.push_str(before);
        if *word == "NAME" {
            out.push_str(prefix);
        }
        out.push_str(word);
        rest = &name[len..];
    }
    out + rest
}

impl World {
    /// Sends a frame; the NUL is added.
    pub fn say(&mut self, peer: usize, frame: &str) {
        self.send(peer, &[frame.as_bytes(), b"\0"].concat());
    }

    /// A connection of that version that has logged in as guest.
    pub fn open_stomp(&mut self, version: &str) -> usize {
        let peer = self.connect_stomp();
        self.say(peer, &format!("CONNECT\naccept-version:{version}\nlogin:guest\npasscode:guest\n\n"));
        let said = self.heard(peer);
        assert!(said.len() == 1 && said[0].starts_with("CONNECTED\n"), "{said:?}");
        peer
    }

    /// Sends a frame and reads its answers.
    pub fn ask(&mut self, peer: usize, frame: &str) -> Vec<String> {
        self.say(peer, frame);
        self.heard(peer)
    }

    /// Whether a peer is still served: a receipt is asked for.
    pub fn is_served(&mut self, peer: usize) -> bool {
        !self.is_over(peer) && self.ask(peer, "BEGIN\ntransaction:alive\nreceipt:alive\n\n") == [receipt("alive")]
    }
}

/// An ERROR frame as it is told.
pub fn error(message: &str, detail: &str) -> String {
    let length = if detail.is_empty() { String::new() } else { format!("content-length:{}\n", detail.len()) };
    format!("ERROR\nmessage:{message}\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n{length}\n{detail}")
}

/// A RECEIPT frame as it is told.
pub fn receipt(id: &str) -> String {
    format!("RECEIPT\nreceipt-id:{id}\n\n")
}

#[test]
fn frames_are_told_with_placeholders() {
    let input = b"MESSAGE\nmessage-id:T_1@@session-aB_-9@@1\ncontent-length:3\n\na\0b\0\n\n";
    let (said, used) = read(input, START.secs()).unwrap();
    assert_eq!(said.line, "MESSAGE\nmessage-id:T_1@@SESSION@@1\ncontent-length:3\n\na\0b");
    assert_eq!((said.name.as_str(), used), ("MESSAGE", input.len() - 1));
    assert_eq!(read(&input[used..], 0).unwrap().0.line, "heart-beat");
    assert!(read(&input[..30], 0).is_none());
}
