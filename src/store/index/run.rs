//! A run: one immutable file of sorted entries, with its sections and the first keys of its blocks.
//!
//! ```text
//! block 0 .. block n-1      4 KiB each, see `block`
//! sections                  one per tree and owner, ascending; see `Section`
//!                             flags u8, see `SECTION_*`; first seq, entries; then what the flags
//!                             do not say, in their order: tree u8, owner, first order and
//!                             last order - first order, deleted entries, last seq (varints)
//! first keys                one per block: tree u8, owner, order, seq (varints)
//! footer                    80 bytes, see `Footer`; numbers little-endian
//! ```
//! Sections stay in memory; the first keys are read when the run is first looked into.

use std::sync::{Arc, OnceLock, atomic};

use super::{
    block::{BLOCK_BYTES, BlockBuilder, BlockCursor},
    coding::{Reader, checksum, put_varint},
    error::Error,
    folder::{Folder, read_exact_at},
    key::{Key, Rank},
};
use crate::store::disk::File;

pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TernRun\n";
const FOOTER_BYTES: usize = 80;
/// Bytes gathered for one write.
const CHUNK_BYTES: usize = 1 << 20;

/// What the manifest says of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RunMeta {
    /// Names the file; never used twice.
    pub(super) number: u64,
    /// How often its entries were merged.
    pub(super) level: u8,
    /// Runs of one group have no key in common and are merged together.
    pub(super) group: u64,
    /// The first and last commit whose entries it holds.
    pub(super) first_commit: u64,
    pub(super) last_commit: u64,
    pub(super) file_bytes: u64,
    /// The checksum in its footer, so that no other file can take its place.
    pub(super) footer_crc: u32,
}

pub(super) fn run_name(number: u64) -> String {
    format!("run-{number:016x}")
}

/// The tree is that of the section before (or 0).
const SECTION_SAME_TREE: u8 = 1;
/// The owner follows that of the section before (or is 1).
const SECTION_NEXT_OWNER: u8 = 1 << 1;
/// All orders are 0.
const SECTION_NO_ORDER: u8 = 1 << 2;
/// No entry is a delete.
const SECTION_NO_DELETED: u8 = 1 << 3;
/// The last seq is as many behind the first as there are entries.
const SECTION_DENSE: u8 = 1 << 4;

/// The entries of one tree and owner in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) owner: u64,
    pub(super) first: Rank,
    pub(super) last: Rank,
    pub(super) entries: u32,
    /// Those of the entries that say that a key was deleted.
    pub(super) deleted: u32,
    pub(super) tree: u8,
}

impl Section {
    pub(super) fn tree_owner(&self) -> (u8, u64) {
        (self.tree, self.owner)
    }
}

/// The last bytes of a run.
#[derive(Clone, Copy, Debug)]
struct Footer {
    number: u64,
    first_commit: u64,
    last_commit: u64,
    blocks: u32,
    sections: u32,
    entries: u64,
    sections_bytes: u32,
    keys_bytes: u32,
    sections_crc: u32,
    keys_crc: u32,
}

