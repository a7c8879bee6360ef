//! A null broker as a child process, so that its CPU time is its own.

use super::{driver::Target, failure::Failure, url::Url};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Runs until dropped.
pub(super) struct NullProcess {
    child: Child,
    url: Url,
}

impl NullProcess {
    /// With `log_dir` it syncs to a file there before it confirms.
    pub(super) fn start(log_dir: Option<&Path>) -> Result<Self, Failure> {
        let doing = "starting a null broker";
        let program = std::env::current_exe().map_err(Failure::io(doing))?;
        let mut command = Command::new(program);
        command.args(["bench", "null", "--with-parent"]);
        if let Some(dir) = log_dir {
            command.arg("--sync").arg("--dir").arg(dir);
        }
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().map_err(Failure::io(doing))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(Failure::io(doing))?;
        }
        match line.trim().parse() {
            Ok(url) => Ok(Self { child, url }),
            Err(reason) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Failure::protocol(format!("{doing}: it said {line:?}: {reason}")))
            }
        }
    }

    pub(super) fn target(&self) -> Target {
        Target { url: self.url.clone(), pid: Some(self.child.id()) }
    }
}

impl Drop for NullProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
