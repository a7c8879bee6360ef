//! A disk in memory that can lose its power, be full, refuse to sync, or rot.
//!
//! What was not synced survives a crash in part, as a seed decides: of a file's unsynced writes any
//! sectors, of the folder's unsynced changes any first ones.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::Mutex;

use super::disk::{IndexDisk, IndexFile};

const SECTOR_BYTES: usize = 512;

/// A disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    names: BTreeMap<String, FileRef>,
    durable_names: BTreeMap<String, FileRef>,
    pending: Vec<Change>,
    /// Operations that change something, so far.
    operations: u64,
    /// The operation at which the power goes.
    power_ends_at: Option<u64>,
    is_powerless: bool,
    is_full: bool,
    is_sync_failing: bool,
}

type FileRef = Arc<Mutex<Contents>>;

#[derive(Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    At(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone)]
enum Change {
    Set(String, FileRef),
    Remove(String),
    Rename(String, String),
}

impl MemoryDisk {
    pub(crate) fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Operations so far that change something.
    pub(crate) fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// The power goes in the middle of the operation `number`, counted from now.
    pub(crate) fn end_power_at(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.power_ends_at = Some(inner.operations + number);
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.inner.lock().is_full = is_full;
    }

    pub(crate) fn set_sync_failing(&self, is_sync_failing: bool) {
        self.inner.lock().is_sync_failing = is_sync_failing;
    }

    /// The disk as it is found after a crash at this moment.
    pub(crate) fn crash(&self, seed: u64) -> MemoryDisk {
        let mut random = Random(seed);
        let inner = self.inner.lock();
        let mut names = inner.durable_names.clone();
        let survivors = random.below(inner.pending.len() as u64 + 1) as usize;
        inner.pending[..survivors].iter().for_each(|change| apply(&mut names, change));
        let names: BTreeMap<String, FileRef> = names
            .into_iter()
            .map(|(name, file)| {
                let bytes = file.lock().after_crash(&mut random);
                (name, Arc::new(Mutex::new(Contents { durable: bytes.clone(), bytes, pending: Vec::new() })))
            })
            .collect();
        MemoryDisk { inner: Arc::new(Mutex::new(Inner { durable_names: names.clone(), names, ..Inner::default() })) }
    }

    /// Another disk with the same contents, all of them durable.
    pub(crate) fn copy(&self) -> MemoryDisk {
        let copied = |(name, file): (&String, &FileRef)| {
            let bytes = file.lock().bytes.clone();
            (name.clone(), Arc::new(Mutex::new(Contents { durable: bytes.clone(), bytes, pending: Vec::new() })))
        };
        let names: BTreeMap<String, FileRef> = self.inner.lock().names.iter().map(copied).collect();
        MemoryDisk { inner: Arc::new(Mutex::new(Inner { durable_names: names.clone(), names, ..Inner::default() })) }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.inner.lock().names.keys().cloned().collect()
    }

    /// Sets the contents of a file, as rot or another program would.
    pub(crate) fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.inner.lock();
        let file: FileRef = Arc::new(Mutex::new(Contents { durable: bytes.clone(), bytes, pending: Vec::new() }));
        inner.names.insert(name.to_owned(), file.clone());
        inner.durable_names.insert(name.to_owned(), file);
    }

    pub(crate) fn contents(&self, name: &str) -> Vec<u8> {
        self.inner.lock().names[name].lock().bytes.clone()
    }
}

impl Inner {
    /// Counts an operation; an error when it does not come to its end, with whether it is begun.
    fn operate(&mut self) -> Result<(), (bool, io::Error)> {
        if self.is_powerless {
            return Err((false, io::Error::other("no power")));
        }
        self.operations += 1;
        if self.power_ends_at == Some(self.operations) {
            self.is_powerless = true;
            return Err((true, io::Error::other("the power has gone")));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let result = self.operate();
        if matches!(result, Ok(()) | Err((true, _))) {
            apply(&mut self.names, &change);
            self.pending.push(change);
        }
        result.map_err(|(_, error)| error)
    }
}

fn apply(names: &mut BTreeMap<String, FileRef>, change: &Change) {
    match change {
        Change::Set(name, file) => {
            names.insert(name.clone(), file.clone());
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

impl Contents {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        write(&mut self.bytes, offset, bytes);
        self.pending.push(Write::At(offset, bytes.to_vec()));
    }

    fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for pending in &self.pending {
            let (offset, written) = match pending {
                Write::At(offset, written) => (offset, written),
                Write::Cut(length) => {
                    if random.below(2) == 0 {
                        bytes.truncate(*length);
                    }
                    continue;
                }
            };
            // All, nothing, a first part to the byte, or any sectors of it.
            match random.below(4) {
                0 => write(&mut bytes, *offset, written),
                1 => {}
                2 => write(&mut bytes, *offset, &written[..random.below(written.len() as u64 + 1) as usize]),
                _ => {
                    for (index, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                        if random.below(2) == 0 {
                            write(&mut bytes, offset + index * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        bytes
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if new.is_empty() {
        return;
    }
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

impl IndexDisk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn IndexFile>> {
        let mut inner = self.inner.lock();
        if inner.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = FileRef::default();
        inner.change(Change::Set(name.to_owned(), file.clone()))?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn IndexFile>> {
        let inner = self.inner.lock();
        let file = inner.names.get(name).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.lock().change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if !inner.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Remove(name.to_owned()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operate().map_err(|(_, error)| error)?;
        if inner.is_sync_failing {
            return Err(io::Error::other("the sync fails"));
        }
        inner.durable_names = inner.names.clone();
        inner.pending.clear();
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: FileRef,
}

impl IndexFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        if inner.is_full {
            // A full disk takes the first part of a write.
            self.file.lock().write(offset as usize, &bytes[..bytes.len() / 2]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let result = inner.operate();
        if matches!(result, Ok(()) | Err((true, _))) {
            self.file.lock().write(offset as usize, bytes);
        }
        result.map_err(|(_, error)| error)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.disk.inner.lock().operate().map_err(|(_, error)| error)?;
        let mut file = self.file.lock();
        file.bytes.truncate(bytes as usize);
        file.pending.push(Write::Cut(bytes as usize));
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.file.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= file.bytes.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(&file.bytes[start..end]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.operate().map_err(|(_, error)| error)?;
        if inner.is_sync_failing {
            return Err(io::Error::other("the sync fails"));
        }
        let mut file = self.file.lock();
        file.durable = file.bytes.clone();
        file.pending.clear();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.lock().bytes.len() as u64)
    }
}

/// A small generator of numbers that look random (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
