//! One consumer: a thread, a connection, and a check of every body in place.

use super::{
    client::{CHANNEL, TICK, check_method, receive, send_now, wait},
    connection::Connection,
    failure::Failure,
    payload::{Checked, Payload},
    plan::{Consuming, Plan},
    shared::Shared,
    stomp,
    wire::{self, Encode, id},
};
use bytes::BufMut;
use hdrhistogram::Histogram;
use std::sync::{Arc, atomic::Ordering::SeqCst};

/// The bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// A latency beyond this is recorded as this.
pub(super) const LATENCY_NS_MAX: u64 = 60_000_000_000;

pub(super) struct Consumer {
    connection: Connection,
    queue: usize,
    /// Nobody else takes from this queue, so that every message must come, in order.
    sole: bool,
    consuming: Consuming,
    in_flight_max: u64,
    payload: Payload,
    shared: Arc<Shared>,
    latencies: Option<Histogram<u64>>,
    report: Consumed,
    /// Frames that are to be sent: acks.
    output: Vec<u8>,
    /// A body in several frames.
    parts: Vec<u8>,
    missing: u64,
    /// The last delivery's, or over STOMP how many there were.
    tag: u64,
    acked: u64,
    /// STOMP: what the last message is acknowledged by.
    ack_id: Vec<u8>,
}

/// What a consumer saw.
#[derive(Debug, Default)]
pub(super) struct Consumed {
    pub(super) queue: usize,
    /// By publisher.
    pub(super) tallies: Vec<Tally>,
    /// Messages too small to be told apart.
    pub(super) counted: u64,
    pub(super) damaged: u64,
    pub(super) latencies: Option<Histogram<u64>>,
}

/// What came from one publisher.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) hash_sum: u64,
    /// Messages that came behind a later one.
    pub(super) out_of_order: u64,
    /// Numbers left out, where all were due here.
    pub(super) gaps: u64,
    /// The number that comes next when nothing is missing.
    pub(super) next: u64,
}

impl Tally {
    #[inline]
    fn take(&mut self, seq: u64, hash: u64, sole: bool) {
        self.count += 1;
        self.hash_sum = self.hash_sum.wrapping_add(hash);
        if seq == self.next {
            self.next += 1;
        } else if seq > self.next {
            if sole {
                self.gaps += seq - self.next;
            }
            self.next = seq + 1;
        } else {
            self.out_of_order += 1;
        }
    }
}

impl Consumer {
    /// Connects and subscribes; what arrives waits for `run`.
    pub(super) fn connect(plan: &Plan, index: usize, payload: Payload, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let queue = plan.consumers[index];
        let mut connection = Connection::connect(plan, &format!("tern bench consumer {index}"))?;
        connection.consume(plan, queue)?;
        Ok(Self {
            connection,
            queue,
            sole: plan.consumers.iter().filter(|other| **other == queue).count() == 1,
            consuming: plan.consuming,
            in_flight_max: plan.publishing.in_flight_max,
            payload,
            shared: Arc::clone(shared),
            latencies: plan.publishing.stamped.then(latency_histogram).transpose()?,
            report: Consumed { queue, tallies: vec![Tally::default(); plan.lanes.len()], ..Consumed::default() },
            output: Vec::new(),
            parts: Vec::new(),
            missing: 0,
            tag: 0,
            acked: 0,
            ack_id: Vec::new(),
        })
    }

    /// Consumes until told to finish and nothing more comes.
    pub(super) fn run(mut self) -> Result<Consumed, Failure> {
        let mut buffer = self.connection.take_input();
        let mut filled = buffer.len();
        buffer.resize(READ_BYTES.max(filled * 2), 0);
        loop {
            if filled > 0 {
                let used = match self.connection {
                    Connection::Amqp(_) => self.take_frames(&buffer[..filled])?,
                    Connection::Stomp(_) => self.take_stomp_frames(&buffer[..filled])?,
                };
                if used == 0 && filled == buffer.len() {
                    match self.connection {
                        Connection::Amqp(_) => return Err(Failure::protocol("a frame larger than agreed")),
                        Connection::Stomp(_) => buffer.resize(2 * filled, 0),
                    }
                }
                buffer.copy_within(used..filled, 0);
                filled -= used;
            }
            let read = self.exchange(&mut buffer[filled..])?;
            filled += read;
            if read == 0 && (self.shared.finish.load(SeqCst) || self.shared.has_failed()) {
                break;
            }
        }
        self.report.latencies = self.latencies.take();
        if !self.shared.has_failed() {
            if matches!(self.consuming, Consuming::Manual { .. }) && self.tag > self.acked {
                self.ack(true);
            }
            while !self.output.is_empty() {
                wait(self.connection.stream(), true, TICK)?;
                self.send_output()?;
            }
            self.connection.close()?;
        }
        Ok(self.report)
    }

    /// Sends what is due as far as the socket takes it, and reads once.
    fn exchange(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if !self.output.is_empty() {
            self.send_output()?;
            if !self.output.is_empty() && !wait(self.connection.stream(), true, TICK)? {
                return Ok(0);
            }
        }
        receive(self.connection.stream(), buffer)
    }

