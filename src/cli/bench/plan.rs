//! What a load consists of: topology, who publishes where, who consumes what, and how.

use super::{
    client::{Client, QueueOptions},
    failure::Failure,
    url::Url,
    wire::Properties,
};

/// A load, ready to be put on a broker.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) url: Url,
    pub(super) queues: Vec<String>,
    pub(super) queue_options: QueueOptions,
    /// Name and type.
    pub(super) exchanges: Vec<(String, &'static str)>,
    pub(super) bindings: Vec<Binding>,
    /// One publisher each.
    pub(super) lanes: Vec<Lane>,
    /// One consumer each: the index of its queue.
    pub(super) consumers: Vec<usize>,
    pub(super) publishing: Publishing,
    /// Of messages, in turn.
    pub(super) properties: Vec<Properties>,
    pub(super) consuming: Consuming,
}

/// A binding to be made; `queue` is an index.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) queue: usize,
    pub(super) exchange: String,
    pub(super) key: String,
}

/// Where one publisher sends: its keys in turn; every message reaches all of `queues`.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) exchange: String,
    pub(super) keys: Vec<String>,
    pub(super) queues: Vec<usize>,
}

/// How every publisher works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publishing {
    pub(super) body_bytes: usize,
    /// With confirms, and at most so many outstanding.
    pub(super) confirm_window: Option<u64>,
    /// STOMP: every so many publishes one asks for a receipt.
    pub(super) receipt_every: u64,
    /// Messages a second of one publisher.
    pub(super) rate: Option<f64>,
    /// The most that a queue may hold, on its way or ready; 0 for no limit.
    pub(super) in_flight_max: u64,
    /// A publisher ends after so many messages.
    pub(super) limit: Option<u64>,
    /// Bodies carry the time of their sending.
    pub(super) stamped: bool,
}

/// How every consumer works.
#[derive(Debug, Clone, Copy)]
pub(super) enum Consuming {
    AutoAck,
    Manual { prefetch: u16, ack_every: u32 },
}

impl Plan {
    /// Queue names of this process; short, because names travel with every message.
    pub(super) fn queue_names(count: usize) -> Vec<String> {
        let process = std::process::id();
        (0..count).map(|index| format!("tb{process}.{index}")).collect()
    }

    pub(super) fn exchange_name() -> String {
        format!("tb{}", std::process::id())
    }

    /// Each publisher and consumer on the default exchange, spread over the queues in turn.
    pub(super) fn spread(
        url: &Url,
        publishers: usize,
        queues: usize,
        consumers: usize,
        publishing: Publishing,
        consuming: Consuming,
    ) -> Result<Self, Failure> {
        if queues == 0 || publishers < queues || consumers < queues {
            return Err(Failure::usage("every queue needs a publisher and a consumer"));
        }
        let names = Self::queue_names(queues);
        let lane = |publisher: usize| Lane {
            exchange: String::new(),
            keys: vec![names[publisher % queues].clone()],
            queues: vec![publisher % queues],
        };
        Ok(Self {
            url: url.clone(),
            lanes: (0..publishers).map(lane).collect(),
            consumers: (0..consumers).map(|consumer| consumer % queues).collect(),
            queues: names,
            queue_options: QueueOptions { auto_delete: true, ..QueueOptions::default() },
            exchanges: Vec::new(),
            bindings: Vec::new(),
            publishing,
            properties: vec![Properties::default()],
            consuming,
        })
    }

    /// Whether each publisher's messages must come as it sent them.
    pub(super) fn is_ordered(&self) -> bool {
        self.properties.iter().all(|properties| properties.priority.is_none())
    }

    /// Makes queues, exchanges and bindings.
    pub(super) fn declare(&self, client: &mut Client) -> Result<(), Failure> {
        for queue in &self.queues {
            client.declare_queue(queue, &self.queue_options)?;
        }
        for (exchange, kind) in &self.exchanges {
            client.declare_exchange(exchange, kind)?;
        }
        for Binding { queue, exchange, key } in &self.bindings {
            client.bind(&self.queues[*queue], exchange, key)?;
        }
        Ok(())
    }

    /// Removes what `declare` made.
    pub(super) fn delete(&self, client: &mut Client) -> Result<(), Failure> {
        for (exchange, _) in &self.exchanges {
            client.delete_exchange(exchange)?;
        }
        for queue in &self.queues {
            client.delete_queue(queue)?;
        }
        Ok(())
    }
}

/// A bound for messages in flight that keeps a queue short and yet a fast broker busy.
///
/// What is in flight stands in socket buffers and is copied out of them: 2 MiB stay in the cache,
/// while 8 MiB cost even the null broker half as much again.
pub(super) fn in_flight_max(body_bytes: usize) -> u64 {
    const BYTES: usize = 2 << 20;
    const OVERHEAD_BYTES: usize = 70;
    (BYTES / (body_bytes + OVERHEAD_BYTES)).clamp(16, 20_000) as u64
}
