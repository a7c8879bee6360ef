//! Manifests: the log of what the index consists of. Its last whole record is the truth.
//!
//! ```text
//! header   magic "TernIdx\n", format u32, 0 u32, number of the manifest u64, 0 u32, crc-32c u32
//! record   magic "IREC", crc-32c of the next 32 bytes u32, crc-32c of the payload u32,
//!          payload bytes u32, number u64, commit u64, kind u8, format u8, 0 (6 bytes); payload
//! ```
//! Numbers are little-endian, payloads are in `state`. Records are numbered on through all
//! manifests. A manifest begins with a record of kind 1 (state), which bears the number of the last
//! record whose effects it holds; each following record (2 commit, 3 merge) has the next number.
//! `commit` is the number of the last commit, this record included.
//!
//! A manifest gets its name only when it is whole and synced, so only its end can be torn.

use super::{
    coding::{Reader, checksum},
    error::Error,
    folder::{Folder, read_exact_at},
};
use crate::store::disk::File;

pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TernIdx\n";
const HEADER_BYTES: usize = 32;
const RECORD_MAGIC: [u8; 4] = *b"IREC";
const RECORD_HEADER_BYTES: usize = 40;
/// Bytes that a manifest may grow by however large the state is that it begins with.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// A longer manifest is not read: states of ten million owners are shorter.
const MANIFEST_BYTES_LIMIT: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    State = 1,
    Commit = 2,
    Merge = 3,
}

pub(super) fn manifest_name(number: u64) -> String {
    format!("manifest-{number:016x}")
}

/// The manifest that is being written.
pub(super) struct Manifest {
    file: Box<dyn File>,
    name: String,
    pub(super) number: u64,
    bytes: u64,
    base_bytes: u64,
    /// Commits since its first record.
    commits: u64,
    /// The number of its last record.
    last_record: u64,
}

/// Why an append failed.
pub(super) enum Append {
    /// Nothing was written that counts: it may be tried again.
    Write(Error),
    /// Whether the record is on disk is unknown.
    Sync(Error),
}

impl Manifest {
    /// Begins the manifest `number` with `state`, the effect of all records up to `last_record`.
    pub(super) fn create(
        folder: &Folder,
        number: u64,
        last_record: u64,
        commit: u64,
        state: &[u8],
    ) -> Result<Manifest, Append> {
        let name = manifest_name(number);
        let draft = format!("{name}.tmp");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + RECORD_HEADER_BYTES + state.len());
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(number.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(checksum(&bytes).to_le_bytes());
        put_record(&mut bytes, Kind::State, last_record, commit, state);
        let file = folder.create(&draft).map_err(|source| Append::Write(Error::io("create", &draft, source)))?;
        file.write_all_at(&bytes, 0).map_err(|source| Append::Write(Error::io("write", &draft, source)))?;
        file.sync_data().map_err(|source| Append::Sync(Error::io("sync", &draft, source)))?;
        folder.rename(&draft, &name).map_err(|source| Append::Sync(Error::io("rename", &draft, source)))?;
        folder.sync_dir().map_err(|source| Append::Sync(Error::io("sync the folder of", &name, source)))?;
        Ok(Manifest {
            file,
            name,
            number,
            bytes: bytes.len() as u64,
            base_bytes: bytes.len() as u64,
            commits: 0,
            last_record,
        })
    }

    /// Goes on behind the last record of `read`, which must be without damage.
    pub(super) fn reopen(folder: &Folder, read: &Read) -> Result<Manifest, Error> {
        let file = folder.open_file(&read.name).map_err(|source| Error::io("open", &read.name, source))?;
        Ok(Manifest {
            file,
            name: read.name.clone(),
            number: read.number,
            bytes: read.bytes.len() as u64,
            base_bytes: read.records.first().map_or(0, |record| record.payload.len() as u64),
            commits: read.records.iter().filter(|record| record.kind == Kind::Commit).count() as u64,
            last_record: read.records.last().map_or(0, |record| record.number),
        })
    }

    /// Appends a record and syncs it.
    pub(super) fn append(&mut self, kind: Kind, commit: u64, payload: &[u8]) -> Result<(), Append> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
        put_record(&mut bytes, kind, self.last_record + 1, commit, payload);
        if let Err(source) = self.file.write_all_at(&bytes, self.bytes) {
            // What is left of it would look like damage. If it cannot be cut off either, the next
            // start reports it, and no harm is done.
            let _ = self.file.set_bytes(self.bytes);
            return Err(Append::Write(Error::io("write", &self.name, source)));
        }
        self.file.sync_data().map_err(|source| Append::Sync(Error::io("sync", &self.name, source)))?;
        self.bytes += bytes.len() as u64;
        self.last_record += 1;
        self.commits += u64::from(kind == Kind::Commit);
        Ok(())
    }

    pub(super) fn last_record(&self) -> u64 {
        self.last_record
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether another one should begin. Not before it holds two checkpoints of its own, so that
    /// this one and the next suffice for the last two.
    pub(super) fn is_long(&self, bytes_max: u64) -> bool {
        self.commits >= 2 && self.bytes > bytes_max.max(self.base_bytes + self.base_bytes.min(GROWTH_BYTES_MAX))
    }
}

