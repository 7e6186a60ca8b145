//! Cursors: positions that the log keeps by name, and trims no further than.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use super::own::Own;
use super::{Error, Log};
use crate::Lsn;
use crate::format::{REMOVED, RecordType};
use crate::reading::{Follow, Upto};

/// A position with a name, kept in the log: how far a consumer of its records has come.
///
/// A [trim](Log::trim) gives up nothing behind the position that a crash would go back to, so that all records that
/// begin there or behind it are still there when the consumer goes on, after whatever has happened. Positions move as
/// records of the log do: what [`advance`](Self::advance) says is durable with whatever is durable next, and a crash
/// may go back to an older position. A consumer may see some records twice, and misses none.
///
/// A handle holds its share of the log, like a [`Writer`](crate::Writer). All handles of one name are the same cursor.
///
/// ```
/// use ringlog::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("my-log");
/// let (log, _) = Log::options().open(&path)?;
/// let cursor = log.cursor("mailer")?;
/// assert_eq!(cursor.position(), log.first());
/// let sent = log.append(1, b"a letter")?;
/// let at = cursor.advance(sent.end)?;
/// log.wait_durable(at.end)?;
/// drop((cursor, log));
///
/// let (log, recovery) = Log::options().open(&path)?;
/// assert_eq!(recovery.cursor("mailer"), Some(sent.end));
/// assert_eq!(log.cursor("mailer")?.position(), sent.end);
/// // No further than the cursor.
/// let end = log.sync()?;
/// assert_eq!(log.trim(end)?.held_by.as_deref(), Some("mailer"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cursor {
    log: Log,
    name: Arc<str>,
}

impl Log {
    /// The cursor with this name. One that is not there yet is made, at [`first`](Self::first); that is a record, and
    /// holds trims back at once. A name like any string, also one that has a [value](Self::set_meta): they are apart.
    ///
    /// # Errors
    ///
    /// For a new one, [`Error::TooLarge`] if it does not fit a buffer, or all names, values and positions take more
    /// than 64 KiB together, 8 bytes for each position; and those of [`append`](Self::append). [`Error::Forked`].
    pub fn cursor(&self, name: &str) -> Result<Cursor, Error> {
        self.change(|own| {
            if own.values.cursors.get(name.as_bytes()).is_none() {
                let first = own.first(self);
                self.check_name(name.len() + 8, own.values.len())?;
                self.move_cursor(own, name, Some(first))?;
            }
            Ok(())
        })?;
        Ok(Cursor { log: self.clone(), name: name.into() })
    }

    /// The names of all cursors, and the position of each, durable or not, in the order of the names. In a forked child
    /// there are none.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, Lsn)> {
        if self.inner.check_process().is_err() {
            return Vec::new();
        }
        let own = self.inner.own.lock();
        let cursors = own.values.cursors.iter();
        cursors.map(|(name, at)| (String::from_utf8_lossy(name).into_owned(), Lsn::new(*at))).collect()
    }

    /// Has the cursor stand at `to`, or nowhere.
    fn move_cursor(&self, own: &mut Own, name: &str, to: Option<Lsn>) -> Result<Range<Lsn>, Error> {
        let kind = if to.is_some() { 0 } else { REMOVED };
        let position = to.unwrap_or_default().to_bytes();
        let placed = self.try_place(RecordType::Cursor, kind, [&position[..], name.as_bytes()].into_iter())?;
        let cursors = &mut own.values.cursors;
        cursors.set(name.as_bytes(), to.map(Lsn::get), placed.start.get(), self.durable().get());
        Ok(placed)
    }
}

impl Cursor {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where it stands, durably or not. If it was removed, and in a forked child, that is where the log begins.
    #[must_use]
    pub fn position(&self) -> Lsn {
        if self.log.inner.check_process().is_err() {
            return self.log.first();
        }
        let own = self.log.inner.own.lock();
        let position = own.values.cursors.get(self.name.as_bytes());
        position.map_or_else(|| own.first(&self.log), |position| Lsn::new(*position))
    }

    /// Moves it to `to`: behind a record that was dealt with. Returns the range of the record that says so; it is
    /// durable like any other, and what is trimmed until then is what the older position allows.
    ///
    /// Trims keep the records that *begin* at the position or behind it. One longer than a buffer may begin before
    /// others that it ends behind: then stay in front of it until it has been dealt with.
    ///
    /// It may also go backwards, to see records again, as far as the log goes. Of several handles the last call counts.
    ///
    /// # Errors
    ///
    /// [`Error::NotAppended`] if `to` is beyond the end of the log, [`Error::Trimmed`] if it is before its beginning,
    /// [`Error::CursorRemoved`], and those of [`append`](Log::append). It stands then where it stood before.
    pub fn advance(&self, to: Lsn) -> Result<Range<Lsn>, Error> {
        self.log.change(|own| {
            if own.values.cursors.get(self.name.as_bytes()).is_none() {
                return Err(Error::CursorRemoved);
            }
            let (first, end) = (own.first(&self.log), self.log.end());
            if to > end {
                return Err(Error::NotAppended { address: to, end });
            }
            if to < first {
                return Err(Error::Trimmed { first });
            }
            self.log.move_cursor(own, &self.name, Some(to))
        })
    }

    /// All records from its position on, and those that come. It moves only when it is [advanced](Self::advance): to
    /// [`Follow::position`], when what was given has been dealt with.
    #[must_use]
    pub fn follow(&self, upto: Upto) -> Follow {
        self.log.follow(self.position(), upto)
    }

    /// Removes it, for all handles and for good: it holds no trim back when the record that says so is durable. Nothing
    /// is done if it was removed before.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Log::append).
    pub fn remove(self) -> Result<(), Error> {
        self.log.change(|own| match own.values.cursors.get(self.name.as_bytes()) {
            Some(_) => self.log.move_cursor(own, &self.name, None).map(drop),
            None => Ok(()),
        })
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("name", &self.name).field("position", &self.position()).finish_non_exhaustive()
    }
}
