//! A log that this process only reads: it takes no lock, and writes nothing. Another process may write to it meanwhile.

use core::ops::{Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use buffer_ring::ring_io::fork::Process;
use buffer_ring::ring_io::locks::Mutex;

use super::batch::BatchReader;
use super::follow::{Follow, Upto};
use super::origin::Origin;
use super::scan::Scan;
use crate::directory::AnyDirectory;
use crate::error::OpenError;
use crate::format::Manifest;
use crate::log::{Error, Options};
use crate::manifest::ManifestFile;
use crate::recovery::{Report, Verify, look};
#[cfg(feature = "async")]
use crate::tasks::{Pace, Reads, Tasks};
use crate::{Lsn, Recovery};

/// A log that is only read: without a lock, beside its writer, and also if it is damaged. Cheap to clone. Made by
/// [`Options::open_read_only`].
///
/// It shows the log as it was when it was opened, or [refreshed](Self::refresh). Of a log that another process writes
/// to, that is all that is proven to have been durable then: up to the promise of its newest batch, which is some
/// batches behind the writer. What the writer trims meanwhile is gone: [`Error::Trimmed`](crate::Error::Trimmed). Of a
/// damaged log, what lies behind the damage can be read too, but truncations that lie there are seen only by a
/// [follower](Self::follow), when it comes to them.
#[derive(Clone, Debug)]
pub struct Reader {
    log: Arc<ReadOnly>,
}

/// What the clones of a reader share.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    process: Process,
    directory: AnyDirectory,
    max_record: usize,
    seen: Mutex<View>,
    #[cfg(feature = "async")]
    tasks: Tasks,
    #[cfg(feature = "async")]
    reads: Reads,
}

/// The log at one moment.
#[derive(Debug)]
struct View {
    manifest: Arc<Manifest>,
    report: Arc<Report>,
    /// Also behind damage, as far as it is proven that there was something.
    durable: u64,
}

impl View {
    fn of(directory: &AnyDirectory) -> Result<Self, OpenError> {
        let (report, manifest) = look(directory, &Verify::new().fast(true))?;
        let durable = report.end.max(report.promised).get();
        Ok(Self { manifest: Arc::new(manifest), report: Arc::new(report), durable })
    }
}

impl Options {
    /// Opens the log in the directory `path` to be read, by any number of processes, also while another one writes to
    /// it. No lock is taken, and nothing is changed. Of the options only [`max_record`](Self::max_record) and
    /// [`directory`](Self::directory) matter.
    ///
    /// ```
    /// use ringlog::Log;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("my-log");
    /// let (log, _) = Log::options().open(&path)?;
    /// log.append(1, b"a record")?;
    /// log.close()?;
    /// let mut scan = Log::options().open_read_only(&path)?.scan(..);
    /// assert_eq!(scan.next()?.map(|record| record.payload), Some(&b"a record"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`OpenError`]: there is no log, or none that can be read. That it is damaged is no error, but said by the
    /// [report](Reader::report).
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Reader, OpenError> {
        let max_record = self.replay.max_record;
        let directory = self.must_exist(true).directory_at(path.as_ref())?;
        let log = ReadOnly {
            process: Process::here(),
            seen: Mutex::new(View::of(&directory)?),
            directory,
            max_record,
            #[cfg(feature = "async")]
            tasks: Tasks::default(),
            #[cfg(feature = "async")]
            reads: Reads::default(),
        };
        Ok(Reader { log: Arc::new(log) })
    }
}

impl Reader {
    /// What was found when the log was opened, or refreshed. Like [`Options::open`], that begins at the last segment
    /// before which everything is proven to have been durable.
    #[must_use]
    pub fn report(&self) -> Recovery {
        Report::clone(&self.log.seen.lock().report)
    }

    /// Looks at the log again: at what was appended, truncated and trimmed since.
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_read_only`]; what was seen before stays.
    pub fn refresh(&self) -> Result<(), OpenError> {
        self.log.check().map_err(|_| OpenError::Option("a reader belongs to the process that made it"))?;
        let view = View::of(&self.log.directory)?;
        let mut seen = self.log.seen.lock();
        *seen = View { durable: view.durable.max(seen.durable), ..view };
        Ok(())
    }

    /// Where the log begins.
    #[must_use]
    pub fn first(&self) -> Lsn {
        Lsn::new(self.log.first())
    }

    /// Where it ends: behind that, nothing is proven to be durable.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn::new(self.log.durable())
    }

    /// All records that end behind `from`, and those that become durable: see [`Follow`]. It looks at the files every
    /// few milliseconds, and sees a record when a later batch proves that it is durable; it never ends by itself. A
    /// [truncation](crate::Log::truncate) made after the log was opened here is seen when it is come to.
    #[must_use]
    pub fn follow(&self, from: Lsn) -> Follow {
        Follow::new(Origin::ReadOnly(Arc::clone(&self.log)), from, Upto::Durable)
    }

    /// The records of a range, in the order of the log: see [`Scan`].
    #[must_use]
    pub fn scan(&self, range: impl RangeBounds<Lsn>) -> Scan {
        Scan::new(Origin::ReadOnly(Arc::clone(&self.log)), &range)
    }
}

impl ReadOnly {
    #[cfg(feature = "async")]
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    #[cfg(feature = "async")]
    pub(crate) fn wake_soon(&self, waker: core::task::Waker) -> Result<(), OpenError> {
        self.tasks.add(None, waker, || Pace::Others)
    }

    pub(crate) fn directory(&self) -> &AnyDirectory {
        &self.directory
    }

    pub(crate) fn manifest(&self) -> Arc<Manifest> {
        Arc::clone(&self.seen.lock().manifest)
    }

    pub(crate) fn max_record(&self) -> usize {
        self.max_record
    }

    pub(crate) fn first(&self) -> u64 {
        self.seen.lock().manifest.trim
    }

    /// Where the last batch ends that is known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        self.seen.lock().durable
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.process.is_here() { Ok(()) } else { Err(Error::Forked) }
    }

    /// Reads `MANIFEST` again.
    pub(crate) fn renew(&self) -> Result<(), OpenError> {
        let file = ManifestFile::read(&self.directory, false)?.ok_or(OpenError::Missing)?;
        let mut seen = self.seen.lock();
        if *file.content() != *seen.manifest {
            seen.manifest = Arc::new(file.content().clone());
            seen.durable = seen.durable.max(seen.manifest.promise());
        }
        Ok(())
    }

    /// Looks what has become durable since, from the batch at `at` on, the first one that is not known to be.
    pub(crate) fn look_on(&self, at: u64) -> Result<u64, OpenError> {
        self.renew()?;
        let seen = &mut *self.seen.lock();
        // A new one: a file may have been made, or used again, since the last look.
        let (mut next, mut headers) = (at, BatchReader::new(0));
        while let Some(header) = headers.header(&self.directory, &seen.manifest, next)? {
            seen.durable = seen.durable.max(seen.manifest.promise_of(&header));
            next = seen.manifest.behind(&header);
        }
        Ok(seen.durable)
    }

    pub(crate) fn voids(&self) -> Vec<Range<Lsn>> {
        self.seen.lock().report.void.clone()
    }
}
