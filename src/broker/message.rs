//! A message as queues hold it: where it was published, its properties and its body.
//!
//! Everything stays bytes of the buffer that it was read into. Properties are opaque here but for
//! the few that routing and queues act on, which the publishing protocol decodes once into
//! [`Traits`]; the header table inside the properties is found by its range.
//!
//! A message that the broker itself changed (dead-lettered, redriven) carries a [`View`]: the
//! replaced parts, which the delivering protocol applies while it encodes. The body is never
//! rewritten.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{
    block::{self, Block, Slice},
    exchange::envelopes::Envelopes,
    value::Headers,
};

/// One message. Cloning it counts holders; it copies no bytes.
#[derive(Clone, Debug)]
pub struct Message {
    head: Block,
    /// Offset in `head` of: exchange length (1 byte), exchange, key length (1 byte), key.
    route_at: u32,
    properties_at: u32,
    properties_len: u32,
    headers_at: u32,
    headers_len: u32,
    exchange_len: u8,
    key_len: u8,
    /// What queues act on.
    pub traits: Traits,
    body: Body,
    view: Option<Arc<View>>,
}

/// The properties that the broker acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Survives a restart in a durable queue.
    pub persistent: bool,
    /// Larger is delivered earlier, in queues that have priorities.
    pub priority: u8,
    /// How long the message may wait in a queue, as its publisher said.
    pub ttl: Ttl,
    /// It belongs to a group, of which one consumer at a time gets all messages.
    pub has_group: bool,
}

/// A time to live of some milliseconds, or none.
///
/// Six octets are enough, so that a message fits one cache line: it is moved several times on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ttl([u16; 3]);

impl Ttl {
    /// No limit.
    pub const NONE: Self = Self([u16::MAX; 3]);

    /// It has expired before it came, and is given up at once: zero milliseconds are enough for a consumer that
    /// waits.
    pub const EXPIRED: Self = Self([u16::MAX, u16::MAX, u16::MAX - 1]);

    /// So many milliseconds; more than 8,900 years are no limit.
    pub fn of_ms(ms: u64) -> Self {
        if ms < MS_MAX { Self([(ms >> 32) as u16, (ms >> 16) as u16, ms as u16]) } else { Self::NONE }
    }

    /// Milliseconds, if there is a limit.
    #[inline]
    pub fn ms(self) -> Option<u64> {
        let Self([high, middle, low]) = self;
        match u64::from(high) << 32 | u64::from(middle) << 16 | u64::from(low) {
            ms @ ..MS_MAX => Some(ms),
            MS_MAX => Some(0),
            _ => None,
        }
    }

    /// See [`Self::EXPIRED`].
    #[inline]
    pub fn is_expired(self) -> bool {
        self == Self::EXPIRED
    }
}

/// The number that stands for [`Ttl::EXPIRED`]; the one behind it for [`Ttl::NONE`].
const MS_MAX: u64 = (1 << 48) - 2;

impl From<Option<u64>> for Ttl {
    fn from(ms: Option<u64>) -> Self {
        ms.map_or(Self::NONE, Self::of_ms)
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self::NONE
    }
}

impl std::fmt::Debug for Ttl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ms().fmt(f)
    }
}

/// The parts of a message that the broker replaced after publication.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The whole header table, encoded, instead of the published one.
    pub headers: Option<Vec<u8>>,
    /// The published time to live was taken away.
    pub without_ttl: bool,
    /// Some queues take it in another form.
    pub envelopes: Option<Arc<Envelopes>>,
}

/// Where the body's bytes are.
#[derive(Clone, Debug)]
enum Body {
    /// In the head's block, at this offset with this length.
    Inline(u32, u32),
    /// In other blocks, as it arrived.
    Parts(Arc<Parts>),
}

#[derive(Debug)]
struct Parts {
    slices: SmallVec<[Slice; 1]>,
    total: u64,
}

impl Body {
    fn of(slices: SmallVec<[Slice; 1]>) -> Self {
        let total = slices.iter().map(|part| part.len() as u64).sum();
        if total == 0 { Self::Inline(0, 0) } else { Self::Parts(Arc::new(Parts { slices, total })) }
    }
}

/// What a message is made of, when its parts lie in one block. Offsets are from the block's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Where the exchange name's length byte is; exchange, key length and key follow it.
    pub route_at: usize,
    /// Offset and length of the opaque properties.
    pub properties: (usize, usize),
    /// Offset and length of the encoded header table inside the properties, or zeros.
    pub headers: (usize, usize),
}

impl Message {
    /// A message whose head (route and properties) lies in `head` as `layout` says, without body.
    ///
    /// # Panics
    /// When `layout` points outside of `head`.
    pub fn new(head: Block, layout: Layout, traits: Traits) -> Self {
        Self::inline(head, layout, traits, (0, 0))
    }

