//! A disk in memory for tests: it loses what was not synced, and fails where it is told to.
//!
//! What a power cut keeps: everything that was synced; of the rest any of the writes, each whole, or up
//! to any byte, or torn sector by sector, a torn sector keeping any prefix of the new bytes; of unsynced renames and removals the
//! first few, as a journalling file system does. A sync that fails forgets that there was something to
//! sync, as Linux does: a later one succeeds and lies. A full disk takes the first part of a write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Access, BLOCK_BYTES, Disk, File, Listed};

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

/// What goes wrong. Operations that change something are counted from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The machine stops in the middle of this operation.
    pub(crate) crash_at: Option<u64>,
    /// This sync, or synced write, fails with `EIO`. Counted by themselves.
    pub(crate) fail_sync_at: Option<u64>,
    /// Every third write is cut short.
    pub(crate) has_short_writes: bool,
    /// Direct access is refused.
    pub(crate) is_buffered_only: bool,
    /// Bytes that all files together may have; `None` is no bound.
    pub(crate) capacity: Option<u64>,
}

struct State {
    plan: Plan,
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<(PathBuf, Option<u64>, Option<PathBuf>)>,
    locks: Arc<Mutex<BTreeSet<PathBuf>>>,
    next_inode: u64,
    operations: u64,
    syncs: u64,
    writes: u64,
    reads: u64,
    bytes_read: u64,
    is_down: bool,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8>, is_direct: bool },
    Length(usize),
}

impl MemoryDisk {
    pub(crate) fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(State {
            plan,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            locks: Arc::default(),
            next_inode: 0,
            operations: 0,
            syncs: 0,
            writes: 0,
            reads: 0,
            bytes_read: 0,
            is_down: false,
        })))
    }

    /// The machine stops in the operation that is `later` from now: 1 is the next.
    pub(crate) fn crash_in(&self, later: u64) {
        let mut state = self.0.lock();
        state.plan.crash_at = Some(state.operations + later);
    }

    pub(crate) fn set_plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.0.lock().plan);
    }

    /// How many operations changed something so far.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// How many reads found something.
    pub(crate) fn reads(&self) -> u64 {
        self.0.lock().reads
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.lock().bytes_read
    }

    /// The machine after the power came back: another disk, with what survived.
    pub(crate) fn power_cut(&self, random: &mut Random, plan: Plan) -> Self {
        let mut state = self.0.lock();
        state.is_down = true;
        let mut names = state.durable_names.clone();
        let kept = random.below(state.unsynced_names.len() as u64 + 1) as usize;
        for (path, inode, gone) in state.unsynced_names.iter().take(kept) {
            apply_name(&mut names, path, *inode, gone.as_deref());
        }
        let mut files = BTreeMap::new();
        for (number, inode) in &state.files {
            let mut kept = inode.durable.clone();
            for change in &inode.unsynced {
                change.apply_torn(&mut kept, random);
            }
            files.insert(*number, Inode { now: kept.clone(), durable: kept, unsynced: Vec::new() });
        }
        files.retain(|number, _| names.values().any(|named| named == number));
        let new = Self::new(plan);
        {
            let mut state_new = new.0.lock();
            state_new.files = files;
            state_new.durable_names = names.clone();
            state_new.names = names;
            state_new.next_inode = state.next_inode;
        }
        new
    }

    /// The same contents as another disk, after the process ended and the machine went on: what is in
    /// the page cache stays there, and a direct write in flight is completed.
    pub(crate) fn copy(&self, plan: Plan) -> Self {
        let state = self.0.lock();
        let new = Self::new(plan);
        {
            let mut state_new = new.0.lock();
            // What was removed, and is durably so, is of no use to anybody there.
            let named = state.names.values().chain(state.durable_names.values());
            let named = named.chain(state.unsynced_names.iter().filter_map(|(_, inode, _)| inode.as_ref()));
            state_new.files = named.map(|inode| (*inode, state.files[inode].clone())).collect();
            for file in state_new.files.values_mut() {
                let (direct, cached): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut file.unsynced).into_iter().partition(Change::is_direct);
                file.unsynced = cached;
                for change in direct {
                    change.apply(&mut file.durable);
                }
            }
            state_new.names = state.names.clone();
            state_new.durable_names = state.durable_names.clone();
            state_new.unsynced_names = state.unsynced_names.clone();
            state_new.next_inode = state.next_inode;
        }
        new
    }

    pub(crate) fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock();
        state.files[&state.names[path]].now.clone()
    }

    /// Puts other bytes in the place of durable ones.
    pub(crate) fn overwrite(&self, path: &Path, at: usize, bytes: &[u8]) {
        let mut state = self.0.lock();
        let inode = state.names[path];
        let file = state.files.get_mut(&inode).expect("a name has a file");
        file.now[at..at + bytes.len()].copy_from_slice(bytes);
        file.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Gives a file other contents, all of them durable; it need not exist.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, Inode { now: bytes.clone(), durable: bytes, unsynced: Vec::new() });
        state.names.insert(path.into(), inode);
        state.durable_names.insert(path.into(), inode);
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    pub(crate) fn cut(&self, path: &Path, bytes: usize) {
        let mut state = self.0.lock();
        let inode = state.names[path];
        let file = state.files.get_mut(&inode).expect("a name has a file");
        file.now.truncate(bytes);
        file.durable.truncate(bytes);
    }

    fn add(&self, path: &Path, access: Access, is_new: bool) -> io::Result<Box<dyn File>> {
        let mut state = self.0.lock();
        let inode = if is_new {
            let is_stopped = state.begin()?;
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.next_inode += 1;
            let inode = state.next_inode;
            state.files.insert(inode, Inode::default());
            state.rename(path, Some(inode), None);
            state.end(is_stopped)?;
            inode
        } else {
            state.check_up()?;
            *state.names.get(path).ok_or(io::ErrorKind::NotFound)?
        };
        let is_direct = access == Access::Direct && !state.plan.is_buffered_only;
        Ok(Box::new(MemoryFile {
            disk: self.clone(),
            inode,
            is_direct,
            is_readonly: matches!(access, Access::Read | Access::ReadDirect),
        }))
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, path: &Path, inode: Option<u64>, gone: Option<&Path>) {
    match inode {
        Some(inode) => names.insert(path.into(), inode),
        None => names.remove(path),
    };
    if let Some(gone) = gone {
        names.remove(gone);
    }
}

