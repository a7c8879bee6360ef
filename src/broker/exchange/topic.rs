//! Routing by patterns of words: `*` stands for one word, `#` for any number of them, also none.
//!
//! Words are what stands between dots; an empty word is a word, an empty key has none. The patterns
//! form a trie whose edges are interned words. A key is matched by walking the trie with a set of
//! nodes, one word after the other.
//!
//! What keeps the walk short: neighbouring `#` count as one; a `#` node, once entered, stays
//! entered for the rest of the key, because it may swallow every word; and any other node has one
//! parent and one edge, so that it cannot enter the set twice for the same word. Only a `#` below
//! another `#` can be reached again and again, and for these the walk keeps one bit each. So a key
//! costs at most words x nodes steps, and there is no pattern for which it costs more.

use std::hash::Hash;

use foldhash::HashMap;
use smallvec::SmallVec;

use super::target_set::TargetSet;

type NodeId = u32;
type Word = u32;

const ROOT: NodeId = 0;
const NONE: u32 = u32::MAX;

/// A trie of patterns.
#[derive(Debug)]
pub(super) struct Topic<T> {
    nodes: Vec<Node<T>>,
    nodes_free: Vec<NodeId>,
    words: Words,
    /// One more than the highest number that a `#` below another `#` ever had.
    nested_count: u32,
    nested_free: Vec<u32>,
}

/// The end of a pattern or of the beginning of one.
#[derive(Debug)]
struct Node<T> {
    parent: NodeId,
    edge: Edge,
    literals: Literals,
    star: NodeId,
    hash: NodeId,
    /// The bit of a `#` below another `#`, else `NONE`.
    nested: u32,
    /// A `#` leads here or stands above.
    is_below_hash: bool,
    targets: TargetSet<T>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Edge {
    Root,
    Literal(Word),
    Star,
    Hash,
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::new(NONE, Edge::Root, false)],
            nodes_free: Vec::new(),
            words: Words::default(),
            nested_count: 0,
            nested_free: Vec::new(),
        }
    }
}

impl<T> Node<T> {
    fn new(parent: NodeId, edge: Edge, is_below_hash: bool) -> Self {
        Self {
            parent,
            edge,
            literals: Literals::default(),
            star: NONE,
            hash: NONE,
            nested: NONE,
            is_below_hash,
            targets: TargetSet::default(),
        }
    }

    fn has_children(&self) -> bool {
        self.star != NONE || self.hash != NONE || !self.literals.is_empty()
    }
}

impl<T: Clone + Eq + Hash> Topic<T> {
    pub(super) fn add(&mut self, target: &T, pattern: &[u8]) {
        let mut at = ROOT;
        for word in words(pattern) {
            at = match word {
                b"#" if self.nodes[at as usize].edge == Edge::Hash => at,
                b"#" => self.child(at, Edge::Hash),
                b"*" => self.child(at, Edge::Star),
                word => {
                    let word = self.words.acquire(word);
                    self.child(at, Edge::Literal(word))
                }
            };
        }
        self.nodes[at as usize].targets.add(target);
    }

    /// Takes back one [`Topic::add`] of the same target and pattern.
    pub(super) fn remove(&mut self, target: &T, pattern: &[u8]) {
        let mut at = ROOT;
        for word in words(pattern) {
            let node = &self.nodes[at as usize];
            at = match word {
                b"#" if node.edge == Edge::Hash => at,
                b"#" => node.hash,
                b"*" => node.star,
                word => self.words.get(word).map_or(NONE, |word| node.literals.get(word)),
            };
            if at == NONE {
                return;
            }
        }
        self.nodes[at as usize].targets.remove(target);
        self.prune(at);
        for word in words(pattern).filter(|word| !matches!(*word, b"#" | b"*")) {
            self.words.release(word);
        }
    }