impl Footer {
    fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.blocks.to_le_bytes());
        out.extend(self.number.to_le_bytes());
        out.extend(self.first_commit.to_le_bytes());
        out.extend(self.last_commit.to_le_bytes());
        out.extend(self.entries.to_le_bytes());
        out.extend(self.sections.to_le_bytes());
        out.extend(self.sections_bytes.to_le_bytes());
        out.extend(self.keys_bytes.to_le_bytes());
        out.extend(self.sections_crc.to_le_bytes());
        out.extend(self.keys_crc.to_le_bytes());
        out.resize(FOOTER_BYTES - 4, 0);
        out.extend(checksum(&out).to_le_bytes());
        out.try_into().expect("filled to its length above")
    }

    fn decode(bytes: &[u8; FOOTER_BYTES], file: &str, offset: u64) -> Result<Footer, Error> {
        let broken = |what| Error::corrupt(file, offset, what);
        let mut reader = Reader::new(bytes);
        if reader.take(8) != Some(&MAGIC) {
            return Err(broken("this is not the footer of a run"));
        }
        let crc_found = u32::from_le_bytes([bytes[76], bytes[77], bytes[78], bytes[79]]);
        if crc_found != checksum(&bytes[..FOOTER_BYTES - 4]) {
            return Err(broken("the checksum of the footer does not match"));
        }
        let mut read = || {
            let format = reader.u32()?;
            let blocks = reader.u32()?;
            let footer = Footer {
                number: reader.u64()?,
                first_commit: reader.u64()?,
                last_commit: reader.u64()?,
                blocks,
                entries: reader.u64()?,
                sections: reader.u32()?,
                sections_bytes: reader.u32()?,
                keys_bytes: reader.u32()?,
                sections_crc: reader.u32()?,
                keys_crc: reader.u32()?,
            };
            Some((format, footer))
        };
        let (format, footer) = read().ok_or_else(|| broken("the footer is too short"))?;
        if format > FORMAT {
            return Err(Error::NewerFormat { file: file.to_owned(), found: format, known: FORMAT });
        }
        Ok(footer)
    }
}

/// Writes a run, entry by entry in ascending order.
pub(super) struct RunWriter {
    file: Box<dyn File>,
    name: String,
    number: u64,
    block: BlockBuilder,
    blocks: u32,
    first_keys: Vec<u8>,
    sections: Vec<Section>,
    last: Option<Key>,
    entries: u64,
    out: Vec<u8>,
    written: u64,
}

impl RunWriter {
    pub(super) fn create(folder: &Folder, number: u64) -> Result<RunWriter, Error> {
        let name = run_name(number);
        let file = folder.create(&name).map_err(|source| Error::io("create", &name, source))?;
        Ok(RunWriter {
            file,
            name,
            number,
            block: BlockBuilder::new(),
            blocks: 0,
            first_keys: Vec::new(),
            sections: Vec::new(),
            last: None,
            entries: 0,
            out: Vec::new(),
            written: 0,
        })
    }

    pub(super) fn push(&mut self, key: Key, value: Option<&[u8]>) -> Result<(), Error> {
        assert!(self.last.is_none_or(|last| last < key), "a run is written in ascending order of keys");
        if !self.block.push(key, value) {
            self.finish_block()?;
            let is_pushed = self.block.push(key, value);
            assert!(is_pushed, "an empty block takes any entry");
            self.note_first_key(key);
        } else if self.entries == 0 {
            self.note_first_key(key);
        }
        let deleted = u32::from(value.is_none());
        match self.sections.last_mut() {
            Some(section) if section.tree_owner() == key.tree_owner() => {
                section.last = key.rank();
                section.entries += 1;
                section.deleted += deleted;
            }
            _ => self.sections.push(Section {
                owner: key.owner,
                first: key.rank(),
                last: key.rank(),
                entries: 1,
                deleted,
                tree: key.tree,
            }),
        }
        self.last = Some(key);
        self.entries += 1;
        Ok(())
    }

