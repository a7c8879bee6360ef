//! SENDs whose head is the one before, octet for octet: what was found out about that still holds, and
//! nothing but their bodies is looked at.
//!
//! Only a head is kept that says the same whenever it comes: it asks for no receipt, belongs to no
//! transaction, makes no reply queue and names no user.

use std::sync::Arc;

use memchr::memchr;
use smallvec::SmallVec;

use super::{
    codec::{BodyEnd, Head},
    publish::COPIED_BODY_MAX,
    session::{Session, Stage},
};
use crate::broker::{
    block::Block,
    message::{Layout, Message, Traits},
    turn::Turn,
};

/// What the last SEND came to.
#[derive(Default)]
pub(super) struct Repeated {
    /// Its command and headers, the empty line included. Nothing: there is none.
    head: Vec<u8>,
    /// Octets of its body where they were said; otherwise that ends with a NUL.
    length: Option<usize>,
    /// Route and properties.
    bytes: Vec<u8>,
    layout: Layout,
    traits: Traits,
}

/// Larger heads are not kept.
const HEAD_BYTES_MAX: usize = 1024;

impl Repeated {
    /// Keeps a head that has become `message`, if it is worth it.
    pub(super) fn set(&mut self, head: &Head<'_>, message: &Message) {
        self.clear();
        self.length = match head.body_end() {
            Ok(BodyEnd::Length(length)) if length <= COPIED_BODY_MAX as u64 => Some(length as usize),
            Ok(BodyEnd::Nul) => None,
            _ => return,
        };
        if head.bytes().len() > HEAD_BYTES_MAX {
            return;
        }
        self.head.extend_from_slice(head.bytes());
        self.bytes.clear();
        self.bytes.extend_from_slice(message.route_bytes());
        self.bytes.extend_from_slice(message.properties());
        let at = message.route_bytes().len();
        let headers = match message.headers_range() {
            (_, 0) => (0, 0),
            (from, len) => (at + from, len),
        };
        self.layout = Layout { route_at: 0, properties: (at, message.properties().len()), headers };
        self.traits = message.traits;
    }

    /// Forgets it.
    pub(super) fn clear(&mut self) {
        self.head.clear();
    }

    /// Where the body is in `rest`, if that begins with this head and has all of a body that is copied.
    fn find(&self, rest: &[u8]) -> Option<(usize, usize)> {
        if self.head.is_empty() {
            return None;
        }
        let body = rest.strip_prefix(&*self.head)?;
        let len = match self.length {
            Some(len) => len,
            None => memchr(0, &body[..body.len().min(COPIED_BODY_MAX + 1)])?,
        };
        (body.get(len) == Some(&0)).then_some((self.head.len(), len))
    }

    /// The frames with this head that `rest` begins with: where their bodies are.
    fn find_all(&self, rest: &[u8]) -> SmallVec<[(usize, usize); RUN_MAX]> {
        let mut found = SmallVec::new();
        let mut at = 0;
        while found.len() < RUN_MAX {
            let Some((body_at, len)) = self.find(&rest[at..]) else { break };
            found.push((at + body_at, len));
            at += body_at + len + 1;
            at += rest[at..].iter().take_while(|octet| **octet == b'\n').count();
        }
        found
    }
}

/// Frames that are taken together.
const RUN_MAX: usize = 64;

impl Session {
    /// Takes SENDs like the one before, and returns their octets. `None`: there is none.
    ///
    /// Their messages share one block, as those of a read do elsewhere.
    pub(super) fn send_again(&mut self, input: &Block, at: usize, turn: &mut Turn<'_>) -> Option<usize> {
        let rest = &input[at..];
        let found = self.repeated.find_all(rest);
        let longest = found.iter().map(|(_, len)| *len as u64).max()?;
        let is_allowed = longest <= self.broker.options.max_message_bytes;
        if self.stage() != Stage::Running || self.broker.has_alarm() || !is_allowed {
            return None;
        }
        self.body_seen = 0;
        let mut used = 0;
        let Repeated { bytes, layout, traits, .. } = &self.repeated;
        let (layout, traits, head_len) = (*layout, *traits, bytes.len());
        let bodies_len: usize = found.iter().map(|(_, len)| len).sum();
        let mut block = Vec::with_capacity(head_len + bodies_len);
        block.extend_from_slice(bytes);
        for &(at, len) in &found {
            block.extend_from_slice(&rest[at..at + len]);
        }
        let block: Block = Arc::new(block);
        let mut block_at = head_len;
        for (at, len) in found {
            let message = Message::inline(block.clone(), layout, traits, (block_at, len));
            block_at += len;
            used = at + len + 1;
            if let Err(refusal) = self.publish(message, None, turn) {
                self.settle_up(turn);
                self.refuse(refusal, turn);
                break;
            }
        }
        Some(used)
    }
}
