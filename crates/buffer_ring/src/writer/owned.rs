//! A writer that owns its share of the ring.

use core::fmt;
use core::time::Duration;
use std::io::IoSlice;
use std::sync::Arc;

use super::{Why, Writer};
use crate::error::{AppendError, RingError};
use crate::extent::{Extent, Placement};
use crate::reservation::Reservation;
use crate::ring::BufferRing;
use crate::ring::append::Patience;
use crate::ring::drive::deadline;

self_cell::self_cell! {
    struct Parts {
        owner: Arc<BufferRing>,
        #[covariant]
        dependent: Writer,
    }
}

/// A [`Writer`] that owns its share of the ring: it has no lifetime, and may live in a struct beside the ring, or in a
/// task.
///
/// The ring ends with the last that has a share of it. Made by [`BufferRing::writer_owned`].
///
/// ```
/// # use std::sync::Arc;
/// # use buffer_ring::{AppendError, BufferRing, BufferRingOptions, OwnedWriter};
/// struct Log {
///     ring: Arc<BufferRing>,
///     writer: OwnedWriter,
/// }
///
/// # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 65536, ..Default::default() });
/// let ring = Arc::new(ring);
/// let mut log = Log { writer: ring.writer_owned(), ring };
/// log.writer.append(b"a record")?;
///
/// let mut writer = log.ring.writer_owned();
/// let extent = std::thread::spawn(move || writer.append(b"another")).join().unwrap()?;
/// # assert_eq!(extent.len(), 7);
/// # Ok::<(), AppendError>(())
/// ```
pub struct OwnedWriter(Parts);

impl BufferRing {
    /// A new writer that owns its share of the ring.
    #[must_use]
    pub fn writer_owned(self: &Arc<Self>) -> OwnedWriter {
        OwnedWriter(Parts::new(Arc::clone(self), |ring| ring.writer()))
    }
}

/// Appends that the inner writer does.
macro_rules! delegate {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("See [`Writer::", stringify!($name), "`].")]
        ///
        /// # Errors
        ///
        #[doc = concat!("Those of [`Writer::", stringify!($name), "`].")]
        #[inline]
        pub fn $name(&mut self, $($argument: $type),*) -> Result<Extent, AppendError> {
            self.with(|writer| writer.$name($($argument),*))
        }
    )*};
}

impl OwnedWriter {
    /// The ring that it writes to.
    #[must_use]
    pub fn ring(&self) -> &Arc<BufferRing> {
        self.0.borrow_owner()
    }

    delegate! {
        append(payload: &[u8]);
        try_append(payload: &[u8]);
        append_timeout(payload: &[u8], timeout: Duration);
        append_vectored(parts: &[IoSlice<'_>]);
        append_with(len: usize, fill: impl FnOnce(Placement, &mut [u8]));
        append_filled(len: usize, fill: impl FnOnce(Placement, &mut [u8]) + Copy);
        append_durable(payload: &[u8]);
        append_durable_vectored(parts: &[IoSlice<'_>]);
    }

    /// See [`BufferRing::wait_durable`].
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::wait_durable`].
    pub fn wait_durable(&self, address: u64) -> Result<(), RingError> {
        self.ring().wait_durable(address)
    }

    /// See [`Writer::reserve`].
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::reserve`].
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::ForRoom)
    }

    /// See [`Writer::try_reserve`].
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::try_reserve`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::Never)
    }

    /// See [`Writer::reserve_timeout`].
    ///
    /// # Errors
    ///
    /// Those of [`BufferRing::reserve_timeout`].
    pub fn reserve_timeout(&mut self, len: usize, timeout: Duration) -> Result<Reservation<'_>, AppendError> {
        self.reserve_with(len, Patience::Until(deadline(timeout)))
    }

    fn reserve_with(&mut self, len: usize, patience: Patience) -> Result<Reservation<'_>, AppendError> {
        self.with(|writer| writer.end_lease(Why::NotNeeded));
        self.ring().core.reserve(len, patience)
    }

    #[inline(always)]
    fn with<R>(&mut self, f: impl FnOnce(&mut Writer<'_>) -> R) -> R {
        self.0.with_dependent_mut(|_, writer| f(writer))
    }
}

impl fmt::Debug for OwnedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedWriter").field(self.0.borrow_dependent()).finish()
    }
}

/// Futures; they borrow the writer, so that its own appends keep their order.
#[cfg(all(feature = "async", not(any(loom, shuttle))))]
mod futures {
    use super::{OwnedWriter, Why, Writer};
    use crate::error::AppendError;
    use crate::extent::Extent;
    use crate::ring::futures::DurableFuture;

    impl Writer<'_> {
        /// [`append`](Self::append) as a future: ready at once if there is room, else when there is.
        ///
        /// Nothing is appended before it is polled, nor after it was dropped.
        ///
        /// # Errors
        ///
        /// Those of [`append`](Self::append).
        pub async fn append_async(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
            match self.try_append(payload) {
                // Its lease has ended, so that whatever it appends next gets a higher address.
                Err(AppendError::RingFull) => self.ring.append_async(payload).await,
                outcome => outcome,
            }
        }

        /// [`append_durable`](Self::append_durable) as a future.
        ///
        /// Dropped before it is ready it may have appended; that stays in the log.
        ///
        /// # Errors
        ///
        /// Those of [`append_durable`](Self::append_durable).
        pub async fn append_durable_async(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
            self.core().check_device()?;
            self.sizer.record_wait();
            let extent = self.append_async(payload).await?;
            // The wait would take it back.
            self.end_lease(Why::NotNeeded);
            let outcome = self.ring.wait_durable_async(extent.end()).await;
            outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
        }
    }

    impl OwnedWriter {
        /// See [`Writer::append_async`].
        ///
        /// # Errors
        ///
        /// Those of [`append`](Self::append).
        pub async fn append_async(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
            match self.try_append(payload) {
                Err(AppendError::RingFull) => self.ring().append_async(payload).await,
                outcome => outcome,
            }
        }

        /// See [`Writer::append_durable_async`].
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use buffer_ring::{AppendError, BufferRing, BufferRingOptions, QuikIO};
        /// # let io_instance = Some(Arc::new(QuikIO::in_memory().0));
        /// # let options = BufferRingOptions { capacity: 2, buffer_size: 4096, io_instance, ..Default::default() };
        /// # let ring = Arc::new(BufferRing::with_options(options));
        /// # let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        /// let mut writer = ring.writer_owned();
        /// let task = runtime.spawn(async move { writer.append_durable_async(b"record").await });
        /// let extent = runtime.block_on(task).unwrap()?;
        /// assert!(ring.durable_watermark() >= extent.end());
        /// # Ok::<(), AppendError>(())
        /// ```
        ///
        /// # Errors
        ///
        /// Those of [`append_durable`](Self::append_durable).
        pub async fn append_durable_async(&mut self, payload: &[u8]) -> Result<Extent, AppendError> {
            self.ring().core.check_device()?;
            self.with(|writer| writer.sizer.record_wait());
            let extent = self.append_async(payload).await?;
            self.with(|writer| writer.end_lease(Why::NotNeeded));
            let outcome = self.wait_durable_async(extent.end()).await;
            outcome.map(|()| extent).map_err(|error| AppendError::after(extent, error))
        }

        /// See [`BufferRing::wait_durable_async`](crate::BufferRing::wait_durable_async).
        ///
        /// # Errors
        ///
        /// Those of [`wait_durable`](Self::wait_durable).
        pub fn wait_durable_async(&self, address: u64) -> DurableFuture<'_> {
            self.ring().wait_durable_async(address)
        }
    }
}