    /// Bytes of the finished blocks.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES as u64
    }

    fn note_first_key(&mut self, key: Key) {
        self.first_keys.push(key.tree);
        put_varint(&mut self.first_keys, key.owner);
        put_varint(&mut self.first_keys, key.order);
        put_varint(&mut self.first_keys, key.seq);
    }

    fn finish_block(&mut self) -> Result<(), Error> {
        self.block.finish(self.blocks, self.number, &mut self.out);
        self.blocks += 1;
        if self.out.len() >= CHUNK_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), Error> {
        self.file.write_all_at(&self.out, self.written).map_err(|source| Error::io("write", &self.name, source))?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Writes what is left, syncs the contents and returns the run as `level`, `group` and commits
    /// say. The name is not durable before the folder is synced. Every error of the sync is final.
    pub(super) fn finish(mut self, level: u8, group: u64, commits: (u64, u64)) -> Result<Run, Finish> {
        assert!(self.entries > 0, "a run has entries");
        let footer = self.write_tail(commits).map_err(Finish::Write)?;
        self.file.sync_data().map_err(|source| Finish::Sync(Error::io("sync", &self.name, source)))?;
        let encoded = footer.encode();
        let meta = RunMeta {
            number: self.number,
            level,
            group,
            first_commit: commits.0,
            last_commit: commits.1,
            file_bytes: self.written,
            footer_crc: crc_of(&encoded),
        };
        Ok(Run {
            meta,
            file: Arc::new(RunFile {
                file: self.file,
                name: self.name,
                footer,
                trees: trees(&self.sections),
                sections: self.sections.into_boxed_slice(),
                first_keys: OnceLock::new(),
                first_alive: atomic::AtomicUsize::new(0),
            }),
        })
    }

    fn write_tail(&mut self, commits: (u64, u64)) -> Result<Footer, Error> {
        if !self.block.is_empty() {
            self.finish_block()?;
        }
        let sections = encode_sections(&self.sections);
        let footer = Footer {
            number: self.number,
            first_commit: commits.0,
            last_commit: commits.1,
            blocks: self.blocks,
            sections: self.sections.len() as u32,
            entries: self.entries,
            sections_bytes: sections.len() as u32,
            keys_bytes: self.first_keys.len() as u32,
            sections_crc: checksum(&sections),
            keys_crc: checksum(&self.first_keys),
        };
        self.out.extend_from_slice(&sections);
        self.out.extend_from_slice(&self.first_keys);
        self.out.extend_from_slice(&footer.encode());
        self.write_out()?;
        Ok(footer)
    }
}

/// Why a run could not be finished.
pub(super) enum Finish {
    /// Nothing was promised yet: it may be tried again.
    Write(Error),
    /// What reached the disk is unknown.
    Sync(Error),
}

/// A run, open for reading. Cheap to clone.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) meta: RunMeta,
    pub(super) file: Arc<RunFile>,
}

/// What does not change when a run moves to another level.
pub(super) struct RunFile {
    file: Box<dyn File>,
    name: String,
    footer: Footer,
    pub(super) sections: Box<[Section]>,
    /// The trees of the sections, ascending.
    trees: Vec<u8>,
    first_keys: OnceLock<Box<[Key]>>,
    /// All sections before this one are dead. Sections never come to life again, so it only grows.
    first_alive: atomic::AtomicUsize,
}

impl Run {
    /// Opens the file that `meta` names, and checks all but its blocks and first keys.
    pub(super) fn open(folder: &Folder, meta: RunMeta) -> Result<Run, Error> {
        let name = run_name(meta.number);
        let file = folder.open_file(&name).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                Error::corrupt(&name, 0, "the file is missing")
            } else {
                Error::io("open", &name, source)
            }
        })?;
        let bytes = file.bytes().map_err(|source| Error::io("read", &name, source))?;
        if bytes != meta.file_bytes || bytes < FOOTER_BYTES as u64 {
            return Err(Error::corrupt(
                &name,
                bytes.min(meta.file_bytes),
                "the file has not the length that it was written with",
            ));
        }
        let footer_offset = bytes - FOOTER_BYTES as u64;
        let mut encoded = [0; FOOTER_BYTES];
        read_exact_at(&*file, &mut encoded, footer_offset).map_err(|source| Error::io("read", &name, source))?;
        let footer = Footer::decode(&encoded, &name, footer_offset)?;
        let blocks_bytes = u64::from(footer.blocks) * BLOCK_BYTES as u64;
        let is_as_the_manifest_says = crc_of(&encoded) == meta.footer_crc
            && footer.number == meta.number
            && (footer.first_commit, footer.last_commit) == (meta.first_commit, meta.last_commit)
            && blocks_bytes + u64::from(footer.sections_bytes) + u64::from(footer.keys_bytes) == footer_offset;
        if !is_as_the_manifest_says {
            return Err(Error::corrupt(&name, footer_offset, "the footer is not the one that the manifest names"));
        }
        let mut encoded = vec![0; footer.sections_bytes as usize];
        read_exact_at(&*file, &mut encoded, blocks_bytes).map_err(|source| Error::io("read", &name, source))?;
        if checksum(&encoded) != footer.sections_crc {
            return Err(Error::corrupt(&name, blocks_bytes, "the checksum of the sections does not match"));
        }
        let sections = decode_sections(&encoded, &footer)
            .ok_or_else(|| Error::corrupt(&name, blocks_bytes, "the sections are impossible"))?;
        Ok(Run {
            meta,
            file: Arc::new(RunFile {
                file,
                name,
                footer,
                trees: trees(&sections),
                sections,
                first_keys: OnceLock::new(),
                first_alive: atomic::AtomicUsize::new(0),
            }),
        })
    }
}

