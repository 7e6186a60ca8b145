//! What a `QuikIO` for a log in segments can do besides.

use crate::files::{Segment, SegmentFile};
use crate::{DeviceError, FileError, Operation, QuikIO, SegmentFault, events};

impl QuikIO {
    /// Returns how many bytes of the log each segment holds; `None` for a log in one file.
    #[must_use]
    pub fn segment_size(&self) -> Option<u64> {
        self.files().segments().ok().map(|segments| segments.size())
    }

    /// Adds a segment to a log that [is in such](crate::QuikIOOptions::segments), also while it is written: the next
    /// one, or any other that is not there. Writes that have waited for it go out, in this thread.
    ///
    /// The file, its header and its name in its directory must be on stable storage already: a write that goes out with
    /// it may be acknowledged as the last of the segment before, and recovery then expects this one.
    ///
    /// # Errors
    ///
    /// As [`QuikIOOptions::segments`](crate::QuikIOOptions::segments), for this file; [`SegmentFault::There`] and
    /// [`SegmentFault::Removed`] for a number that was added before; [`FileError::NotSegmented`]; or
    /// [`FileError::Forked`]. Nothing has changed then.
    pub fn add_segment(&self, number: u64, file: impl Into<SegmentFile>) -> Result<(), FileError> {
        let _held = events::hold();
        self.check_process()?;
        let segments = self.files().segments()?;
        let (segment, lock) = Segment::open(segments.size(), number, file.into())?;
        if segment.storage().is_synced() && !self.synced {
            return Err(FileError::Segment { number, fault: SegmentFault::Synced });
        }
        segments.add(segment, lock, self.backend())
    }

    /// Says that segment `number`, and those behind it, will not come: writes that wait for one come back untried, with
    /// an error that [names it](crate::DeviceError::missing_segment), and so do those that come later. It lasts as long
    /// as the queue.
    ///
    /// # Errors
    ///
    /// [`FileError::NotSegmented`] or [`FileError::Forked`].
    pub fn give_up_segments(&self, number: u64) -> Result<(), FileError> {
        let _held = events::hold();
        self.check_process()?;
        let start = number.saturating_mul(self.files().segments()?.size());
        let failure = DeviceError::no_segment(Operation::Write, start..start, number);
        self.files().fail(&failure, self.backend());
        Ok(())
    }

    /// Removes the segments with smaller numbers from the log, unlocks their files, and returns them, by number: all
    /// or, with an error, none.
    ///
    /// No number below this one can be added again. What was removed may be deleted, or renamed and added as a later
    /// segment.
    ///
    /// # Errors
    ///
    /// [`FileError::Segment`]: one is [in use](SegmentFault::InUse), or has bytes that are [not on stable
    /// storage](SegmentFault::Unsynced), or `number` is behind the [last](SegmentFault::Last);
    /// [`FileError::NotSegmented`]; or [`FileError::Forked`].
    pub fn remove_segments_before(&self, number: u64) -> Result<Vec<(u64, SegmentFile)>, FileError> {
        let _held = events::hold();
        self.check_process()?;
        let segments = self.files().segments()?;
        let removed = segments.remove_before(number, self.backend())?;
        Ok(removed.into_iter().map(|segment| (segment.number, segment.handed_back())).collect())
    }
}
