//! A latch-free ring of log buffers between many writing threads and one file.

mod durability;
mod error;
mod extent;
mod flush;
mod gate;
mod hold;
mod options;
mod read;
mod reservation;
mod ring;
mod rotation;
mod slot;
mod stats;
mod sync;
mod waiters;

pub use error::{AppendError, OptionsError, ReadError, RingError, RotateError};
pub use extent::Extent;
pub use flush::{BufferHandle, FlushTicket};
pub use options::{BufferRingOptions, MAX_BUFFERS};
pub use reservation::Reservation;
pub use ring::BufferRing;
pub use stats::{OldestReservation, RingStats};

pub use ring_alloc::{self, BLOCK, ONE_MEGABYTE_BLOCK};
pub use ring_io::{self, DeviceError, Engine, EngineKind, MemoryDevice, QuikIO};
pub use ring_state;