impl RunFile {
    pub(super) fn entries(&self) -> u64 {
        self.footer.entries
    }

    /// Those of the entries that say that a key was deleted.
    pub(super) fn deleted(&self) -> u64 {
        self.sections.iter().map(|section| u64::from(section.deleted)).sum()
    }

    pub(super) fn blocks(&self) -> u32 {
        self.footer.blocks
    }

    /// Reads every block and the first keys, and says what is damaged, with its byte.
    pub(super) fn damage(&self) -> Result<Vec<(u64, &'static str)>, Error> {
        self.each_block(|_, _| Ok(()))
    }

    /// Hands out the entries of every block that is whole; returns what is damaged, with its byte.
    pub(super) fn each_block(
        &self,
        mut each: impl FnMut(Key, Option<&[u8]>) -> Result<(), Error>,
    ) -> Result<Vec<(u64, &'static str)>, Error> {
        let mut damage = Vec::new();
        let mut cursor = BlockCursor::new();
        let mut entries: Vec<(Key, Option<Vec<u8>>)> = Vec::new();
        let mut last: Option<Key> = None;
        for index in 0..self.footer.blocks {
            let offset = u64::from(index) * BLOCK_BYTES as u64;
            let read = read_exact_at(&*self.file, cursor.buffer(), offset);
            read.map_err(|source| Error::io("read", &self.name, source))?;
            entries.clear();
            let mut walk = || {
                cursor.begin(index, self.footer.number)?;
                let mut last = last;
                while cursor.step()? {
                    if last.is_some_and(|last| cursor.key() <= last) {
                        return Err("the entries of a block are not in order");
                    }
                    last = Some(cursor.key());
                    entries.push((cursor.key(), cursor.value().map(<[u8]>::to_vec)));
                }
                Ok(last)
            };
            match walk() {
                Ok(now) => last = now,
                Err(what) => {
                    damage.push((offset, what));
                    continue;
                }
            }
            for (key, value) in &entries {
                each(*key, value.as_deref())?;
            }
        }
        match self.first_keys() {
            Err(Error::Corrupt { offset, what, .. }) => damage.push((offset, what)),
            other => {
                other?;
            }
        }
        Ok(damage)
    }

    /// Where the section of (`tree`, `owner`) stands in `sections`.
    pub(super) fn section_index(&self, tree: u8, owner: u64) -> Option<usize> {
        self.sections.binary_search_by(|section| section.tree_owner().cmp(&(tree, owner))).ok()
    }

    pub(super) fn section(&self, tree: u8, owner: u64) -> Option<&Section> {
        self.section_index(tree, owner).map(|index| &self.sections[index])
    }

    /// The sections of `owner`, in all trees.
    pub(super) fn sections_of(&self, owner: u64) -> impl Iterator<Item = &Section> {
        self.trees.iter().filter_map(move |tree| self.section(*tree, owner))
    }