    /// Appends the targets of all matching patterns; a target of several of them several times.
    pub(super) fn route(&self, key: &[u8], out: &mut Vec<T>) {
        let mut walk =
            Walk { topic: self, nodes: SmallVec::new(), hashes: SmallVec::new(), seen: SmallVec::new(), out };
        walk.enter(ROOT);
        let mut before: SmallVec<[NodeId; 32]> = SmallVec::new();
        for word in words(key) {
            let word = self.words.get(word);
            std::mem::swap(&mut before, &mut walk.nodes);
            walk.nodes.clear();
            // A `#` entered by this word may swallow the next word, not this one again.
            let hashes_count = walk.hashes.len();
            for &node in &before {
                walk.step(node, word);
            }
            for place in 0..hashes_count {
                walk.step(walk.hashes[place], word);
            }
            if walk.nodes.is_empty() && walk.hashes.is_empty() {
                return;
            }
        }
        for &node in &walk.nodes {
            self.nodes[node as usize].targets.append_to(walk.out);
        }
    }

    /// The child of `parent` along `edge`, made when there is none.
    fn child(&mut self, parent: NodeId, edge: Edge) -> NodeId {
        let node = &self.nodes[parent as usize];
        let is_below_hash = node.is_below_hash;
        let known = match edge {
            Edge::Root => ROOT,
            Edge::Literal(word) => node.literals.get(word),
            Edge::Star => node.star,
            Edge::Hash => node.hash,
        };
        if known != NONE {
            return known;
        }
        let mut child = Node::new(parent, edge, is_below_hash || edge == Edge::Hash);
        if edge == Edge::Hash && is_below_hash {
            child.nested = self.nested_free.pop().unwrap_or_else(|| {
                self.nested_count += 1;
                self.nested_count - 1
            });
        }
        let id = match self.nodes_free.pop() {
            Some(id) => {
                self.nodes[id as usize] = child;
                id
            }
            None => {
                self.nodes.push(child);
                (self.nodes.len() - 1) as NodeId
            }
        };
        let node = &mut self.nodes[parent as usize];
        match edge {
            Edge::Root => {}
            Edge::Literal(word) => node.literals.insert(word, id),
            Edge::Star => node.star = id,
            Edge::Hash => node.hash = id,
        }
        id
    }

    /// Frees a node that leads nowhere, and then its parents likewise.
    fn prune(&mut self, mut at: NodeId) {
        while at != ROOT {
            let node = &mut self.nodes[at as usize];
            if !node.targets.is_empty() || node.has_children() {
                return;
            }
            let (parent, edge) = (node.parent, node.edge);
            if node.nested != NONE {
                self.nested_free.push(node.nested);
            }
            *node = Node::new(NONE, Edge::Root, false);
            self.nodes_free.push(at);
            let node = &mut self.nodes[parent as usize];
            match edge {
                Edge::Root => {}
                Edge::Literal(word) => node.literals.remove(word),
                Edge::Star => node.star = NONE,
                Edge::Hash => node.hash = NONE,
            }
            at = parent;
        }
    }
}

/// The state of matching one key.
struct Walk<'a, T> {
    topic: &'a Topic<T>,
    /// Nodes that the words so far lead to, without `#` nodes.
    nodes: SmallVec<[NodeId; 32]>,
    /// `#` nodes entered so far that have children.
    hashes: SmallVec<[NodeId; 16]>,
    /// One bit for each `#` below another `#`: entered already.
    seen: SmallVec<[u64; 8]>,
    out: &'a mut Vec<T>,
}

impl<T: Clone + Eq + Hash> Walk<'_, T> {
    /// Follows the edges that `word` fits; `None` is a word of no pattern.
    fn step(&mut self, from: NodeId, word: Option<Word>) {
        let node = &self.topic.nodes[from as usize];
        if node.star != NONE {
            self.enter(node.star);
        }
        if let Some(word) = word {
            let child = node.literals.get(word);
            if child != NONE {
                self.enter(child);
            }
        }
    }

    /// Adds a node to the set, and the `#` below it, which fits no words at all too.
    fn enter(&mut self, id: NodeId) {
        self.nodes.push(id);
        let hash = self.topic.nodes[id as usize].hash;
        if hash == NONE {
            return;
        }
        let node = &self.topic.nodes[hash as usize];
        if node.nested != NONE && self.is_seen(node.nested) {
            return;
        }
        // A pattern that ends here fits whatever follows.
        node.targets.append_to(self.out);
        if node.has_children() {
            self.hashes.push(hash);
        }
    }

    /// Marks a bit, and says whether it was marked before.
    fn is_seen(&mut self, nested: u32) -> bool {
        if self.seen.is_empty() {
            self.seen.resize(self.topic.nested_count.div_ceil(64) as usize, 0);
        }
        let bits = &mut self.seen[nested as usize / 64];
        let bit = 1 << (nested % 64);
        let was_set = *bits & bit != 0;
        *bits |= bit;
        was_set
    }
}