    /// A message that lies in `head` as `layout` says, with its body at this offset, of this length.
    ///
    /// # Panics
    /// When `layout` or the body points outside of `head`.
    #[inline(always)]
    pub fn inline(head: Block, layout: Layout, traits: Traits, body: (usize, usize)) -> Self {
        let exchange_len = head[layout.route_at];
        let key_len = head[layout.route_at + 1 + exchange_len as usize];
        assert!(layout.route_at + 2 + exchange_len as usize + key_len as usize <= head.len());
        assert!(layout.properties.0 + layout.properties.1 <= head.len());
        assert!(layout.headers.0 + layout.headers.1 <= head.len());
        assert!(body.0 + body.1 <= head.len());
        Self {
            head,
            route_at: layout.route_at as u32,
            properties_at: layout.properties.0 as u32,
            properties_len: layout.properties.1 as u32,
            headers_at: layout.headers.0 as u32,
            headers_len: layout.headers.1 as u32,
            exchange_len,
            key_len,
            traits,
            body: Body::Inline(body.0 as u32, body.1 as u32),
            view: None,
        }
    }

    /// A message assembled from loose parts, copied into a block of their own.
    pub fn build(exchange: &str, key: &[u8], properties: &[u8], headers: (usize, usize), body: &[u8]) -> Self {
        Self::build_route(exchange.as_bytes(), key, properties, headers)
            .with_body_parts(vec![Slice::from_vec(body.to_vec())])
    }

    /// Route and properties copied into a block of their own, without body.
    pub fn build_route(exchange: &[u8], key: &[u8], properties: &[u8], headers: (usize, usize)) -> Self {
        let exchange = &exchange[..exchange.len().min(255)];
        let key = &key[..key.len().min(255)];
        let mut head = Vec::with_capacity(2 + exchange.len() + key.len() + properties.len());
        push_route(exchange, key, &mut head);
        let at = head.len();
        head.extend_from_slice(properties);
        let headers = if headers.1 == 0 { (0, 0) } else { (at + headers.0, headers.1) };
        Self::new(
            Arc::new(head),
            Layout { route_at: 0, properties: (at, properties.len()), headers },
            Traits::default(),
        )
    }

    /// The same message with other properties; `headers` are relative to them.
    #[must_use]
    pub fn with_properties(&self, properties: &[u8], headers: (usize, usize)) -> Self {
        let mut changed = Self::build_route(self.exchange(), self.key(), properties, headers);
        changed.traits = self.traits;
        changed.body = self.shared_body();
        changed
    }

    /// The body, independent of where the head is.
    fn shared_body(&self) -> Body {
        match &self.body {
            Body::Inline(_, 0) => Body::Inline(0, 0),
            &Body::Inline(at, len) => Body::of(smallvec![Slice::new(self.head.clone(), at as usize, len as usize)]),
            other => other.clone(),
        }
    }

    /// Whether its head lies in `block`.
    pub fn is_in(&self, block: &Block) -> bool {
        Arc::ptr_eq(&self.head, block)
    }

    /// Its publisher named further routing keys.
    pub fn has_copies(&self) -> bool {
        self.headers_len > 0 && self.headers().get("CC").is_some()
    }

    /// The same message with its body at this place of the head's block.
    #[must_use]
    pub fn with_body_inline(mut self, at: usize, len: usize) -> Self {
        assert!(at + len <= self.head.len(), "a body lies inside its block");
        self.body = Body::Inline(at as u32, len as u32);
        self
    }

    /// The same message with a body that arrived in pieces.
    #[must_use]
    pub fn with_body_parts(mut self, parts: impl Into<SmallVec<[Slice; 1]>>) -> Self {
        self.body = Body::of(parts.into());
        self
    }

    /// The same body and properties, published elsewhere, with replaced parts.
    #[must_use]
    pub fn rerouted(&self, exchange: &str, key: &[u8], view: View) -> Self {
        let properties = self.properties();
        let headers_at = if self.headers_len == 0 { 0 } else { (self.headers_at - self.properties_at) as usize };
        let headers = (headers_at, self.headers_len as usize);
        let mut rerouted = Self::build_route(exchange.as_bytes(), key, properties, headers);
        rerouted.traits = self.traits;
        if view.without_ttl {
            rerouted.traits.ttl = Ttl::NONE;
        }
        rerouted.body = self.shared_body();
        rerouted.view = Some(Arc::new(view));
        rerouted
    }

    /// The same body under other headers, with no other property, published elsewhere.
    #[must_use]
    pub fn copied(&self, exchange: &str, key: &[u8], headers: Vec<u8>) -> Self {
        let mut copied = Self::build_route(exchange.as_bytes(), key, &[], (0, 0));
        copied.body = self.shared_body();
        copied.view = Some(Arc::new(View { headers: Some(headers), ..View::default() }));
        copied
    }

