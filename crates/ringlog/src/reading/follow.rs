//! All records from a position on, and those that come.

#[cfg(feature = "async")]
use core::future::poll_fn;
#[cfg(feature = "async")]
use core::task::{Context, Poll};
use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use buffer_ring::DurableWatch;

use super::following::{Following, Next, Reading};
use super::forward::Shown;
use super::origin::Origin;
use crate::Lsn;
use crate::OpenError;
use crate::log::Error;
use crate::recovery::{Item, Record};
#[cfg(feature = "async")]
use crate::tasks::Answer;

/// Until where a reader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upto {
    /// What is on stable storage: no crash takes back what was read.
    Durable,
    /// What was appended: soon after that, and perhaps before it is durable. After a crash the log may go on
    /// differently.
    Staged,
}

/// All records from a position on, and then those that come. Made by [`Log::follow`](crate::Log::follow),
/// [`Cursor::follow`](crate::Cursor::follow) and [`Reader::follow`](crate::Reader::follow).
///
/// What is still in memory comes from there, without a buffer being sealed or a file read; a follower that is behind
/// reads files, verified and a mebibyte at a time, until it has caught up. A [`Record`] borrows its bytes from it.
/// Records come in the order of their ends, as in a [`Scan`](crate::Scan), each one once, and none before all that come
/// before it.
///
/// It holds its share of the log, like a [`Writer`](crate::Writer): what ends it is [`Log::close`](crate::Log::close).
/// While it lives, [trimming](crate::Log::trim) leaves what it has not given yet, unless it is
/// [`unpinned`](Self::unpinned). After an error of a batch it goes on: behind the damage, or where the log begins.
#[derive(Debug)]
pub struct Follow {
    /// Here, unless a thread reads a file for a task.
    following: Option<Box<Following>>,
    /// Whose event it is.
    watch: Option<DurableWatch>,
    #[cfg(feature = "async")]
    away: Option<Away>,
}

/// It comes back with what was read.
#[cfg(feature = "async")]
#[derive(Debug)]
struct Away {
    answer: Answer<Box<Following>>,
    origin: Origin,
    position: Lsn,
    upto: Upto,
}

impl Follow {
    pub(crate) fn new(origin: Origin, from: Lsn, upto: Upto) -> Self {
        Self {
            following: Some(Box::new(Following::new(origin, from, upto))),
            watch: None,
            #[cfg(feature = "async")]
            away: None,
        }
    }

    /// What follows. A read that a future has begun, and was dropped, is waited for.
    pub(super) fn here(&mut self) -> &mut Following {
        #[cfg(feature = "async")]
        if let Some(Away { answer, origin, position, upto }) = self.away.take() {
            self.following = Some(match origin.check() {
                Ok(()) => answer.wait(),
                // The thread that has it is not in a forked child.
                Err(_forked) => Box::new(Following::new(origin, position, upto)),
            });
        }
        self.following.as_mut().expect("it is here, or away")
    }

    /// Lets [trimming](crate::Log::trim) pass: what is trimmed before the follower has come to it is answered with
    /// [`Error::Trimmed`], after which it goes on where the log begins.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.here().unpin();
        self
    }

    /// Behind the record that was given last; of a group, if all of it was given. Another follower goes on from here.
    #[must_use]
    pub fn position(&self) -> Lsn {
        match &self.following {
            Some(following) => following.position(),
            #[cfg(feature = "async")]
            None => self.away.as_ref().expect("it is here, or away").position,
            #[cfg(not(feature = "async"))]
            None => unreachable!("it is here"),
        }
    }

    /// Returns the next record, and waits for it; `None`: the log was closed, and all was given. Passes over gaps and
    /// truncations: see [`next_item`](Self::next_item).
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`]: the log has failed, and all that can be read was given. [`Error::Damaged`],
    /// [`Error::Trimmed`] and [`Error::File`], after which the next call goes on. [`Error::NotAppended`] if it was made
    /// for a position behind the log's end, [`Error::InsideRecord`] for one inside of a record.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows from it")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        self.next_record(None)
    }

    /// The same, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::TimedOut`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Record<'_>>, Error> {
        self.next_record(Instant::now().checked_add(timeout))
    }

    /// Returns the next record, if it is there, without waiting for it.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.here().step(Reading::Allowed)? {
                Next::Shown(Shown::Record) => return Ok(Some(self.here().record())),
                Next::Shown(_) => {}
                _ => return Ok(None),
            }
        }
    }

    /// Returns the next record, or what else a reader that keeps a copy has to know: a gap, or that records which it
    /// may have been given are [truncated](Item::Truncated). Waits for it; `None`: the log was closed, and all was
    /// given.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.wait(None)?.map(|shown| self.here().item(shown)))
    }

    /// The same, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::TimedOut`].
    pub fn next_item_timeout(&mut self, timeout: Duration) -> Result<Option<Item<'_>>, Error> {
        Ok(self.wait(Instant::now().checked_add(timeout))?.map(|shown| self.here().item(shown)))
    }

    /// An `eventfd(2)` for an event loop (`poll`, `epoll`, io_uring): readable after more has become durable, and after
    /// the log has ended or failed. After the first call, and each time it is readable, read its 8 bytes, and then
    /// [`try_next`](Self::try_next) until there is nothing. It is non-blocking, and closed with the follower. What is
    /// only staged does not make it readable.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the process has no descriptor left, and for a log that is only read: no process says when it
    /// writes.
    pub fn eventfd(&mut self) -> Result<BorrowedFd<'_>, Error> {
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.here().durable_watch()?,
        };
        let eventfd = self.watch.insert(watch).eventfd();
        Ok(eventfd.map_err(OpenError::io("make an event of", "the log"))?)
    }

    fn next_record(&mut self, deadline: Option<Instant>) -> Result<Option<Record<'_>>, Error> {
        loop {
            match self.wait(deadline)? {
                None => return Ok(None),
                Some(Shown::Record) => return Ok(Some(self.here().record())),
                Some(_) => {}
            }
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Shown>, Error> {
        let following = self.here();
        for waits in 0.. {
            // In this order: what is there when the log ends is given.
            let (seen, ending) = (following.progress(), following.ending());
            if let Next::Shown(shown) = following.step(Reading::Allowed)? {
                return Ok(Some(shown));
            }
            if let Some(ending) = ending {
                return ending.map(|()| None);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::TimedOut);
            }
            following.await_progress(seen, waits, deadline);
        }
        unreachable!("it waits again")
    }
}

