//! Messages that some of their queues take in another form than they were published in.
//!
//! Such a message is stored once. Its [`View`] names the queues that
//! want it wrapped, each with the label of the binding that it came through, and what was made out of
//! the message when it passed the exchange: a signature costs too much to make it for every queue. The
//! wrapped form is rendered whenever the message is handed out, by somebody whom the core knows as
//! [`Renderer`] only; whatever leaves the queue for another one leaves it wrapped.
//!
//! Invariant: `queues` is ordered by queue, and each names a seal that is there.

use std::{borrow::Cow, sync::Arc};

use crate::broker::{
    Broker,
    exchange::{Exchange, filter::Subject},
    message::{Message, View},
    record::QueueId,
    time::Time,
    vhost::Vhost,
};

/// The label of a binding: the name by which whoever renders knows it.
pub type Label = Arc<[u8]>;

/// Which queues take a message wrapped, and in what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelopes {
    seals: Vec<Seal>,
    queues: Vec<(QueueId, u32, Label)>,
}

/// What an exchange had made out of a message that passed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seal {
    /// The exchange.
    pub exchange: Arc<str>,
    /// What the renderer made.
    pub bytes: Arc<[u8]>,
}

/// A message that passes an exchange, for a [`Renderer`].
#[derive(Clone, Copy)]
pub struct Passing<'a> {
    /// Where the exchange is.
    pub vhost: &'a Vhost,
    /// The exchange.
    pub exchange: &'a Exchange,
    /// The message.
    pub message: &'a Message,
    /// The labels of the bindings that want it wrapped.
    pub labels: &'a [Label],
    /// The time.
    pub now: Time,
}

/// A message that a queue takes wrapped, for a [`Renderer`].
#[derive(Clone, Copy, Debug)]
pub struct Wrapped<'a> {
    /// The message as it was published.
    pub message: &'a Message,
    /// The exchange whose binding wraps it.
    pub exchange: &'a str,
    /// What was made out of the message when it passed the exchange.
    pub seal: &'a [u8],
    /// The label of the binding.
    pub label: &'a [u8],
    /// The queue that it is in.
    pub queue: QueueId,
}