/// The words of a key or pattern.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|&byte| byte == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// Words by number, each kept while a pattern has it.
#[derive(Debug, Default)]
struct Words {
    by_text: HashMap<Box<[u8]>, (Word, u32)>,
    free: Vec<Word>,
}

impl Words {
    fn get(&self, text: &[u8]) -> Option<Word> {
        self.by_text.get(text).map(|&(word, _)| word)
    }

    fn acquire(&mut self, text: &[u8]) -> Word {
        if let Some((word, uses)) = self.by_text.get_mut(text) {
            *uses += 1;
            return *word;
        }
        let word = self.free.pop().unwrap_or(self.by_text.len() as Word);
        self.by_text.insert(text.into(), (word, 1));
        word
    }

    fn release(&mut self, text: &[u8]) {
        let Some((word, uses)) = self.by_text.get_mut(text) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.free.push(*word);
            self.by_text.remove(text);
        }
    }
}

/// Children by word: searched in place while they are few.
#[derive(Debug)]
enum Literals {
    Few(SmallVec<[(Word, NodeId); 2]>),
    Many(Box<HashMap<Word, NodeId>>),
}

/// Children above which a node gets a map.
const LITERALS_FEW: usize = 8;

impl Default for Literals {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Literals {
    fn get(&self, word: Word) -> NodeId {
        match self {
            Self::Few(children) => children.iter().find(|child| child.0 == word).map_or(NONE, |child| child.1),
            Self::Many(children) => children.get(&word).copied().unwrap_or(NONE),
        }
    }