#[cfg(feature = "async")]
impl Follow {
    /// [`next`](Self::next) as a future, for any runtime. Dropped before it is ready it has taken nothing. Files are
    /// read by a thread of the log.
    ///
    /// ```
    /// use ringlog::{Log, Upto};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (log, _) = Log::options().in_memory().segment_size(1 << 20).ring(4, 64 << 10).open("")?;
    /// let mut follow = log.follow(log.end(), Upto::Durable);
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let reader = std::thread::spawn(move || {
    ///     runtime.block_on(async { follow.next_async().await.map(|record| record.map(|record| record.kind)) })
    /// });
    /// let at = log.append(7, b"one")?;
    /// log.wait_durable(at.end)?;
    /// assert_eq!(reader.join().unwrap()?, Some(7));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next), and [`Error::File`] if a thread that is needed cannot be started.
    pub async fn next_async(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            match poll_fn(|context| self.poll_shown(context)).await? {
                None => return Ok(None),
                Some(Shown::Record) => return Ok(Some(self.here().record())),
                Some(_) => {}
            }
        }
    }

    /// [`next_item`](Self::next_item) as a future; see [`next_async`](Self::next_async).
    ///
    /// # Errors
    ///
    /// Those of [`next_async`](Self::next_async).
    pub async fn next_item_async(&mut self) -> Result<Option<Item<'_>>, Error> {
        let shown = poll_fn(|context| self.poll_shown(context)).await?;
        Ok(shown.map(|shown| self.here().item(shown)))
    }

    pub(super) fn poll_shown(&mut self, context: &Context<'_>) -> Poll<Result<Option<Shown>, Error>> {
        let mut is_awaited = false;
        loop {
            if let Some(away) = &self.away {
                away.origin.check()?;
                let Some(following) = away.answer.take(context.waker()) else { return Poll::Pending };
                (self.following, self.away) = (Some(following), None);
            }
            let following = self.following.as_mut().expect("it is here");
            // In this order: what is there when the log ends is given.
            let (seen, ending) = (following.progress(), following.ending());
            match following.step(Reading::Elsewhere)? {
                Next::Shown(shown) => return Poll::Ready(Ok(Some(shown))),
                Next::Read => self.read_elsewhere()?,
                Next::Wait | Next::Soon if ending.is_some() => {
                    return Poll::Ready(ending.unwrap_or(Ok(())).map(|()| None));
                }
                // It is looked at again after a while, whatever happens.
                Next::Wait if !following.origin().is_open() => {
                    following.wake(None, context.waker())?;
                    return Poll::Pending;
                }
                // Once more: what came between the look and this wakes no task.
                Next::Wait if !is_awaited => {
                    following.wake(Some(seen), context.waker())?;
                    is_awaited = true;
                }
                Next::Wait => return Poll::Pending,
                Next::Soon => {
                    following.wake(None, context.waker())?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Has a thread of the log read what comes next.
    fn read_elsewhere(&mut self) -> Result<(), Error> {
        let mut following = self.following.take().expect("it is here");
        let (position, upto, origin) = (following.position(), following.upto(), following.origin().clone());
        let answer = origin.reads().start(move || {
            following.read();
            following
        });
        self.away = Some(Away { answer: answer?, origin, position, upto });
        Ok(())
    }
}