/// Makes the wrapped form of messages.
pub trait Renderer: Send + Sync {
    /// What is to be kept with a message so that it can be rendered. Called once for each exchange that a
    /// message passes, if any queue wants it wrapped, under no lock.
    fn seal(&self, passing: Passing<'_>) -> Vec<u8>;

    /// What filters see of a message with that body.
    fn subject<'m>(&self, message: &'m Message, body: &'m [u8]) -> Subject<'m> {
        Subject::from_headers(message.headers(), body, |_| true)
    }

    /// The wrapped form: the same for the same arguments, always. Called under a queue's lock.
    fn render(&self, wrapped: Wrapped<'_>) -> Message;
}

/// Bindings that a message met and that want it wrapped.
#[derive(Default)]
pub struct Wanted(Vec<(QueueId, Arc<Exchange>, Label)>);

impl Wanted {
    /// A binding of `exchange` to that queue wants the message wrapped.
    pub(in crate::broker) fn push(&mut self, queue: QueueId, exchange: &Arc<Exchange>, label: Label) {
        self.0.push((queue, exchange.clone(), label));
    }

    /// Has everything sealed that is needed to render the message; `None` if nobody wants it wrapped.
    pub(in crate::broker) fn seal(
        self,
        vhost: &Vhost,
        message: &Message,
        broker: &Broker,
        now: Time,
    ) -> Option<Arc<Envelopes>> {
        let Self(mut wanted) = self;
        if wanted.is_empty() {
            return None;
        }
        let renderer = broker.renderer()?;
        // Stable: of several bindings to one queue the first counts.
        wanted.sort_by_key(|(queue, ..)| *queue);
        wanted.dedup_by_key(|(queue, ..)| *queue);
        let mut exchanges: Vec<&Arc<Exchange>> = Vec::new();
        for (_, exchange, _) in &wanted {
            if !exchanges.iter().any(|known| Arc::ptr_eq(known, exchange)) {
                exchanges.push(exchange);
            }
        }
        let is_of = |exchange: &Arc<Exchange>, other: &Arc<Exchange>| Arc::ptr_eq(exchange, other);
        let seal = |exchange: &&Arc<Exchange>| {
            let labels = wanted.iter().filter(|(_, of, _)| is_of(of, exchange)).map(|(.., label)| label.clone());
            let passing = Passing { vhost, exchange, message, labels: &labels.collect::<Vec<_>>(), now };
            Seal { exchange: exchange.name.clone(), bytes: renderer.seal(passing).into() }
        };
        let seals = exchanges.iter().map(seal).collect();
        let place = |of: &Arc<Exchange>| exchanges.iter().position(|known| is_of(known, of)).unwrap_or_default() as u32;
        let queues = wanted.iter().map(|(queue, exchange, label)| (*queue, place(exchange), label.clone())).collect();
        Some(Arc::new(Envelopes { seals, queues }))
    }
}

impl Message {
    /// What an exchange made of the message for a queue that takes it wrapped, and the label of that queue's binding.
    pub fn sealed_for(&self, queue: QueueId) -> Option<(&Seal, &Label)> {
        self.view()?.envelopes.as_deref()?.of(queue)
    }
}

impl Envelopes {
    /// Envelopes out of their parts; `None` if they do not fit together.
    pub(in crate::broker) fn from_parts(seals: Vec<Seal>, queues: Vec<(QueueId, u32, Label)>) -> Option<Self> {
        let is_ordered = queues.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_known = queues.iter().all(|(_, seal, _)| (*seal as usize) < seals.len());
        (is_ordered && is_known).then_some(Self { seals, queues })
    }

    /// What was made by the exchanges that the message passed.
    pub(in crate::broker) fn seals(&self) -> &[Seal] {
        &self.seals
    }

    /// The queues that take it wrapped: the place of their seal and the label of their binding.
    pub(in crate::broker) fn queues(&self) -> &[(QueueId, u32, Label)] {
        &self.queues
    }

    /// Bytes that a record of them has at most.
    pub fn record_bytes_max(&self) -> usize {
        let seals = self.seals.iter().map(|seal| seal.exchange.len() + seal.bytes.len() + 20).sum::<usize>();
        let queues = self.queues.iter().map(|(.., label)| label.len() + 30).sum::<usize>();
        seals + queues + 20
    }

    fn of(&self, queue: QueueId) -> Option<(&Seal, &Label)> {
        let at = self.queues.binary_search_by_key(&queue, |(id, ..)| *id).ok()?;
        let (_, seal, label) = &self.queues[at];
        Some((&self.seals[*seal as usize], label))
    }
}

/// How one queue's messages are handed out.
#[derive(Clone, Copy)]
pub(in crate::broker) struct Presenter<'a> {
    queue: QueueId,
    renderer: Option<&'a dyn Renderer>,
}

impl Presenter<'_> {
    /// The message as that queue takes it.
    #[inline]
    pub(in crate::broker) fn present<'m>(&self, message: &'m Message) -> Cow<'m, Message> {
        match message.view() {
            None => Cow::Borrowed(message),
            Some(view) => self.present_view(message, view),
        }
    }

    #[cold]
    fn present_view<'m>(&self, message: &'m Message, view: &View) -> Cow<'m, Message> {
        let found = view.envelopes.as_deref().and_then(|envelopes| envelopes.of(self.queue));
        let (Some((seal, label)), Some(renderer)) = (found, self.renderer) else { return Cow::Borrowed(message) };
        let (exchange, seal) = (&*seal.exchange, &*seal.bytes);
        Cow::Owned(renderer.render(Wrapped { message, exchange, seal, label, queue: self.queue }))
    }
}

impl Broker {
    /// Has messages wrapped by that; the first call counts.
    pub fn attach_renderer(&self, renderer: Arc<dyn Renderer>) {
        self.renderer.get_or_init(|| renderer);
    }

    /// Who wraps messages.
    pub fn renderer(&self) -> Option<&Arc<dyn Renderer>> {
        self.renderer.get()
    }