    /// The same message with replaced parts.
    #[must_use]
    pub fn with_view(&self, view: View) -> Self {
        let mut changed = self.clone();
        if view.without_ttl {
            changed.traits.ttl = Ttl::NONE;
        }
        changed.view = Some(Arc::new(view));
        changed
    }

    /// The same message, which some of its queues take in another form.
    #[must_use]
    pub fn with_envelopes(&self, envelopes: Arc<Envelopes>) -> Self {
        let mut view = self.view.as_deref().cloned().unwrap_or_default();
        view.envelopes = Some(envelopes);
        let mut changed = self.clone();
        changed.view = Some(Arc::new(view));
        changed
    }

    /// The form of it that some of its queues take.
    pub fn envelopes(&self) -> Option<&Arc<Envelopes>> {
        self.view.as_deref()?.envelopes.as_ref()
    }

    /// Name of the exchange it was published to.
    pub fn exchange(&self) -> &[u8] {
        let at = self.route_at as usize + 1;
        &self.head[at..at + self.exchange_len as usize]
    }

    /// The routing key it was published with.
    pub fn key(&self) -> &[u8] {
        let at = self.route_at as usize + 2 + self.exchange_len as usize;
        &self.head[at..at + self.key_len as usize]
    }

    /// Exchange and key, each with its length byte in front.
    pub fn route_bytes(&self) -> &[u8] {
        let at = self.route_at as usize;
        &self.head[at..at + 2 + self.exchange_len as usize + self.key_len as usize]
    }

    /// The published properties, as the publishing protocol encoded them.
    pub fn properties(&self) -> &[u8] {
        &self.head[self.properties_at as usize..][..self.properties_len as usize]
    }

    /// Where the published headers are in [`Self::properties`]: offset and length, zeros without any.
    pub fn headers_range(&self) -> (usize, usize) {
        match self.headers_len {
            0 => (0, 0),
            len => ((self.headers_at - self.properties_at) as usize, len as usize),
        }
    }

    /// The headers now in force.
    pub fn headers(&self) -> Headers<'_> {
        match self.view.as_deref() {
            Some(View { headers: Some(headers), .. }) => Headers::new(headers),
            _ => Headers::new(&self.head[self.headers_at as usize..][..self.headers_len as usize]),
        }
    }

    /// Further routing keys that its publisher named in the headers `CC` (`BCC` is taken off when
    /// a message is published).
    pub fn copy_keys(&self) -> Vec<Vec<u8>> {
        let copies = self.headers().get("CC").and_then(|value| value.as_array());
        copies.into_iter().flatten().filter_map(|item| item.as_text_bytes().map(<[u8]>::to_vec)).collect()
    }

    /// What the broker replaced, if anything.
    pub fn view(&self) -> Option<&View> {
        self.view.as_deref()
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> u64 {
        match &self.body {
            Body::Inline(_, len) => u64::from(*len),
            Body::Parts(parts) => parts.total,
        }
    }

    /// The body as one run of bytes, when it is one.
    pub fn body_contiguous(&self) -> Option<&[u8]> {
        match &self.body {
            &Body::Inline(at, len) => Some(&self.head[at as usize..][..len as usize]),
            Body::Parts(parts) => match &parts.slices[..] {
                [slice] => Some(slice),
                _ => None,
            },
        }
    }

    /// The body's pieces as slices that keep their blocks alive.
    pub fn body_slices(&self) -> impl Iterator<Item = Slice> + '_ {
        let (single, parts): (Option<Slice>, &[Slice]) = match &self.body {
            Body::Inline(_, 0) => (None, &[]),
            &Body::Inline(at, len) => (Some(Slice::new(self.head.clone(), at as usize, len as usize)), &[]),
            Body::Parts(parts) => (None, &parts.slices),
        };
        single.into_iter().chain(parts.iter().cloned())
    }

    /// The body's pieces, borrowed.
    pub fn body_parts(&self) -> impl Iterator<Item = &[u8]> {
        let (single, parts): (Option<&[u8]>, &[Slice]) = match &self.body {
            &Body::Inline(at, len) => (Some(&self.head[at as usize..][..len as usize]), &[]),
            Body::Parts(parts) => (None, &parts.slices),
        };
        single.into_iter().chain(parts.iter().map(|slice| &**slice))
    }

    /// The body copied into one vector.
    pub fn body_to_vec(&self) -> Vec<u8> {
        match self.body_contiguous() {
            Some(bytes) => bytes.to_vec(),
            None => self.body_slices().flat_map(|slice| slice.to_vec()).collect(),
        }
    }

    /// Bytes that this message accounts for: body, properties, names and its own bookkeeping.
    pub fn held_bytes(&self) -> u64 {
        self.body_bytes() + self.head_bytes() as u64 + size_of::<Self>() as u64
    }

    /// More bytes than a record of it has beside the fields of its own.
    pub fn record_bytes_max(&self) -> u64 {
        let replaced = self.view().and_then(|view| view.headers.as_ref()).map_or(0, Vec::len)
            + self.envelopes().map_or(0, |envelopes| envelopes.record_bytes_max());
        self.body_bytes() + (self.head_bytes() + replaced + RECORD_FIELDS_BYTES_MAX) as u64
    }

    fn head_bytes(&self) -> usize {
        2 + self.exchange_len as usize + self.key_len as usize + self.properties_len as usize
    }

    /// Copies what it holds of sparsely used blocks into right-sized ones.
    pub fn compact(&mut self) {
        match &mut self.body {
            &mut Body::Inline(at, len) => {
                if block::is_sparse(&self.head, self.head_bytes() + len as usize) {
                    let body = self.head[at as usize..][..len as usize].to_vec();
                    self.copy_head(&body);
                }
            }
            Body::Parts(parts) => {
                if parts.slices.iter().any(Slice::is_sparse) {
                    let slices = parts.slices.iter().map(|part| Slice::from_vec(part.to_vec())).collect();
                    *parts = Arc::new(Parts { slices, total: parts.total });
                }
                self.compact_head();
            }
        }
    }

    fn compact_head(&mut self) {
        if block::is_sparse(&self.head, self.head_bytes()) {
            let body = std::mem::replace(&mut self.body, Body::Inline(0, 0));
            self.copy_head(&[]);
            self.body = body;
        }
    }

    fn copy_head(&mut self, body: &[u8]) {
        let mut head = Vec::with_capacity(self.head_bytes() + body.len());
        head.extend_from_slice(self.route_bytes());
        let properties_at = head.len() as u32;
        head.extend_from_slice(self.properties());
        if self.headers_len > 0 {
            self.headers_at = self.headers_at - self.properties_at + properties_at;
        } else {
            self.headers_at = 0;
        }
        self.properties_at = properties_at;
        self.body = Body::Inline(head.len() as u32, body.len() as u32);
        head.extend_from_slice(body);
        self.route_at = 0;
        self.head = Arc::new(head);
    }
}

