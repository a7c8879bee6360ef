//! `tern store backup`: a copy of a data directory, made by the broker that runs on it, or without one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, absolute};

use super::{Backup, layout, print, real};
use crate::admin::wire::{Answer, Request, Verb};
use crate::server::persistence::{prepare_backup, verify_backup};
use crate::store::Store;
use crate::store::index::Index;
use crate::store::survey::{Held, INDEX_FOLDER, LOG_FOLDER};

pub(super) fn run(backup: &Backup) -> Result<u8, String> {
    let to = absolute(&backup.to).map_err(|error| format!("{}: {error}", backup.to.display()))?;
    let layout = layout(&backup.dir)?;
    let index = layout.index.as_deref().ok_or_else(|| format!("{} is no data directory", layout.dir.display()))?;
    match layout.hold(&*real()) {
        Held::Free(_lock) => {
            prepare_backup(&to)?;
            let failed = |error: &dyn std::fmt::Display| format!("cannot copy {}: {error}", layout.dir.display());
            Index::copy(real(), index, &to.join(INDEX_FOLDER)).map_err(|error| failed(&error))?;
            Store::copy(&*real(), &layout.log, &to.join(LOG_FOLDER)).map_err(|error| failed(&error))?;
            verify_backup(&to)?;
        }
        Held::InUse | Held::Unknown => ask(&layout.dir, Verb::Backup { to: to.clone() })?,
    }
    print(&format!("{} is a whole copy of {}; a broker can be started on it\n", to.display(), layout.dir.display()));
    Ok(0)
}

/// Has the broker do it, however long that takes.
fn ask(dir: &Path, verb: Verb) -> Result<(), String> {
    let socket = dir.join("control.sock");
    let failed = |error: std::io::Error| format!("{}: {error}", socket.display());
    let mut stream = UnixStream::connect(&socket).map_err(failed)?;
    let request = serde_json::to_vec(&Request { verb, vhost: "/".into() }).map_err(|error| error.to_string())?;
    stream.write_all(&[&request[..], b"\n"].concat()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(failed)?;
    match serde_json::from_str(&line) {
        Ok(Answer::Ok { .. }) => Ok(()),
        Ok(Answer::Error { error }) => Err(error.message),
        _ => Err(format!("{}: the broker went away", socket.display())),
    }
}