fn put_record(out: &mut Vec<u8>, kind: Kind, number: u64, commit: u64, payload: &[u8]) {
    let mut header = Vec::with_capacity(RECORD_HEADER_BYTES - 8);
    header.extend(checksum(payload).to_le_bytes());
    header.extend(u32::try_from(payload.len()).expect("a manifest is below its limit").to_le_bytes());
    header.extend(number.to_le_bytes());
    header.extend(commit.to_le_bytes());
    header.extend([kind as u8, FORMAT as u8, 0, 0, 0, 0, 0, 0]);
    out.extend(RECORD_MAGIC);
    out.extend(checksum(&header).to_le_bytes());
    out.extend(header);
    out.extend(payload);
}

/// A manifest as it was found.
pub(super) struct Read {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    /// The records whose headers are right.
    pub(super) records: Vec<Record>,
    pub(super) damage: Vec<(u64, &'static str)>,
}

/// Where a record stands.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) commit: u64,
    /// False if the payload is damaged or cut off.
    pub(super) is_whole: bool,
    pub(super) payload: std::ops::Range<usize>,
}

impl Read {
    /// Reads a manifest; damage is noted, not an error.
    pub(super) fn file(folder: &Folder, number: u64) -> Result<Read, Error> {
        let name = manifest_name(number);
        let failed = |source| Error::io("read", &name, source);
        let file = folder.open_file(&name).map_err(failed)?;
        let length = file.bytes().map_err(failed)?;
        if length > MANIFEST_BYTES_LIMIT {
            return Err(Error::corrupt(&name, MANIFEST_BYTES_LIMIT, "the file is longer than a manifest can be"));
        }
        let mut bytes = vec![0; length as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(failed)?;
        let mut read = Read { name, number, bytes, records: Vec::new(), damage: Vec::new() };
        read.check_header()?;
        read.find_records()?;
        Ok(read)
    }

    fn check_header(&mut self) -> Result<(), Error> {
        let header = self.bytes.get(..HEADER_BYTES);
        let is_right =
            header.is_some_and(|header| header[..8] == MAGIC && header[28..] == checksum(&header[..28]).to_le_bytes());
        if let Some(header) = header.filter(|_| is_right) {
            let mut reader = Reader::new(&header[8..]);
            let format = reader.u32().unwrap_or_default();
            if format > FORMAT {
                return Err(Error::NewerFormat { file: self.name.clone(), found: format, known: FORMAT });
            }
            let _reserved = reader.u32();
            if reader.u64() == Some(self.number) {
                return Ok(());
            }
        }
        self.damage.push((0, "the header of the manifest is damaged"));
        Ok(())
    }

    fn find_records(&mut self) -> Result<(), Error> {
        let mut at = HEADER_BYTES.min(self.bytes.len());
        while at < self.bytes.len() {
            let Some(mut record) = self.record_at(at)? else {
                self.damage.push((at as u64, "the header of a record is damaged"));
                let mut next = at + 1;
                // Looking for a record behind the damage tells a lost end from a lost middle.
                while next < self.bytes.len() && self.record_at(next)?.is_none() {
                    next += 1;
                }
                at = next;
                continue;
            };
            let payload = self.bytes.get(record.payload.clone());
            let crc =
                u32::from_le_bytes([self.bytes[at + 8], self.bytes[at + 9], self.bytes[at + 10], self.bytes[at + 11]]);
            record.is_whole = payload.is_some_and(|payload| checksum(payload) == crc);
            if !record.is_whole {
                self.damage.push((at as u64, "a record is damaged or cut off"));
            }
            at = record.payload.end;
            self.records.push(record);
        }
        Ok(())
    }

    fn record_at(&self, at: usize) -> Result<Option<Record>, Error> {
        let Some(header) = self.bytes.get(at..at + RECORD_HEADER_BYTES) else { return Ok(None) };
        if header[..4] != RECORD_MAGIC || header[4..8] != checksum(&header[8..]).to_le_bytes() {
            return Ok(None);
        }
        let mut reader = Reader::new(&header[12..]);
        let mut fields = || {
            let payload_bytes = reader.u32()? as usize;
            Some((payload_bytes, reader.u64()?, reader.u64()?, reader.u8()?, reader.u8()?))
        };
        let Some((payload_bytes, number, commit, kind, format)) = fields() else { return Ok(None) };
        if u32::from(format) > FORMAT {
            return Err(Error::NewerFormat { file: self.name.clone(), found: format.into(), known: FORMAT });
        }
        let kind = match kind {
            1 => Kind::State,
            2 => Kind::Commit,
            3 => Kind::Merge,
            _ => return Ok(None),
        };
        let start = at + RECORD_HEADER_BYTES;
        Ok(Some(Record { kind, number, commit, is_whole: false, payload: start..start + payload_bytes }))
    }

    pub(super) fn payload(&self, record: &Record) -> &[u8] {
        self.bytes.get(record.payload.clone()).unwrap_or_default()
    }
}
