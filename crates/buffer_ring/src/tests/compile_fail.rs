//! What the types forbid. Each program that must not compile stands behind one that does, and differs from it only in
//! the sin: so it fails for that, and for nothing else. `cargo test --doc` compiles them all.
//!
//! # A reservation does not outlive its ring
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let reserved = ring.reserve(10).unwrap();
//! reserved.commit();
//! drop(ring);
//! ```
//!
//! ```compile_fail,E0505
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let reserved = ring.reserve(10).unwrap();
//! drop(ring);
//! reserved.commit();
//! ```
//!
//! # It ends once
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! reserved[0] = 1;
//! reserved.commit();
//! ```
//!
//! ```compile_fail,E0382
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! reserved.commit();
//! reserved[0] = 1;
//! ```
//!
//! ```compile_fail,E0382
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! reserved.commit();
//! reserved.commit();
//! ```
//!
//! # Its bytes are written in one place at a time
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! let (one, other) = reserved.split_at_mut(5);
//! one[0] = 1;
//! other[0] = 2;
//! ```
//!
//! ```compile_fail,E0499
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! let (one, other) = (&mut reserved[..5], &mut reserved[..5]);
//! one[0] = 1;
//! other[0] = 2;
//! ```
//!
//! It cannot be copied, and its bytes do not outlive it:
//!
//! ```compile_fail,E0599
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! let mut other = reserved.clone();
//! ```
//!
//! ```compile_fail,E0505
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut reserved = ring.reserve(10).unwrap();
//! let bytes = &mut reserved[..];
//! reserved.commit();
//! bytes[0] = 1;
//! ```
//!
//! # Other threads take part only while the ring is there
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let reserved = ring.reserve(10).unwrap();
//! std::thread::scope(|scope| {
//!     scope.spawn(move || reserved.commit());
//! });
//! ```
//!
//! ```compile_fail,E0597
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let reserved = ring.reserve(10).unwrap();
//! std::thread::spawn(move || reserved.commit());
//! ```
//!
//! # A writer does not outlive its ring
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = ring.writer();
//! writer.append(b"record").unwrap();
//! drop(writer);
//! drop(ring);
//! ```
//!
//! ```compile_fail,E0505
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = ring.writer();
//! drop(ring);
//! writer.append(b"record").unwrap();
//! ```
//!
//! Unless it owns its share of it; then its reservations do not outlive the writer:
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = std::sync::Arc::new(ring).writer_owned();
//! let reserved = writer.reserve(10).unwrap();
//! reserved.commit();
//! drop(writer);
//! ```
//!
//! ```compile_fail,E0505
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = std::sync::Arc::new(ring).writer_owned();
//! let reserved = writer.reserve(10).unwrap();
//! drop(writer);
//! reserved.commit();
//! ```
//!
//! ```compile_fail,E0277
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = std::sync::Arc::new(ring).writer_owned();
//! std::thread::scope(|scope| {
//!     scope.spawn(|| println!("{writer:?}"));
//! });
//! ```
//!
//! # It is used by one thread at a time, and by one hand
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = ring.writer();
//! std::thread::scope(|scope| {
//!     scope.spawn(move || writer.append(b"record"));
//! });
//! ```
//!
//! ```compile_fail,E0277
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let writer = ring.writer();
//! std::thread::scope(|scope| {
//!     scope.spawn(|| println!("{writer:?}"));
//! });
//! ```
//!
//! ```
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = ring.writer();
//! let reserved = writer.reserve(10).unwrap();
//! reserved.commit();
//! writer.append(b"record").unwrap();
//! ```
//!
//! ```compile_fail,E0499
//! # use buffer_ring::{BufferRing, BufferRingOptions};
//! # let ring = BufferRing::with_options(BufferRingOptions { capacity: 2, buffer_size: 4096, ..Default::default() });
//! let mut writer = ring.writer();
//! let reserved = writer.reserve(10).unwrap();
//! writer.append(b"record").unwrap();
//! reserved.commit();
//! ```
//!
//! # What the device reads is not written
//!
//! ```
//! # use buffer_ring::ring_alloc::Buffer;
//! let mut buffer = Buffer::zeroed(4096).unwrap();
//! buffer[0] = 1;
//! let frozen = buffer.freeze(4096);
//! assert_eq!(frozen[0], 1);
//! ```
//!
//! ```compile_fail,E0594
//! # use buffer_ring::ring_alloc::Buffer;
//! let mut buffer = Buffer::zeroed(4096).unwrap();
//! let mut frozen = buffer.freeze(4096);
//! frozen[0] = 1;
//! ```
//!
//! ```compile_fail,E0382
//! # use buffer_ring::ring_alloc::Buffer;
//! let mut buffer = Buffer::zeroed(4096).unwrap();
//! let frozen = buffer.freeze(4096);
//! buffer[0] = 1;
//! ```
//!
//! Nor given to two devices, nor thawed while one has it:
//!
//! ```
//! # use std::sync::Arc;
//! # use buffer_ring::{QuikIO, ring_alloc::Buffer};
//! # let (io, _device) = QuikIO::in_memory();
//! let frozen = Buffer::zeroed(4096).unwrap().freeze(4096);
//! let queue = Arc::new(io).attach(frozen.arena()).unwrap();
//! queue.submit(0, frozen, 0);
//! ```
//!
//! ```compile_fail,E0382
//! # use std::sync::Arc;
//! # use buffer_ring::{QuikIO, ring_alloc::Buffer};
//! # let (io, _device) = QuikIO::in_memory();
//! let frozen = Buffer::zeroed(4096).unwrap().freeze(4096);
//! let queue = Arc::new(io).attach(frozen.arena()).unwrap();
//! queue.submit(0, frozen, 0);
//! queue.submit(1, frozen, 4096);
//! ```
//!
//! ```compile_fail,E0382
//! # use std::sync::Arc;
//! # use buffer_ring::{QuikIO, ring_alloc::Buffer};
//! # let (io, _device) = QuikIO::in_memory();
//! let frozen = Buffer::zeroed(4096).unwrap().freeze(4096);
//! let queue = Arc::new(io).attach(frozen.arena()).unwrap();
//! queue.submit(0, frozen, 0);
//! frozen.thaw().unwrap()[0] = 1;
//! ```
//!
//! ```compile_fail,E0599
//! # use buffer_ring::ring_alloc::Buffer;
//! let frozen = Buffer::zeroed(4096).unwrap().freeze(4096);
//! let other = frozen.clone();
//! ```