    fn send_output(&mut self) -> Result<(), Failure> {
        let sent = send_now(self.connection.stream(), &self.output)?;
        self.output.drain(..sent);
        Ok(())
    }

    /// Handles the complete frames of `input` and returns their bytes.
    fn take_frames(&mut self, input: &[u8]) -> Result<usize, Failure> {
        let arrived_ns = match &self.latencies {
            Some(_) if self.shared.measuring.load(SeqCst) => Some(self.shared.now_ns()),
            _ => None,
        };
        let mut at = 0;
        let mut count = 0;
        while let Some(frame) = wire::decode(&input[at..])? {
            at += frame.bytes();
            match frame.kind {
                wire::BODY if self.missing == frame.payload.len() as u64 && self.parts.is_empty() => {
                    self.take_body(frame.payload, arrived_ns);
                    count += 1;
                }
                wire::BODY => {
                    self.parts.extend_from_slice(frame.payload);
                    if self.parts.len() as u64 >= self.missing {
                        let mut whole = std::mem::take(&mut self.parts);
                        self.take_body(&whole, arrived_ns);
                        whole.clear();
                        self.parts = whole;
                        count += 1;
                    }
                }
                wire::HEADER => {
                    self.missing = frame.body_bytes()?;
                    if self.missing == 0 {
                        self.take_body(&[], arrived_ns);
                        count += 1;
                    }
                }
                wire::METHOD => {
                    let method = frame.method()?;
                    let mut arguments = frame.arguments();
                    if method == id::BASIC_DELIVER {
                        arguments.short()?;
                        self.tag = arguments.u64()?;
                    } else {
                        check_method(method, &mut arguments, &mut self.output)?;
                    }
                }
                _ => {}
            }
        }
        if count > 0 {
            self.shared.count_received(self.queue, count, self.in_flight_max);
        }
        Ok(at)
    }

    /// Handles the complete frames of `input` and returns their bytes.
    fn take_stomp_frames(&mut self, input: &[u8]) -> Result<usize, Failure> {
        let arrived_ns = match &self.latencies {
            Some(_) if self.shared.measuring.load(SeqCst) => Some(self.shared.now_ns()),
            _ => None,
        };
        let is_manual = matches!(self.consuming, Consuming::Manual { .. });
        let mut at = 0;
        let mut count = 0;
        while let Some(frame) = stomp::decode(&input[at..])? {
            at += frame.bytes;
            stomp::check(&frame)?;
            if frame.command == b"MESSAGE" {
                if is_manual {
                    self.ack_id.clear();
                    self.ack_id.extend_from_slice(frame.ack);
                }
                self.tag += 1;
                self.take_body(frame.body, arrived_ns);
                count += 1;
            }
        }
        if count > 0 {
            self.shared.count_received(self.queue, count, self.in_flight_max);
        }
        Ok(at)
    }

    #[inline]
    fn take_body(&mut self, body: &[u8], arrived_ns: Option<u64>) {
        match self.payload.check(body) {
            Checked::Traced { publisher, seq, hash } => {
                match self.report.tallies.get_mut(usize::from(publisher)) {
                    Some(tally) => tally.take(seq, hash, self.sole),
                    None => self.report.damaged += 1,
                }
                if let (Some(arrived_ns), Some(latencies)) = (arrived_ns, &mut self.latencies) {
                    latencies.saturating_record(arrived_ns.saturating_sub(Payload::sent_ns(body)));
                }
            }
            Checked::Counted => self.report.counted += 1,
            Checked::Damaged => self.report.damaged += 1,
        }
        if let Consuming::Manual { ack_every, .. } = self.consuming
            && self.tag.saturating_sub(self.acked) >= u64::from(ack_every)
        {
            self.ack(ack_every > 1);
        }
    }

    fn ack(&mut self, multiple: bool) {
        self.acked = self.tag;
        if let Connection::Stomp(_) = self.connection {
            return stomp::encode_ack(&mut self.output, &self.ack_id);
        }
        self.output.method(CHANNEL, id::BASIC_ACK, |out| {
            out.put_u64(self.tag);
            out.push(u8::from(multiple));
        });
    }
}

/// For nanoseconds.
pub(super) fn latency_histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3)
        .map_err(|error| Failure::protocol(format!("a histogram: {error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_loss_from_reordering() {
        let mut tally = Tally::default();
        for seq in [0, 1, 3, 2, 4] {
            tally.take(seq, 1, true);
        }
        assert_eq!((tally.count, tally.gaps, tally.out_of_order), (5, 1, 1));
    }

    #[test]
    fn numbers_that_another_consumer_took_are_no_gaps() {
        let mut tally = Tally::default();
        for seq in [0, 5, 9] {
            tally.take(seq, 1, false);
        }
        assert_eq!((tally.gaps, tally.out_of_order), (0, 0));
    }
}