    /// Whether every section is dead as `is_dead` says. A few steps a call in the long run: what
    /// was once found dead is not asked about again.
    pub(super) fn is_all_dead(&self, mut is_dead: impl FnMut(&Section) -> bool) -> bool {
        let mut index = self.first_alive.load(atomic::Ordering::Relaxed);
        while self.sections.get(index).is_some_and(&mut is_dead) {
            index += 1;
        }
        self.first_alive.fetch_max(index, atomic::Ordering::Relaxed);
        index >= self.sections.len()
    }

    /// Takes back what `is_all_dead` learnt from heads that were not committed after all.
    pub(super) fn forget_dead(&self) {
        self.first_alive.store(0, atomic::Ordering::Relaxed);
    }

    /// The first key of each block; read from the file when they are first asked for.
    fn first_keys(&self) -> Result<&[Key], Error> {
        if let Some(keys) = self.first_keys.get() {
            return Ok(keys);
        }
        let offset = u64::from(self.footer.blocks) * BLOCK_BYTES as u64 + u64::from(self.footer.sections_bytes);
        let mut encoded = vec![0; self.footer.keys_bytes as usize];
        read_exact_at(&*self.file, &mut encoded, offset).map_err(|source| Error::io("read", &self.name, source))?;
        if checksum(&encoded) != self.footer.keys_crc {
            return Err(Error::corrupt(&self.name, offset, "the checksum of the first keys does not match"));
        }
        let keys = decode_keys(&encoded, self.footer.blocks as usize)
            .ok_or_else(|| Error::corrupt(&self.name, offset, "the first keys are impossible"))?;
        Ok(self.first_keys.get_or_init(|| keys))
    }
}

/// The last commit of a run that no manifest names, if it was ever finished.
pub(super) fn commit_of(folder: &Folder, number: u64) -> Option<u64> {
    let name = run_name(number);
    let file = folder.open_file(&name).ok()?;
    let offset = file.bytes().ok()?.checked_sub(FOOTER_BYTES as u64)?;
    let mut encoded = [0; FOOTER_BYTES];
    read_exact_at(&*file, &mut encoded, offset).ok()?;
    let footer = Footer::decode(&encoded, &name, offset).ok()?;
    (footer.number == number).then_some(footer.last_commit)
}

fn crc_of(footer: &[u8; FOOTER_BYTES]) -> u32 {
    u32::from_le_bytes([footer[76], footer[77], footer[78], footer[79]])
}

fn trees(sections: &[Section]) -> Vec<u8> {
    let mut trees: Vec<u8> = sections.iter().map(|section| section.tree).collect();
    trees.dedup();
    trees.shrink_to_fit();
    trees
}

fn encode_sections(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sections.len() * 8);
    let (mut tree, mut owner) = (0, 0_u64);
    for section in sections {
        let Section { first, last, entries, deleted, .. } = *section;
        let facts = [
            (SECTION_SAME_TREE, section.tree == tree),
            (SECTION_NEXT_OWNER, Some(section.owner) == owner.checked_add(1)),
            (SECTION_NO_ORDER, last.order == 0),
            (SECTION_NO_DELETED, deleted == 0),
            (SECTION_DENSE, first.seq.checked_add(u64::from(entries) - 1) == Some(last.seq)),
        ];
        let flags = facts.iter().map(|(flag, holds)| if *holds { *flag } else { 0 }).sum::<u8>();
        (tree, owner) = section.tree_owner();
        out.push(flags);
        put_varint(&mut out, first.seq);
        put_varint(&mut out, u64::from(entries));
        if flags & SECTION_SAME_TREE == 0 {
            out.push(tree);
        }
        if flags & SECTION_NEXT_OWNER == 0 {
            put_varint(&mut out, owner);
        }
        if flags & SECTION_NO_ORDER == 0 {
            put_varint(&mut out, first.order);
            put_varint(&mut out, last.order - first.order);
        }
        if flags & SECTION_NO_DELETED == 0 {
            put_varint(&mut out, u64::from(deleted));
        }
        if flags & SECTION_DENSE == 0 {
            put_varint(&mut out, last.seq);
        }
    }
    out
}

