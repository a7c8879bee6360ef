//! Asking for a password: what is typed at a terminal is not shown.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Keeps a terminal from showing what is typed until it is dropped.
pub(super) struct Hidden<Fd: AsFd> {
    terminal: Fd,
    before: Termios,
}

impl<Fd: AsFd> Hidden<Fd> {
    /// `None` if that is no terminal.
    pub(super) fn on(terminal: Fd) -> Option<Self> {
        let before = tcgetattr(&terminal).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&terminal, OptionalActions::Flush, &hidden).ok()?;
        Some(Self { terminal, before })
    }
}

impl<Fd: AsFd> Drop for Hidden<Fd> {
    fn drop(&mut self) {
        // A terminal that went away shows nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Keeps what is typed on standard input from being shown, if it is a terminal.
pub(super) fn hide_input() -> Option<Hidden<io::Stdin>> {
    io::stdin().is_terminal().then(io::stdin).and_then(Hidden::on)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn terminal_shows_nothing_until_the_password_is_read() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let terminal = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let shows = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(shows());
        let hidden = Hidden::on(&terminal).unwrap();
        assert!(!shows());
        drop(hidden);
        assert!(shows());
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(Hidden::on(reader).is_none());
    }
}
