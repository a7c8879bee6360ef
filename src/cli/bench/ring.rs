//! Publishes encoded ahead of time, sent over and over with new numbers.

use super::{
    payload::Payload,
    plan::Lane,
    stomp::{self, RECEIPT_DIGITS},
    wire::{self, FRAME_HEAD_BYTES, FRAME_OVERHEAD_BYTES, Properties},
};
use std::ops::Range;

/// Encoded messages, one for each position; `number` renews their bodies in place.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    /// Where each message ends; the first begins at 0.
    ends: Vec<usize>,
    /// From the end of a message back to the start of its body's first frame payload.
    body_back: usize,
    body_bytes: usize,
    /// The most body that a frame holds.
    piece_bytes: usize,
    /// STOMP: where the digits of a message's receipt are, for those that ask for one.
    receipts: Vec<Option<usize>>,
}

impl Ring {
    /// At least `messages_min` messages, and every key of `lane` at least once; their properties in turn.
    pub(super) fn new(
        lane: &Lane,
        payload: &Payload,
        properties: &[Properties],
        frame_max: usize,
        messages_min: usize,
    ) -> Self {
        let body = payload.blank();
        let piece_bytes = frame_max - FRAME_OVERHEAD_BYTES;
        let pieces = body.len().div_ceil(piece_bytes);
        let rounds = messages_min.max(properties.len()).div_ceil(lane.keys.len()).max(1);
        let mut properties = properties.iter().copied().cycle();
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..rounds {
            for key in &lane.keys {
                wire::encode_publish(
                    &mut bytes,
                    &lane.exchange,
                    key,
                    properties.next().unwrap_or_default(),
                    &body,
                    frame_max,
                );
                ends.push(bytes.len());
            }
        }
        let body_back = (body.len() + pieces * FRAME_OVERHEAD_BYTES).saturating_sub(FRAME_HEAD_BYTES);
        Self { bytes, ends, body_back, body_bytes: body.len(), piece_bytes, receipts: Vec::new() }
    }

    /// SENDs to the queues of `lane` in turn, the last of each `receipt_every` with a receipt. Their number
    /// is a multiple of that and at least `messages_min`.
    pub(super) fn of_sends(
        lane: &Lane,
        queue_prefix: &str,
        payload: &Payload,
        properties: &[Properties],
        receipt_every: Option<u64>,
        messages_min: usize,
    ) -> Self {
        let body = payload.blank();
        let every = receipt_every.map_or(1, |every| every as usize);
        let count = messages_min.max(properties.len()).max(lane.keys.len()).next_multiple_of(every);
        let destinations: Vec<_> = lane.keys.iter().map(|key| format!("{queue_prefix}{key}")).collect();
        let turns = destinations.iter().cycle().zip(properties.iter().cycle());
        let mut ring = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            body_back: body.len() + 1,
            body_bytes: body.len(),
            piece_bytes: usize::MAX,
            receipts: Vec::new(),
        };
        for (index, (destination, properties)) in turns.take(count).enumerate() {
            let has_receipt = receipt_every.is_some() && (index + 1) % every == 0;
            let digits_at = stomp::encode_send(&mut ring.bytes, destination, *properties, &body, has_receipt);
            ring.receipts.push(digits_at);
            ring.ends.push(ring.bytes.len());
        }
        ring
    }

    /// Numbers the receipts of the messages of `range`, of which `sent` went before: each by how many have
    /// gone with its own.
    pub(super) fn number_receipts(&mut self, range: Range<usize>, sent: u64) {
        for (index, number) in range.zip(sent + 1..) {
            if let Some(&Some(at)) = self.receipts.get(index) {
                stomp::renew_receipt(&mut self.bytes[at..at + RECEIPT_DIGITS], number);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the largest message.
    pub(super) fn message_bytes(&self) -> usize {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| end - start).max().unwrap_or(0)
    }

    /// Where the messages of `range` stand.
    pub(super) fn span(&self, range: Range<usize>) -> Range<usize> {
        let start = if range.start == 0 { 0 } else { self.ends[range.start - 1] };
        start..self.ends[range.end - 1]
    }

    pub(super) fn bytes(&self, span: Range<usize>) -> &[u8] {
        &self.bytes[span]
    }

    /// Numbers the messages of `range` from `seq` on and returns the sum of their hashes.
    pub(super) fn number(
        &mut self,
        range: Range<usize>,
        payload: &Payload,
        publisher: u16,
        seq: u64,
        sent_ns: Option<u64>,
    ) -> u64 {
        let mut sum = 0u64;
        for (end, seq) in self.ends[range].iter().zip(seq..) {
            let body_at = end - self.body_back;
            if self.body_bytes <= self.piece_bytes {
                let body = &mut self.bytes[body_at..body_at + self.body_bytes];
                sum = sum.wrapping_add(payload.number(body, publisher, seq));
                if let Some(sent_ns) = sent_ns {
                    Payload::stamp(body, sent_ns);
                }
                continue;
            }
            // The body is cut into frames: number a copy, then place the few bytes that changed.
            let mut body = payload.blank();
            sum = sum.wrapping_add(payload.number(&mut body, publisher, seq));
            if let Some(sent_ns) = sent_ns {
                Payload::stamp(&mut body, sent_ns);
            }
            for at in (0..32).chain(self.body_bytes - 8..self.body_bytes) {
                self.bytes[body_at + at + at / self.piece_bytes * FRAME_OVERHEAD_BYTES] = body[at];
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Checked;
    use super::*;

    #[test]
    fn numbered_messages_decode_to_whole_bodies() {
        let lane = Lane { exchange: "e".into(), keys: vec!["k".into(), "longer".into()], queues: vec![0] };
        for (size, frame_max) in [(16, 4096), (1024, 4096), (4088, 4096), (4089, 4096), (9000, 4096)] {
            let payload = Payload::new(5, size);
            let mut ring = Ring::new(&lane, &payload, &[Properties::default()], frame_max, 3);
            assert_eq!(ring.len(), 4);
            ring.number(1..4, &payload, 2, 10, None);
            let bytes = ring.bytes(ring.span(1..4)).to_vec();
            let (mut at, mut body, mut seqs) = (0, Vec::new(), Vec::new());
            while at < bytes.len() {
                let frame = wire::decode(&bytes[at..]).unwrap().unwrap();
                at += frame.bytes();
                if frame.kind == wire::BODY {
                    body.extend_from_slice(frame.payload);
                }
                if body.len() == size {
                    match payload.check(&body) {
                        Checked::Traced { publisher: 2, seq, .. } => seqs.push(seq),
                        other => panic!("{other:?} at {size} bytes"),
                    }
                    body.clear();
                }
            }
            assert_eq!(seqs, [10, 11, 12]);
        }
    }
}