    fn insert(&mut self, word: Word, node: NodeId) {
        match self {
            Self::Few(children) if children.len() < LITERALS_FEW => children.push((word, node)),
            Self::Few(children) => {
                let mut many: HashMap<Word, NodeId> = children.drain(..).collect();
                many.insert(word, node);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(children) => {
                children.insert(word, node);
            }
        }
    }

    fn remove(&mut self, word: Word) {
        match self {
            Self::Few(children) => children.retain(|child| child.0 != word),
            Self::Many(children) => {
                children.remove(&word);
                if children.len() <= LITERALS_FEW / 2 {
                    *self = Self::Few(children.drain().collect());
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(children) => children.is_empty(),
            Self::Many(children) => children.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routed(topic: &Topic<u32>, key: &str) -> Vec<u32> {
        let mut out = Vec::new();
        topic.route(key.as_bytes(), &mut out);
        out.sort_unstable();
        out
    }

    fn of(patterns: &[&str]) -> Topic<u32> {
        let mut topic = Topic::default();
        for (target, pattern) in patterns.iter().enumerate() {
            topic.add(&(target as u32), pattern.as_bytes());
        }
        topic
    }

    /// The definition, word by word.
    fn fits(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        // `reach[n]`: the pattern so far fits the first n words of the key.
        let mut reach = vec![false; key.len() + 1];
        reach[0] = true;
        for &part in pattern {
            let mut next = vec![false; key.len() + 1];
            for n in 0..=key.len() {
                next[n] = match part {
                    b"#" => reach[..=n].contains(&true),
                    b"*" => n > 0 && reach[n - 1],
                    word => n > 0 && reach[n - 1] && key[n - 1] == word,
                };
            }
            reach = next;
        }
        reach[key.len()]
    }

    #[test]
    fn a_star_is_exactly_one_word() {
        let topic = of(&["a.*", "*", "*.b.*"]);
        assert_eq!(routed(&topic, "a.b"), [0]);
        assert_eq!(routed(&topic, "a"), [1]);
        assert_eq!(routed(&topic, "a.b.c"), [2]);
        assert!(routed(&topic, "").is_empty());
    }

    #[test]
    fn a_hash_is_any_number_of_words() {
        let topic = of(&["#", "a.#", "#.z", "a.#.z"]);
        assert_eq!(routed(&topic, ""), [0]);
        assert_eq!(routed(&topic, "a"), [0, 1]);
        assert_eq!(routed(&topic, "a.z"), [0, 1, 2, 3]);
        assert_eq!(routed(&topic, "a.b.c.z"), [0, 1, 2, 3]);
        assert_eq!(routed(&topic, "z"), [0, 2]);
    }

    #[test]
    fn empty_words_are_words() {
        let topic = of(&["", ".", "*.*", "a.", "*"]);
        assert_eq!(routed(&topic, ""), [0]);
        assert_eq!(routed(&topic, "."), [1, 2]);
        assert_eq!(routed(&topic, "a."), [2, 3]);
        assert!(routed(&topic, "..").is_empty());
    }

    #[test]
    fn wildcards_in_a_key_are_ordinary_words() {
        let topic = of(&["a.b", "a.*", "a.#"]);
        assert_eq!(routed(&topic, "a.*"), [1, 2]);
        assert_eq!(routed(&topic, "a.#"), [1, 2]);
    }

    #[test]
    fn hundreds_of_hashes_cost_no_more_than_words_times_nodes() {
        let many = vec!["#"; 127].join(".");
        let alternating = vec!["#.a"; 60].join(".");
        let stars = vec!["#.*"; 60].join(".");
        let mut topic = of(&[&many, &alternating, &stars]);
        let alternating_b = format!("{alternating}.b");
        topic.add(&3, alternating_b.as_bytes());
        let key = vec!["a"; 127].join(".");
        for _ in 0..100 {
            assert_eq!(routed(&topic, &key), [0, 1, 2]);
        }
    }

    #[test]
    fn removing_every_pattern_leaves_one_node_and_no_word() {
        let patterns = ["a.b.c", "a.*.#.d.#", "#", "#.#.x", "*.*", "", "a.b", "a.b"];
        let mut topic = of(&patterns);
        for (target, pattern) in patterns.iter().enumerate() {
            topic.remove(&(target as u32), pattern.as_bytes());
        }
        assert_eq!(topic.nodes.len() - topic.nodes_free.len(), 1);
        assert!(topic.words.by_text.is_empty());
        assert_eq!(topic.nested_free.len() as u32, topic.nested_count);
        assert!(routed(&topic, "a.b.c").is_empty());
    }

    #[test]
    fn a_node_with_many_children_finds_each() {
        let patterns: Vec<String> = (0..1000).map(|n| format!("w{n}.*")).collect();
        let mut topic = of(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        for n in 0..995 {
            assert_eq!(routed(&topic, &format!("w{n}.x")), [n]);
            topic.remove(&n, format!("w{n}.*").as_bytes());
        }
        assert_eq!(routed(&topic, "w999.x"), [999]);
    }

    fn pattern() -> impl Strategy<Value = String> {
        let word = prop_oneof![3 => Just("#"), 2 => Just("*"), 2 => Just("a"), 2 => Just("b"), 1 => Just("")];
        prop::collection::vec(word, 0..8).prop_map(|words| words.join("."))
    }

    fn key() -> impl Strategy<Value = String> {
        let word = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just(""), 1 => Just("c"), 1 => Just("#")];
        prop::collection::vec(word, 0..9).prop_map(|words| words.join("."))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_walk_finds_what_the_definition_says(
            patterns in prop::collection::vec(pattern(), 1..24),
            keys in prop::collection::vec(key(), 1..16),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut topic = of(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
            let mut left: Vec<(u32, &str)> = patterns.iter().enumerate().map(|(n, p)| (n as u32, p.as_str())).collect();
            for index in std::iter::once(None).chain(removed.into_iter().map(Some)) {
                if let Some(index) = index.filter(|_| !left.is_empty()) {
                    let (target, pattern) = left.remove(index.index(left.len()));
                    topic.remove(&target, pattern.as_bytes());
                }
                for key in &keys {
                    let key_words: Vec<_> = words(key.as_bytes()).collect();
                    let expected: Vec<u32> = left.iter()
                        .filter(|(_, pattern)| fits(&words(pattern.as_bytes()).collect::<Vec<_>>(), &key_words))
                        .map(|(target, _)| *target)
                        .collect();
                    prop_assert_eq!(routed(&topic, key), expected, "key {:?} patterns {:?}", key, &left);
                }
            }
        }
    }
}