/// Numbers and flags of a record of a message.
const RECORD_FIELDS_BYTES_MAX: usize = 128;

fn push_route(exchange: &[u8], key: &[u8], out: &mut Vec<u8>) {
    out.push(exchange.len() as u8);
    out.extend_from_slice(exchange);
    out.push(key.len() as u8);
    out.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compacted_message_keeps_every_part() {
        let mut block = vec![0; 100_000];
        block[10..19].copy_from_slice(b"\x02ex\x03keyPP");
        block[20..24].copy_from_slice(b"body");
        let layout = Layout { route_at: 10, properties: (17, 2), headers: (18, 1) };
        let block = Arc::new(block);
        let mut message = Message::new(block.clone(), layout, Traits::default()).with_body_inline(20, 4);
        message.compact();
        assert_eq!(Arc::strong_count(&block), 1);
        assert_eq!(message.exchange(), b"ex");
        assert_eq!(message.key(), b"key");
        assert_eq!(message.properties(), b"PP");
        assert_eq!(message.headers().as_bytes(), b"P");
        assert_eq!(message.body_contiguous(), Some(&b"body"[..]));
    }

    #[test]
    fn a_message_fits_a_cache_line() {
        assert_eq!(size_of::<Message>(), 64);
    }

    #[test]
    fn times_to_live_are_kept_to_the_millisecond() {
        for ms in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 48) - 3] {
            assert_eq!(Ttl::of_ms(ms).ms(), Some(ms));
        }
        assert_eq!(
            (Ttl::of_ms((1 << 48) - 2).ms(), Ttl::of_ms(1 << 48).ms(), Ttl::from(None).ms()),
            (None, None, None)
        );
        assert!(Ttl::EXPIRED.is_expired() && Ttl::EXPIRED.ms() == Some(0) && !Ttl::of_ms(0).is_expired());
    }

    #[test]
    fn a_rerouted_message_shares_its_body() {
        let message = Message::build("ex", b"key", b"properties", (2, 3), b"body");
        let rerouted = message.rerouted(
            "dlx",
            b"dead",
            View { headers: Some(b"new".to_vec()), without_ttl: true, ..View::default() },
        );
        assert_eq!(rerouted.exchange(), b"dlx");
        assert_eq!(rerouted.key(), b"dead");
        assert_eq!(rerouted.properties(), b"properties");
        assert_eq!(rerouted.headers().as_bytes(), b"new");
        assert_eq!(rerouted.body_contiguous(), Some(&b"body"[..]));
    }
}