fn decode_sections(bytes: &[u8], footer: &Footer) -> Option<Box<[Section]>> {
    const SECTION_BYTES_MIN: usize = 3;
    let count = footer.sections as usize;
    if count > bytes.len() / SECTION_BYTES_MIN {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let mut sections: Vec<Section> = Vec::with_capacity(count);
    let mut entries_count = 0_u64;
    let (mut tree, mut owner) = (0, 0_u64);
    for index in 0..count {
        let flags = reader.u8()?;
        let mut first = Rank { order: 0, seq: reader.varint()? };
        let entries = reader.varint_u32()?;
        let before = (tree, owner);
        if flags & SECTION_SAME_TREE == 0 {
            tree = reader.u8()?;
        }
        owner = if flags & SECTION_NEXT_OWNER == 0 { reader.varint()? } else { owner.checked_add(1)? };
        let mut last = Rank::MIN;
        if flags & SECTION_NO_ORDER == 0 {
            first.order = reader.varint()?;
            last.order = first.order.checked_add(reader.varint()?)?;
        }
        let deleted = if flags & SECTION_NO_DELETED == 0 { reader.varint_u32()? } else { 0 };
        last.seq = if flags & SECTION_DENSE == 0 {
            reader.varint()?
        } else {
            first.seq.checked_add(u64::from(entries.checked_sub(1)?))?
        };
        let is_behind = index == 0 || before < (tree, owner);
        if !is_behind || last < first || entries == 0 || deleted > entries {
            return None;
        }
        entries_count += u64::from(entries);
        sections.push(Section { owner, first, last, entries, deleted, tree });
    }
    (reader.left() == 0 && entries_count == footer.entries && count > 0).then(|| sections.into_boxed_slice())
}

fn decode_keys(bytes: &[u8], count: usize) -> Option<Box<[Key]>> {
    const KEY_BYTES_MIN: usize = 4;
    if count > bytes.len() / KEY_BYTES_MIN {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let mut keys: Vec<Key> = Vec::with_capacity(count);
    for _ in 0..count {
        let key = Key { tree: reader.u8()?, owner: reader.varint()?, order: reader.varint()?, seq: reader.varint()? };
        if keys.last().is_some_and(|before| *before >= key) {
            return None;
        }
        keys.push(key);
    }
    (reader.left() == 0).then(|| keys.into_boxed_slice())
}

/// Walks over the entries of a run in ascending order.
pub(super) struct RunCursor {
    file: Arc<RunFile>,
    block: BlockCursor,
    block_index: usize,
    state: CursorState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CursorState {
    /// No block is loaded.
    Before,
    /// On an entry.
    On,
    /// Behind the last entry.
    Behind,
}

impl RunCursor {
    pub(super) fn new(file: Arc<RunFile>) -> RunCursor {
        RunCursor { file, block: BlockCursor::new(), block_index: 0, state: CursorState::Before }
    }

    /// The key that the cursor is on; `None` behind the last, and before the first `seek` or `step`.
    #[inline]
    pub(super) fn key(&self) -> Option<Key> {
        (self.state == CursorState::On).then(|| self.block.key())
    }

    /// The value that the cursor is on; `None` if it says that the key was deleted.
    #[inline]
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.block.value()
    }

    /// Steps to the next entry.
    #[inline]
    pub(super) fn step(&mut self) -> Result<(), Error> {
        match self.state {
            CursorState::On => {
                if !self.step_in_block()? {
                    self.load(self.block_index + 1)?;
                }
                Ok(())
            }
            CursorState::Before => self.load(0),
            CursorState::Behind => Ok(()),
        }
    }

    /// Steps forward to the first entry at or behind `target`. Never steps back.
    pub(super) fn seek(&mut self, target: Key) -> Result<(), Error> {
        if self.state == CursorState::Behind || self.key().is_some_and(|key| key >= target) {
            return Ok(());
        }
        let file = self.file.clone();
        let first_keys = file.first_keys()?;
        let is_in_this_block =
            self.state == CursorState::On && first_keys.get(self.block_index + 1).is_none_or(|first| *first > target);
        if !is_in_this_block {
            self.load(first_keys.partition_point(|first| *first <= target).saturating_sub(1))?;
        }
        while self.key().is_some_and(|key| key < target) {
            if !self.step_in_block()? {
                self.load(self.block_index + 1)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn step_in_block(&mut self) -> Result<bool, Error> {
        let before = self.block.key();
        match self.block.step() {
            Ok(true) if before < self.block.key() => Ok(true),
            Ok(false) => Ok(false),
            Ok(true) => Err(self.broken("the entries of a block are not in order")),
            Err(what) => Err(self.broken(what)),
        }
    }

    /// The block in which it stands.
    pub(super) fn block_index(&self) -> usize {
        self.block_index
    }

    fn load(&mut self, index: usize) -> Result<(), Error> {
        if index >= self.file.footer.blocks as usize {
            self.state = CursorState::Behind;
            return Ok(());
        }
        let last = (self.state == CursorState::On).then(|| self.block.key()).filter(|_| index > self.block_index);
        self.state = CursorState::Behind;
        self.block_index = index;
        let offset = index as u64 * BLOCK_BYTES as u64;
        let buffer = self.block.buffer();
        read_exact_at(&*self.file.file, buffer, offset).map_err(|source| Error::io("read", &self.file.name, source))?;
        self.block.begin(index as u32, self.file.footer.number).map_err(|what| self.broken(what))?;
        match self.block.step() {
            Ok(true) if last.is_none_or(|last| last < self.block.key()) => {
                self.state = CursorState::On;
                Ok(())
            }
            Ok(_) => Err(self.broken("the blocks are not in order")),
            Err(what) => Err(self.broken(what)),
        }
    }

    fn broken(&mut self, what: &'static str) -> Error {
        self.state = CursorState::Behind;
        Error::corrupt(&self.file.name, self.block_index as u64 * BLOCK_BYTES as u64, what)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn footer(sections: &[Section]) -> Footer {
        Footer {
            number: 0,
            first_commit: 0,
            last_commit: 0,
            blocks: 0,
            sections: sections.len() as u32,
            entries: sections.iter().map(|section| u64::from(section.entries)).sum(),
            sections_bytes: 0,
            keys_bytes: 0,
            sections_crc: 0,
            keys_crc: 0,
        }
    }

    fn sections() -> impl Strategy<Value = Vec<Section>> {
        let part = || prop_oneof![3 => 0..3_u64, 1 => any::<u64>()];
        let key = (0..3_u8, part());
        let ranks = (part(), part(), part(), part()).prop_map(|(a, b, c, d)| {
            let (one, other) = (Rank::new(a, b), Rank::new(c, d));
            (one.min(other), one.max(other))
        });
        let of_key = (ranks, 1..4_u32, 0..2_u32);
        prop::collection::btree_map(key, of_key, 1..40).prop_map(|map| {
            let section = |((tree, owner), ((first, last), entries, deleted))| Section {
                owner,
                first,
                last,
                entries,
                deleted,
                tree,
            };
            map.into_iter().map(section).collect()
        })
    }

    proptest! {
        #[test]
        fn sections_read_back_as_they_were_written(sections in sections()) {
            let read = decode_sections(&encode_sections(&sections), &footer(&sections));
            prop_assert_eq!(read.map(|read| read.to_vec()), Some(sections));
        }

        #[test]
        fn foreign_bytes_as_sections_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), sections in sections()) {
            let _ = decode_sections(&bytes, &footer(&sections));
            let _ = decode_keys(&bytes, sections.len());
        }
    }
}
