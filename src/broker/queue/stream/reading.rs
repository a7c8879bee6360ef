//! Reading a stream without being a consumer of it: pages of messages, for somebody who keeps the place.

use std::sync::Arc;

use super::{Filter, Next};
use crate::broker::{
    message::Message,
    queue::Queue,
    time::Time,
    turn::Turn,
    verb::{Ticket, Verb},
};

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct StreamMessage {
    /// Its offset.
    pub offset: u64,
    /// When it came.
    pub at: Time,
    /// The message as it was published.
    pub message: Message,
}

/// Some messages of a stream, in order.
#[derive(Clone, Debug, Default)]
pub struct StreamPage {
    /// The messages; there may be none though there are more.
    pub messages: Vec<StreamMessage>,
    /// The offset to go on from.
    pub next: u64,
    /// The offset that the next message gets: `next` where nothing more is there.
    pub end: u64,
}

/// Bytes of bodies of one page, if it is more than one message.
const PAGE_BYTES_MAX: u64 = 1 << 20;

impl Queue {
    /// Reads at most `max` messages of a stream, and not more than one page may have, from an offset on. What the
    /// log has not flushed is not read. `None`: it is deleted, is no stream, or cannot be read.
    pub fn read_stream(self: &Arc<Self>, from: u64, max: usize, turn: &Turn<'_>) -> Verb<Option<StreamPage>> {
        let mut machine = self.lock();
        let is_deleted = self.is_deleted();
        let Some(stream) = machine.stream.as_mut().filter(|_| !is_deleted) else { return Verb::Done(None) };
        let mut page = StreamPage { messages: Vec::new(), next: from, end: stream.next_offset() };
        let mut bytes = 0;
        if stream.is_cold_at(from) {
            stream.read_at(from);
        }
        while page.messages.len() < max && bytes < PAGE_BYTES_MAX {
            match stream.next(page.next, Time(0), &Filter::default()) {
                Next::Message(offset, message) => {
                    let message = message.clone();
                    let at = stream.get(offset).map_or(Time(0), |(_, at)| at);
                    bytes += message.body_bytes();
                    page.messages.push(StreamMessage { offset, at, message });
                    page.next = offset + 1;
                }
                Next::Searched(offset) => page.next = offset,
                Next::End(offset) => {
                    page.next = offset;
                    break;
                }
                Next::Cold(_) if stream.is_damaged() => return Verb::Done(None),
                Next::Cold(offset) => {
                    page.next = offset;
                    if !page.messages.is_empty() {
                        break;
                    }
                    stream.want(offset);
                    self.ask_for_pages(&mut machine, turn);
                    return Verb::Pending(Ticket(self.id.0));
                }
            }
        }
        Verb::Done(Some(page))
    }

    /// The offset of the first message of a stream that came at a time or later, as far as memory knows, and the
    /// offset that the next message gets. `None`: it is no stream.
    pub fn stream_range(&self, since: Time) -> Option<(u64, u64)> {
        let machine = self.lock();
        let stream = machine.stream.as_ref()?;
        Some((stream.start_since(since).offset, stream.next_offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{
        Broker, Options,
        topology::DeclareQueue,
        value::{Table, Value},
    };

    fn read(queue: &Arc<Queue>, from: u64, max: usize, broker: &Broker) -> StreamPage {
        match queue.read_stream(from, max, &Turn::new(broker, Time(0))) {
            Verb::Done(Some(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stream_is_read_in_pages_by_offset_and_time() {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let arguments = Table::from_iter([("x-queue-type", Value::text("stream"))]);
        let wanted = DeclareQueue { name: "s", durable: true, arguments, ..DeclareQueue::default() };
        let queue = vhost.declare_queue(&wanted, None, &mut Turn::new(&broker, Time(0))).unwrap();
        for n in 0..10_u64 {
            let mut turn = Turn::new(&broker, Time(100 * n));
            let message = Message::build("", b"s", &[], (0, 0), n.to_string().as_bytes());
            queue.publish(std::iter::once(message), &mut turn, &mut Vec::new());
            turn.end();
        }
        let page = read(&queue, 0, 4, &broker);
        assert_eq!(page.messages.iter().map(|of| (of.offset, of.at.0)).collect::<Vec<_>>().last(), Some(&(3, 300)));
        assert_eq!((page.next, page.end), (4, 10));
        let rest = read(&queue, page.next, 100, &broker);
        assert_eq!((rest.messages.len(), rest.next, rest.end), (6, 10, 10));
        assert_eq!(queue.stream_range(Time(450)), Some((5, 10)));
        let plain = DeclareQueue { name: "q", durable: true, ..DeclareQueue::default() };
        let plain = vhost.declare_queue(&plain, None, &mut Turn::new(&broker, Time(0))).unwrap();
        assert!(matches!(plain.read_stream(0, 1, &Turn::new(&broker, Time(0))), Verb::Done(None)));
    }
}