    /// The message as that queue takes it: whoever hands one out of a queue asks for it.
    pub fn presented<'m>(&self, queue: QueueId, message: &'m Message) -> Cow<'m, Message> {
        self.presenter(queue).present(message)
    }

    pub(in crate::broker) fn presenter(&self, queue: QueueId) -> Presenter<'_> {
        Presenter { queue, renderer: self.renderer.get().map(|renderer| &**renderer) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::broker::{
        exchange::{Target, filtered},
        options::Options,
        publish::Batch,
        queue::Queue,
        topology::{DeclareExchange, DeclareQueue},
        turn::Turn,
        value::{Table, Value},
    };

    /// Writes exchange, seal and label around the body.
    #[derive(Default)]
    struct Around {
        sealed: AtomicUsize,
    }

    impl Renderer for Around {
        fn seal(&self, passing: Passing<'_>) -> Vec<u8> {
            self.sealed.fetch_add(1, Ordering::Relaxed);
            format!("sealed {}", passing.message.body_bytes()).into_bytes()
        }

        fn render(&self, wrapped: Wrapped<'_>) -> Message {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let body = format!(
                "{}|{}|{}|{}",
                wrapped.exchange,
                text(wrapped.seal),
                text(wrapped.label),
                text(&wrapped.message.body_to_vec())
            );
            Message::build("", b"", &[], (0, 0), body.as_bytes())
        }
    }

    struct Fixture {
        broker: Broker,
        renderer: Arc<Around>,
    }

    impl Fixture {
        fn new() -> Self {
            let broker = Broker::new(Options::default(), Time(0)).unwrap();
            let renderer = Arc::new(Around::default());
            broker.attach_renderer(renderer.clone());
            let fixture = Self { broker, renderer };
            let vhost = fixture.vhost();
            let mut turn = Turn::new(&fixture.broker, Time(0));
            let wanted = DeclareExchange { name: "t", kind: "x-sns", durable: true, ..DeclareExchange::default() };
            vhost.declare_exchange(&wanted, &mut turn).unwrap();
            turn.end();
            fixture
        }

        fn vhost(&self) -> Arc<Vhost> {
            self.broker.vhost("/").unwrap()
        }

        fn bind(&self, name: &str, arguments: &[(&str, Value)], more: &[(&str, Value)]) -> Arc<Queue> {
            let (vhost, mut turn) = (self.vhost(), Turn::new(&self.broker, Time(0)));
            let arguments = arguments.iter().cloned().collect();
            let wanted = DeclareQueue { name, durable: true, arguments, ..DeclareQueue::default() };
            let queue = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
            let arguments: Table = more.iter().cloned().collect();
            vhost.bind("t", &Target::Queue(queue.clone()), b"", &arguments, &mut turn).unwrap();
            queue
        }

        fn publish(&self, body: &[u8]) {
            let (vhost, mut turn) = (self.vhost(), Turn::new(&self.broker, Time(0)));
            let message = Message::build("t", b"k", &[], (0, 0), body);
            let route = vhost.route(&vhost.exchange("t").unwrap(), &message, &[], None, &mut turn);
            let mut batch = Batch::default();
            batch.push(message, &Arc::new(route));
            batch.place(&mut turn, &mut Vec::new());
        }

        fn get(&self, queue: &Arc<Queue>) -> String {
            let mut turn = Turn::new(&self.broker, Time(0));
            match queue.get(true, &mut turn) {
                crate::broker::verb::Verb::Done(Some(got)) => String::from_utf8(got.message.body_to_vec()).unwrap(),
                _ => String::new(),
            }
        }
    }

    fn envelope(label: &str) -> [(&'static str, Value); 1] {
        [(filtered::ENVELOPE, Value::text(label))]
    }

    #[test]
    fn each_queue_gets_its_own_form_of_a_message_that_was_sealed_once() {
        let fixture = Fixture::new();
        let plain = fixture.bind("plain", &[], &[]);
        let (one, two) = (fixture.bind("one", &[], &envelope("1")), fixture.bind("two", &[], &envelope("2")));
        fixture.publish(b"body");
        assert_eq!(fixture.get(&plain), "body");
        assert_eq!(fixture.get(&one), "t|sealed 4|1|body");
        assert_eq!(fixture.get(&two), "t|sealed 4|2|body");
        assert_eq!(fixture.renderer.sealed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_is_sealed_for_those_who_take_it_as_it_is() {
        let fixture = Fixture::new();
        let plain = fixture.bind("plain", &[], &[]);
        fixture.publish(b"body");
        assert_eq!(fixture.get(&plain), "body");
        assert_eq!(fixture.renderer.sealed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_paused_binding_takes_nothing_until_it_is_given_other_arguments() {
        let fixture = Fixture::new();
        let paused = [envelope("1").to_vec(), vec![(filtered::PAUSED, Value::Bool(true))]].concat();
        let queue = fixture.bind("q", &[], &paused);
        fixture.publish(b"lost");
        let (old, new): (Table, Table) = (paused.into_iter().collect(), envelope("1").into_iter().collect());
        let mut turn = Turn::new(&fixture.broker, Time(0));
        fixture.vhost().rebind("t", &Target::Queue(queue.clone()), b"", (&old, &new), &mut turn).unwrap();
        turn.end();
        fixture.publish(b"taken");
        assert_eq!(fixture.get(&queue), "t|sealed 5|1|taken");
        assert_eq!(fixture.vhost().exchange("t").unwrap().bindings_count(), 1);
    }

    #[test]
    fn what_a_queue_gives_up_goes_on_in_its_envelope() {
        let fixture = Fixture::new();
        let dead = fixture.bind("dead", &[], &[(filtered::PAUSED, Value::Bool(true))]);
        let arguments = [
            ("x-dead-letter-exchange", Value::text("")),
            ("x-dead-letter-routing-key", Value::text("dead")),
            ("x-message-ttl", Value::I32(10)),
        ];
        fixture.bind("q", &arguments, &envelope("1"));
        fixture.publish(b"body");
        fixture.broker.tick(Time(10));
        assert_eq!(fixture.get(&dead), "t|sealed 4|1|body");
    }

    #[test]
    fn arguments_of_the_wrong_kind_are_refused() {
        for arguments in [
            (filtered::PAUSED, Value::text("yes")),
            (filtered::ENVELOPE, Value::I32(1)),
            (filtered::SCOPE, Value::text("zzz")),
        ] {
            let fixture = Fixture::new();
            let exchange = fixture.vhost().exchange("t").unwrap();
            let queue = fixture.bind("q", &[], &[]);
            assert!(exchange.bind(Target::Queue(queue), b"", &[arguments].into_iter().collect()).is_err());
        }
    }
}
