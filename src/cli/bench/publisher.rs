//! One publisher: a thread, a connection, and a ring of encoded messages.

use super::{
    client::{TICK, Unasked, check_method, receive, send_now, wait},
    confirms::Confirms,
    connection::Connection,
    consumer::latency_histogram,
    failure::Failure,
    payload::Payload,
    plan::{Plan, Publishing},
    ring::Ring,
    shared::Shared,
    stomp,
    wire::{self, id},
};
use hdrhistogram::Histogram;
use std::{
    io::Write,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

/// The bytes of one write, as far as the other limits allow it.
const BATCH_BYTES: usize = 128 * 1024;

/// How long the broker may refuse to take anything before the run fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Publisher {
    connection: Connection,
    index: usize,
    publishing: Publishing,
    payload: Payload,
    shared: Arc<Shared>,
    ring: Ring,
    batch: u64,
    confirms: Option<Confirms>,
    /// From just before the write of a publish to just after the read of its confirm.
    confirm_latencies: Option<Histogram<u64>>,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: u64,
    hash_sum: u64,
}

/// What a publisher did.
#[derive(Debug, Default, Clone)]
pub(super) struct Published {
    pub(super) sent: u64,
    /// The sum of the hashes of all bodies.
    pub(super) hash_sum: u64,
    pub(super) nacked: u64,
    /// Where publishes were stamped and confirmed.
    pub(super) confirm_latencies: Option<Histogram<u64>>,
}

impl Publisher {
    /// Connects; nothing is published before `run`.
    pub(super) fn connect(plan: &Plan, index: usize, payload: Payload, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let mut connection = Connection::connect(plan, &format!("tern bench publisher {index}"))?;
        let publishing = plan.publishing;
        if publishing.confirm_window.is_some() {
            connection.select_confirms()?;
        }
        let lane = &plan.lanes[index];
        let receipt_every = publishing.confirm_window.map(|_| publishing.receipt_every);
        let properties = &plan.properties;
        let ring = |messages| match &connection {
            Connection::Amqp(client) => Ring::new(lane, &payload, properties, client.frame_max, messages),
            Connection::Stomp(client) => {
                Ring::of_sends(lane, client.queue_prefix, &payload, properties, receipt_every, messages)
            }
        };
        let message_bytes = ring(1).message_bytes();
        // At least four batches to a window, so that broker and consumer work while this one fills
        // the next.
        let by_flight = if publishing.in_flight_max == 0 { u64::MAX } else { publishing.in_flight_max / 4 };
        let by_confirms = publishing.confirm_window.map_or(u64::MAX, |window| window / 4);
        let batch = ((BATCH_BYTES / message_bytes) as u64).min(by_flight).min(by_confirms).max(1);
        if let (Connection::Stomp(_), Some(window)) = (&connection, publishing.confirm_window)
            && publishing.receipt_every > window.div_ceil(2)
        {
            // Those that nothing has been asked for yet must leave room for a batch.
            return Err(Failure::usage("--receipt-every may not exceed half of --confirms"));
        }
        Ok(Self {
            ring: ring(batch as usize),
            confirms: publishing.confirm_window.map(|_| Confirms::default()),
            confirm_latencies: (publishing.stamped && publishing.confirm_window.is_some())
                .then(latency_histogram)
                .transpose()?,
            input: connection.take_input(),
            output: Vec::new(),
            connection,
            index,
            publishing,
            payload,
            shared: Arc::clone(shared),
            batch,
            sent: 0,
            hash_sum: 0,
        })
    }