impl State {
    fn check_up(&self) -> io::Result<()> {
        if self.is_down { Err(io::Error::other("the machine is down")) } else { Ok(()) }
    }

    /// Counts an operation; `true` if the machine stops in it.
    fn begin(&mut self) -> io::Result<bool> {
        self.check_up()?;
        self.operations += 1;
        Ok(self.plan.crash_at == Some(self.operations))
    }

    fn end(&mut self, is_stopped: bool) -> io::Result<()> {
        self.is_down |= is_stopped;
        self.check_up()
    }

    /// Counts a sync; `true` if it is to fail.
    fn is_sync_failing(&mut self) -> bool {
        self.syncs += 1;
        self.plan.fail_sync_at == Some(self.syncs)
    }

    fn rename(&mut self, path: &Path, inode: Option<u64>, gone: Option<&Path>) {
        apply_name(&mut self.names, path, inode, gone);
        self.unsynced_names.push((path.into(), inode, gone.map(Into::into)));
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.files[inode].now.len() as u64).sum()
    }

    fn check_room(&self, inode: u64, length: usize) -> io::Result<()> {
        let more = (length as u64).saturating_sub(self.files[&inode].now.len() as u64);
        match self.plan.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Change {
    fn is_direct(&self) -> bool {
        matches!(self, Self::Write { is_direct: true, .. })
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write { at, bytes: new, .. } => {
                if !new.is_empty() && bytes.len() < at + new.len() {
                    bytes.resize(at + new.len(), 0);
                }
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
        }
    }

    /// Applies some of it.
    fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        const SECTOR: usize = 512;
        let fate = random.below(5);
        match (fate, self) {
            (0, _) => {}
            (1, _) | (_, Self::Length(_)) => self.apply(bytes),
            (2, Self::Write { at, bytes: new, .. }) => {
                let kept = random.below(new.len() as u64 + 1) as usize;
                Self::Write { at: *at, bytes: new[..kept].to_vec(), is_direct: false }.apply(bytes);
            }
            (_, Self::Write { at, bytes: new, .. }) => {
                let mut begin = *at;
                while begin < at + new.len() {
                    let end = ((begin / SECTOR + 1) * SECTOR).min(at + new.len());
                    let kept = match random.below(if fate == 3 { 2 } else { 3 }) {
                        0 => 0,
                        1 => end - begin,
                        _ => random.below((end - begin) as u64) as usize,
                    };
                    if kept > 0 {
                        let part = new[begin - at..begin - at + kept].to_vec();
                        Self::Write { at: begin, bytes: part, is_direct: false }.apply(bytes);
                    }
                    begin = end;
                }
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        self.add(path, access, false)
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        self.add(path, access, true)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.0.lock().check_up()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let is_stopped = state.begin()?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(to, Some(inode), Some(from));
        state.end(is_stopped)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let is_stopped = state.begin()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(path, None, None);
        state.end(is_stopped)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let state = self.0.lock();
        state.check_up()?;
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let listed = inside.map(|(path, inode)| Listed {
            name: path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned(),
            bytes: state.files[inode].now.len() as u64,
        });
        Ok(listed.collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let is_stopped = state.begin()?;
        if state.is_sync_failing() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        state.end(is_stopped)?;
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.plan.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let state = self.0.lock();
        state.check_up()?;
        if !state.locks.lock().insert(path.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held { locks: state.locks.clone(), path: path.into() }))
    }
}

struct Held {
    locks: Arc<Mutex<BTreeSet<PathBuf>>>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.lock().remove(&self.path);
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    is_direct: bool,
    is_readonly: bool,
}

impl MemoryFile {
    fn change<T>(&self, length: usize, apply: impl FnOnce(&mut Inode) -> T) -> io::Result<(T, bool)> {
        assert!(!self.is_readonly, "the file was opened to read");
        let mut state = self.disk.0.lock();
        let is_stopped = state.begin()?;
        state.check_room(self.inode, length)?;
        let file = state.files.get_mut(&self.inode).expect("an open file exists");
        let result = apply(file);
        state.end(is_stopped)?;
        Ok((result, is_stopped))
    }
}

impl File for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        state.check_up()?;
        let file = &state.files[&self.inode].now;
        let rest = file.get(at as usize..).unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        state.reads += u64::from(read > 0);
        state.bytes_read += read as u64;
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut bytes = bytes;
        {
            let mut state = self.disk.0.lock();
            state.writes += 1;
            let blocks = bytes.len() / BLOCK_BYTES;
            if state.plan.has_short_writes && state.writes.is_multiple_of(3) && blocks > 1 {
                bytes = &bytes[..blocks / 2 * BLOCK_BYTES];
            }
            if let Some(capacity) = state.plan.capacity.filter(|_| !self.is_direct) {
                let end = state.files[&self.inode].now.len() as u64 + capacity.saturating_sub(state.used());
                if at < end && end < at + bytes.len() as u64 {
                    bytes = &bytes[..(end - at) as usize];
                }
            }
            if self.is_direct {
                assert!(at.is_multiple_of(BLOCK_BYTES as u64), "a direct write is aligned in the file");
                assert!(bytes.len().is_multiple_of(BLOCK_BYTES), "a direct write is of whole blocks");
                assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0, "a direct write is aligned in memory");
            }
        }
        let at = at as usize;
        self.change(at + bytes.len(), |file| {
            let change = Change::Write { at, bytes: bytes.to_vec(), is_direct: self.is_direct };
            change.apply(&mut file.now);
            file.unsynced.push(change);
        })?;
        if self.is_direct {
            let mut state = self.disk.0.lock();
            if state.is_sync_failing() {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let file = state.files.get_mut(&self.inode).expect("an open file exists");
            if let Some(change) = file.unsynced.pop() {
                change.apply(&mut file.durable);
            }
        }
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let is_stopped = state.begin()?;
        let is_failing = state.is_sync_failing();
        state.end(is_stopped)?;
        let file = state.files.get_mut(&self.inode).expect("an open file exists");
        let unsynced = std::mem::take(&mut file.unsynced);
        if is_failing {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        for change in unsynced {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_bytes(bytes)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.change(bytes as usize, |file| {
            let change = Change::Length(bytes as usize);
            change.apply(&mut file.now);
            file.unsynced.push(change);
        })?;
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        state.check_up()?;
        Ok(state.files[&self.inode].now.len() as u64)
    }

    fn is_synced_by_write(&self) -> bool {
        self.is_direct
    }
}

/// Numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound - 1`; 0 for 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}
