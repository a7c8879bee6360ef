//! Checkpoints: what a commit covers, and the attachment that it brings along.
//!
//! ```text
//! attachment file   magic "TernAtt\n", format u32, crc-32c of the body u32, number u64,
//!                   body bytes u64, 0 u32, crc-32c of the 36 bytes before u32; body
//! ```
//! Numbers are little-endian.

use super::{
    coding::{Reader, checksum},
    error::Error,
    folder::{Folder, read_exact_at},
};

/// Bytes that a note may have at most: more belongs into an attachment.
pub const NOTE_BYTES_MAX: usize = 64 << 10;
/// Bytes that an attachment may have at most.
pub const ATTACHMENT_BYTES_MAX: u64 = 1 << 30;

const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TernAtt\n";
const HEADER_BYTES: usize = 40;

/// What a commit says of the log, all of it opaque to the index.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewCheckpoint<'a> {
    /// The position up to which the log is in the index after this commit.
    pub covered: u64,
    /// A few bytes to be kept with it, at most [`NOTE_BYTES_MAX`].
    pub note: &'a [u8],
    /// A snapshot of whatever else the log holds, at most [`ATTACHMENT_BYTES_MAX`]; `None` leaves
    /// the attachment of the checkpoint before in force.
    pub attachment: Option<&'a [u8]>,
}

/// A checkpoint as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Counts the commits from 1. The number of a lost checkpoint is used again.
    pub number: u64,
    /// [`NewCheckpoint::covered`].
    pub covered: u64,
    /// [`NewCheckpoint::note`].
    pub note: Vec<u8>,
    /// `covered` of the checkpoint before: the log must be kept from here on, because a damaged
    /// latest checkpoint falls back to that one. `None`: there was none, keep the log from its start.
    pub previous_covered: Option<u64>,
    pub(super) attachment: Option<Attachment>,
}

/// Which attachment belongs to a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

pub(super) fn attachment_name(number: u64) -> String {
    format!("attachment-{number:016x}")
}

/// Writes and syncs an attachment. The second error is that of a sync, which is final.
pub(super) fn write_attachment(folder: &Folder, number: u64, body: &[u8]) -> Result<Result<Attachment, Error>, Error> {
    let name = attachment_name(number);
    let crc = checksum(body);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(FORMAT.to_le_bytes());
    header.extend(crc.to_le_bytes());
    header.extend(number.to_le_bytes());
    header.extend((body.len() as u64).to_le_bytes());
    header.extend([0; 4]);
    header.extend(checksum(&header).to_le_bytes());
    let write = || {
        let file = folder.create(&name)?;
        file.write_all_at(&header, 0)?;
        file.write_all_at(body, HEADER_BYTES as u64)?;
        Ok(file)
    };
    match write() {
        Err(source) => Ok(Err(Error::io("write", &name, source))),
        Ok(file) => {
            file.sync_data().map_err(|source| Error::io("sync", &name, source))?;
            Ok(Ok(Attachment { number, bytes: body.len() as u64, crc }))
        }
    }
}

/// Reads an attachment and checks it.
pub(super) fn read_attachment(folder: &Folder, attachment: &Attachment) -> Result<Vec<u8>, Error> {
    let name = attachment_name(attachment.number);
    let broken = |offset, what| Error::corrupt(&name, offset, what);
    let failed = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::corrupt(&name, 0, "the file is missing")
        } else {
            Error::io("read", &name, source)
        }
    };
    let file = folder.open_file(&name).map_err(failed)?;
    let length = file.bytes().map_err(failed)?;
    let is_length_right = attachment.bytes.checked_add(HEADER_BYTES as u64) == Some(length);
    if !is_length_right || attachment.bytes > ATTACHMENT_BYTES_MAX {
        return Err(broken(0, "the file has not the length that it was written with"));
    }
    let mut header = [0; HEADER_BYTES];
    read_exact_at(&*file, &mut header, 0).map_err(failed)?;
    if header[..8] != MAGIC || header[36..] != checksum(&header[..36]).to_le_bytes() {
        return Err(broken(0, "the header of the attachment is damaged"));
    }
    let mut reader = Reader::new(&header[8..]);
    let format = reader.u32().unwrap_or_default();
    if format > FORMAT {
        return Err(Error::NewerFormat { file: name, found: format, known: FORMAT });
    }
    if (reader.u32(), reader.u64()) != (Some(attachment.crc), Some(attachment.number)) {
        return Err(broken(0, "this is not the attachment that the manifest names"));
    }
    let mut body = vec![0; attachment.bytes as usize];
    read_exact_at(&*file, &mut body, HEADER_BYTES as u64).map_err(failed)?;
    if checksum(&body) != attachment.crc {
        return Err(broken(HEADER_BYTES as u64, "the checksum of the attachment does not match"));
    }
    Ok(body)
}
