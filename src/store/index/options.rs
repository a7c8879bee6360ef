//! Settings of the index.

/// How the index writes and merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes per second that merging may write. More leaves less of the disk to the log; less lets
    /// the list of runs grow longer. Ignored while there are more than `runs_count_soft` runs to
    /// merge. 0 is without limit. Default 32 MiB.
    pub merge_bytes_per_sec: u64,
    /// Runs of one level that are merged into one of the next. More writes less and reads more.
    /// Default 8, bounds 2 to 32.
    pub fan_out: usize,
    /// Runs not yet merged (or twice `fan_out`, if it is more) above which a commit waits for the
    /// merging thread, at most `commit_wait_ms_max`. Default 32.
    pub runs_count_soft: usize,
    /// Milliseconds that one commit waits at most for merging; then it adds to the list all the
    /// same. Default 20.
    pub commit_wait_ms_max: u64,
    /// Bytes after which a merge begins another file. Smaller files free disk sooner, larger ones
    /// are fewer. Default 32 MiB.
    pub run_bytes_max: u64,
    /// Run files, each of them open, above which a group of many small ones is written as fewer
    /// large ones. Default 512.
    pub files_count_max: usize,
    /// Bytes of a manifest above which a commit begins a new one with the state alone; twice that
    /// state, if it is more. Default 1 MiB.
    pub manifest_bytes_max: u64,
    /// Whether a thread merges in the background. Without it the caller calls
    /// [`Index::merge_once`](super::Index::merge_once). Default true.
    pub is_merging_in_background: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            merge_bytes_per_sec: 32 << 20,
            fan_out: 8,
            runs_count_soft: 32,
            commit_wait_ms_max: 20,
            run_bytes_max: 32 << 20,
            files_count_max: 512,
            manifest_bytes_max: 1 << 20,
            is_merging_in_background: true,
        }
    }
}
