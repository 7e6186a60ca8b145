//! How logs are opened.

/// How [`RaftLogs`](crate::RaftLogs) are opened. Options of the log are ones of it, too.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) log: ringlog::Options,
    pub(crate) cache: usize,
}

impl Options {
    /// With a log that is opened as `log` says.
    pub fn new(log: ringlog::Options) -> Self {
        Self { log, cache: 32 << 20 }
    }

    /// About how many bytes of the newest entries of all groups stay in memory, the same share for each group: what a
    /// follower that is not far behind is sent needs no file. 32 MiB by default; 0: none. An entry that is appended and
    /// has to be read from a file is made durable first.
    pub fn cache(mut self, bytes: usize) -> Self {
        self.cache = bytes;
        self
    }
}

impl From<ringlog::Options> for Options {
    fn from(log: ringlog::Options) -> Self {
        Self::new(log)
    }
}