    /// Publishes until told to stop, or its limit; then waits for the confirms that are due.
    pub(super) fn run(mut self) -> Result<Published, Failure> {
        if self.publishing.rate.is_some() {
            // The default slack of 50 us would be seen in the latencies.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        let start = Instant::now();
        let mut position = 0;
        let mut last_sent_at = start;
        while !self.shared.is_over() && self.publishing.limit.is_none_or(|limit| self.sent < limit) {
            let Some(count) = self.next_count(start, position)? else {
                continue;
            };
            if count == 0 {
                // A broker that closed the channel reads on and drops: its reason waits in the input.
                if last_sent_at.elapsed() > TICK && wait(self.connection.stream(), false, Duration::ZERO)? {
                    self.take_input()?;
                }
                if last_sent_at.elapsed() > STALL_TIMEOUT {
                    return Err(Failure::Timeout("the broker to take or deliver messages".to_owned()));
                }
                continue;
            }
            let sent = self.publish(position, count)?;
            last_sent_at = Instant::now();
            position = (position + sent as usize) % self.ring.len();
        }
        self.await_confirms()?;
        let nacked = self.confirms.as_ref().map_or(0, |confirms| confirms.nacked);
        let confirm_latencies = self.confirm_latencies.take();
        let published = Published { sent: self.sent, hash_sum: self.hash_sum, nacked, confirm_latencies };
        if !self.shared.has_failed() {
            self.connection.close()?;
        }
        Ok(published)
    }

    /// How many messages to send now; 0 after waiting in vain, `None` after waiting for the time.
    fn next_count(&mut self, start: Instant, position: usize) -> Result<Option<u64>, Failure> {
        let limit = self.publishing.limit.map_or(u64::MAX, |limit| limit - self.sent);
        let wanted = self.batch.min(limit).min((self.ring.len() - position) as u64);
        let (due, needed) = match self.publishing.rate {
            None => (wanted, wanted),
            Some(rate) => {
                let elapsed = start.elapsed().as_secs_f64();
                let due = ((elapsed * rate) as u64 + 1).saturating_sub(self.sent);
                if due == 0 {
                    let next = Duration::from_secs_f64(self.sent as f64 / rate);
                    let pause = next.saturating_sub(start.elapsed()).min(TICK);
                    if self.confirms.is_none() {
                        thread::sleep(pause);
                    } else if wait(self.connection.stream(), false, pause)? {
                        self.take_input()?;
                    }
                    return Ok(None);
                }
                (due.min(wanted), 1)
            }
        };
        let in_flight_max = self.publishing.in_flight_max;
        let room = self.shared.room(self.index, in_flight_max);
        if room < needed {
            self.shared.await_room(self.index, in_flight_max, needed, TICK);
            return Ok(Some(0));
        }
        Ok(Some(due.min(room)))
    }

    /// Sends up to `count` messages, as many as the confirm window takes, and returns how many.
    fn publish(&mut self, position: usize, count: u64) -> Result<u64, Failure> {
        // Between batches only: an answer must not land inside a half-sent message.
        if !self.output.is_empty() {
            let sent = (&mut self.connection.stream()).write_all(&self.output);
            sent.map_err(Failure::io("writing to the broker"))?;
            self.output.clear();
        }
        let mut count = count;
        if let (Some(window), Some(confirms)) = (self.publishing.confirm_window, &self.confirms) {
            let needed = if self.publishing.rate.is_some() { 1 } else { count.min(window) };
            if window - confirms.unconfirmed().min(window) < needed {
                self.await_unconfirmed(window - needed)?;
            }
            let unconfirmed = self.confirms.as_ref().map_or(0, Confirms::unconfirmed);
            count = count.min(window.saturating_sub(unconfirmed));
        }
        if count == 0 {
            return Ok(0);
        }
        let range = position..position + count as usize;
        let sent_ns = self.publishing.stamped.then(|| self.shared.now_ns());
        if self.payload.is_traced() {
            let sum = self.ring.number(range.clone(), &self.payload, self.index as u16, self.sent, sent_ns);
            self.hash_sum = self.hash_sum.wrapping_add(sum);
        }
        self.ring.number_receipts(range.clone(), self.sent);
        self.sent += count;
        if let Some(confirms) = &mut self.confirms {
            confirms.sent(count, sent_ns);
        }
        self.shared.count_sent(self.index, count);
        self.send(self.ring.span(range))?;
        Ok(count)
    }

    /// Sends it all; takes input meanwhile, because a broker may wait for us to read before it reads.
    fn send(&mut self, span: std::ops::Range<usize>) -> Result<(), Failure> {
        let mut at = span.start;
        let mut progress_at = Instant::now();
        while at < span.end {
            let sent = match send_now(self.connection.stream(), self.ring.bytes(at..span.end)) {
                Ok(sent) => sent,
                Err(failure) => return Err(self.reason_for(failure)),
            };
            at += sent;
            if sent > 0 {
                if at < span.end {
                    progress_at = Instant::now();
                }
                continue;
            }
            if self.shared.has_failed() {
                return Ok(());
            }
            if progress_at.elapsed() > STALL_TIMEOUT {
                return Err(Failure::Timeout("the broker to read publishes".to_owned()));
            }
            if wait(self.connection.stream(), true, TICK)? {
                self.take_input()?;
            }
        }
        Ok(())
    }

    /// The broker's own reason for a broken socket, where it left one.
    fn reason_for(&mut self, failure: Failure) -> Failure {
        match self.take_input() {
            Err(reason) if reason.is_a_reason() => reason,
            _ => failure,
        }
    }

    fn await_confirms(&mut self) -> Result<(), Failure> {
        // Behind the last receipt nothing was asked for.
        let unasked = match self.connection {
            Connection::Amqp(_) => 0,
            Connection::Stomp(_) => self.sent % self.publishing.receipt_every,
        };
        self.await_unconfirmed(unasked)
    }

    /// Reads until at most `most` publishes are unconfirmed.
    fn await_unconfirmed(&mut self, most: u64) -> Result<(), Failure> {
        let mut progress_at = Instant::now();
        loop {
            let Some(confirms) = &self.confirms else {
                return Ok(());
            };
            let before = confirms.unconfirmed();
            if before <= most || self.shared.has_failed() {
                return Ok(());
            }
            self.take_input()?;
            if self.confirms.as_ref().is_some_and(|confirms| confirms.unconfirmed() < before) {
                progress_at = Instant::now();
            } else if progress_at.elapsed() > STALL_TIMEOUT {
                return Err(Failure::Timeout(format!("{before} confirms")));
            }
        }
    }

    /// Reads once, for a tick at most, and handles what came.
    fn take_input(&mut self) -> Result<(), Failure> {
        const READ_BYTES: usize = 16 * 1024;
        let mut piece = [0; READ_BYTES];
        let read = receive(self.connection.stream(), &mut piece)?;
        self.input.extend_from_slice(&piece[..read]);
        let latencies = self.confirm_latencies.as_mut().filter(|_| self.shared.measuring.load(SeqCst));
        let mut timed = latencies.map(|latencies| (latencies, self.shared.now_ns()));
        let record = |sent_ns| {
            if let Some((latencies, now_ns)) = &mut timed {
                latencies.saturating_record(now_ns.saturating_sub(sent_ns));
            }
        };
        let used = match &self.connection {
            Connection::Amqp(_) => take_methods(&self.input, &mut self.confirms, &mut self.output, record)?,
            Connection::Stomp(_) => take_receipts(&self.input, &mut self.confirms, record)?,
        };
        self.input.drain(..used);
        Ok(())
    }
}

/// Acts on the complete frames of `input` and returns their bytes; what is due goes to `output`.
fn take_methods(
    input: &[u8],
    confirms: &mut Option<Confirms>,
    output: &mut Vec<u8>,
    mut record: impl FnMut(u64),
) -> Result<usize, Failure> {
    let mut at = 0;
    while let Some(frame) = wire::decode(&input[at..])? {
        at += frame.bytes();
        if frame.kind != wire::METHOD {
            continue;
        }
        let mut arguments = frame.arguments();
        match (frame.method()?, &mut *confirms) {
            (method @ (id::BASIC_ACK | id::BASIC_NACK), Some(confirms)) => {
                let (tag, bits) = (arguments.u64()?, arguments.u8()?);
                confirms.confirm(tag, bits & 1 == 1, method == id::BASIC_ACK, &mut record)?;
            }
            (method, _) => {
                let unasked = check_method(method, &mut arguments, output)?;
                debug_assert!(matches!(unasked, Unasked::Ignored | Unasked::Blocked | Unasked::Unblocked));
            }
        }
    }
    Ok(at)
}

/// Acts on the complete frames of `input` and returns their bytes. A receipt stands for all up to its
/// number.
fn take_receipts(input: &[u8], confirms: &mut Option<Confirms>, mut record: impl FnMut(u64)) -> Result<usize, Failure> {
    let mut at = 0;
    while let Some(frame) = stomp::decode(&input[at..])? {
        at += frame.bytes;
        stomp::check(&frame)?;
        if let (b"RECEIPT", Some(confirms)) = (frame.command, &mut *confirms) {
            let number = stomp::number(frame.receipt_id);
            let number = number.ok_or_else(|| Failure::protocol("a receipt that nobody asked for"))?;
            confirms.confirm(number, true, true, &mut record)?;
        }
    }
    Ok(at)
}
