//! Errors are values to keep, to pass on and to print.

mod common;

use core::error::Error;

use std::io::{self, ErrorKind};

use buffer_ring::{
    AppendError, ArenaError, AttachError, DeviceError, Extent, FileError, OpenError, OptionsError, ReadError,
    RingError, RotateError,
};
use common::{EIO, current, in_memory, options};

fn is_an_error<E: Error + Send + Sync + Clone + 'static>() {}

#[test]
fn every_error_can_be_kept_and_sent() {
    is_an_error::<AppendError>();
    is_an_error::<OptionsError>();
    is_an_error::<ReadError>();
    is_an_error::<RingError>();
    is_an_error::<RotateError>();
    is_an_error::<DeviceError>();
    is_an_error::<AttachError>();
    is_an_error::<FileError>();
    is_an_error::<OpenError>();
}

/// One of every kind that there is; the device's from a device.
fn all() -> Vec<Box<dyn Error>> {
    let (ring, device) = in_memory(options(2, 4096));
    device.fail_write(0, EIO);
    ring.append(&[1; 100]).expect("room");
    let failure = ring.flush(&current(&ring)).wait().expect_err("a failing device");
    let RingError::Device(device_error) = failure.clone() else { panic!("{failure:?}") };
    vec![
        Box::new(OptionsError::Capacity { given: 1, least: 2 }),
        Box::new(OptionsError::TooManyBuffers(1 << 20)),
        Box::new(OptionsError::BufferSize(100)),
        Box::new(OptionsError::BufferTooLarge(1 << 32)),
        Box::new(OptionsError::Device(AttachError::Busy)),
        Box::new(OptionsError::Device(AttachError::File(FileError::Directory))),
        Box::new(OptionsError::Sync(device_error.clone())),
        Box::new(AppendError::Empty),
        Box::new(AppendError::TooLarge { len: 5000, max: 4096 }),
        Box::new(AppendError::RingFull),
        Box::new(AppendError::Sealed),
        Box::new(AppendError::TimedOut),
        Box::new(AppendError::NotDurableYet(Extent::new(4096, 100))),
        Box::new(AppendError::AddressesExhausted),
        Box::new(AppendError::NoDevice),
        Box::new(AppendError::Closed),
        Box::new(AppendError::Poisoned(failure.clone())),
        Box::new(RingError::TimedOut),
        Box::new(RingError::NotAppended { address: 2, tail: 1 }),
        Box::new(RingError::ReservationLeaked(4096)),
        Box::new(RingError::NoDevice),
        Box::new(RingError::Closed),
        Box::new(RotateError::RingFull),
        Box::new(RotateError::AddressesExhausted),
        Box::new(RotateError::Closed),
        Box::new(RotateError::Poisoned(failure.clone())),
        Box::new(failure),
        Box::new(ReadError::TooShort { len: 1, extent: 2 }),
        Box::new(ReadError::NotAppended { extent: Extent::new(0, 10), tail: 5 }),
        Box::new(ReadError::Reserved),
        Box::new(ReadError::Gone(0)),
        Box::new(ReadError::Truncated(0)),
        Box::new(ReadError::Closed),
        Box::new(ReadError::Device(device_error)),
    ]
}

#[test]
fn every_error_displays_as_a_lower_case_sentence_without_a_full_stop() {
    for error in all() {
        let text = error.to_string();
        let first = text.chars().next().expect("some text");
        assert!(!first.is_uppercase(), "begins with a capital: {text}");
        assert!(!text.ends_with('.') && !text.contains('\n'), "ends like a paragraph: {text}");
    }
}

#[test]
fn an_error_of_the_device_keeps_its_facts_all_the_way_up() {
    let (ring, device) = in_memory(options(2, 4096));
    device.fail_write(0, EIO);
    ring.append(&[1; 100]).expect("room");
    let failure = ring.sync().expect_err("a failing device");
    let RingError::Device(error) = &failure else { panic!("{failure:?}") };
    assert_eq!((error.errno(), error.range()), (Some(EIO), 0..4096));
    assert_eq!(failure.to_string(), "write of bytes 0..4096 failed (errno 5)");
    let refused = ring.append(b"more").expect_err("a poisoned ring");
    assert_eq!(refused, AppendError::Poisoned(failure.clone()));
    assert_eq!(refused.to_string(), "the ring is poisoned");
    assert_eq!(refused.source().map(ToString::to_string), Some(failure.to_string()));
}

/// `error`, its source, the source of that, and so on.
fn chain<'a>(mut error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut chain = vec![error];
    while let Some(source) = error.source() {
        chain.push(source);
        error = source;
    }
    chain
}

#[test]
fn no_error_says_what_its_source_says() {
    for error in all() {
        for error in chain(&*error) {
            if let Some(source) = error.source() {
                assert!(!error.to_string().contains(&source.to_string()), "`{error}` repeats `{source}`");
            }
        }
    }
}

/// A device that fails with `ENOSPC`, and what the ring makes of it.
fn a_failure() -> (RingError, DeviceError) {
    let (ring, device) = in_memory(options(2, 4096));
    device.fail_write(0, 28);
    ring.append(&[1; 100]).expect("room");
    let failure = ring.sync().expect_err("a failing device");
    let RingError::Device(error) = failure.clone() else { panic!("{failure:?}") };
    (failure, error)
}

#[test]
fn every_error_is_an_io_error_of_its_kind_with_what_the_device_said_among_its_sources() {
    use ErrorKind::{
        BrokenPipe, FileTooLarge, InvalidInput, OutOfMemory, ResourceBusy, StorageFull, TimedOut, UnexpectedEof,
        Unsupported, WouldBlock,
    };
    fn check<E: Into<io::Error> + Error + Clone + PartialEq + Send + Sync + 'static>(error: E, kind: ErrorKind) {
        let converted: io::Error = error.clone().into();
        assert_eq!((converted.kind(), converted.to_string()), (kind, error.to_string()), "{error:?}");
        let kept = converted.get_ref().and_then(|kept| kept.downcast_ref::<E>());
        assert_eq!(kept, Some(&error), "the error is kept");
        let errno = chain(&converted)
            .into_iter()
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .find_map(io::Error::raw_os_error);
        assert_eq!(errno, (kind == StorageFull).then_some(28), "{error:?}");
    }
    let (failure, device) = a_failure();
    for (error, kind) in [
        (AppendError::Empty, InvalidInput),
        (AppendError::TooLarge { len: 5000, max: 4096 }, InvalidInput),
        (AppendError::RingFull, WouldBlock),
        (AppendError::Sealed, WouldBlock),
        (AppendError::TimedOut, TimedOut),
        (AppendError::NotDurableYet(Extent::new(0, 1)), TimedOut),
        (AppendError::AddressesExhausted, FileTooLarge),
        (AppendError::NoDevice, Unsupported),
        (AppendError::Closed, BrokenPipe),
        (AppendError::Poisoned(failure.clone()), StorageFull),
    ] {
        check(error, kind);
    }
    for (error, kind) in [
        (failure.clone(), StorageFull),
        (RingError::TimedOut, TimedOut),
        (RingError::NotAppended { address: 2, tail: 1 }, InvalidInput),
        (RingError::ReservationLeaked(0), ResourceBusy),
        (RingError::NoDevice, Unsupported),
        (RingError::Closed, BrokenPipe),
    ] {
        check(error, kind);
    }
    for (error, kind) in [
        (RotateError::RingFull, WouldBlock),
        (RotateError::AddressesExhausted, FileTooLarge),
        (RotateError::Closed, BrokenPipe),
        (RotateError::Poisoned(failure), StorageFull),
    ] {
        check(error, kind);
    }
    for (error, kind) in [
        (ReadError::TooShort { len: 1, extent: 2 }, InvalidInput),
        (ReadError::NotAppended { extent: Extent::new(0, 10), tail: 5 }, InvalidInput),
        (ReadError::Reserved, WouldBlock),
        (ReadError::Gone(0), Unsupported),
        (ReadError::Truncated(0), UnexpectedEof),
        (ReadError::Closed, BrokenPipe),
        (ReadError::Device(device.clone()), StorageFull),
    ] {
        check(error, kind);
    }
    for (error, kind) in [
        (OptionsError::Capacity { given: 1, least: 2 }, InvalidInput),
        (OptionsError::TooManyBuffers(1 << 20), InvalidInput),
        (OptionsError::BufferSize(1), InvalidInput),
        (OptionsError::BufferTooLarge(1 << 32), InvalidInput),
        (OptionsError::Memory(ArenaError::Map { bytes: 4096, errno: 12 }), OutOfMemory),
        (OptionsError::Device(AttachError::Busy), ResourceBusy),
        (OptionsError::Device(AttachError::File(FileError::NoEnd)), InvalidInput),
        (OptionsError::Sync(device), StorageFull),
    ] {
        check(error, kind);
    }
}

/// Each type that a method of a re-exported type takes or gives has a name in the facade.
#[test]
fn the_facade_names_every_type_that_one_meets() {
    fn named<T: ?Sized>() {}
    named::<(buffer_ring::AppendError, buffer_ring::OptionsError, buffer_ring::ReadError, buffer_ring::RingError)>();
    named::<(buffer_ring::RotateError, buffer_ring::BufferRingBuilder, buffer_ring::CommitPolicy)>();
    named::<(buffer_ring::BufferHandle, buffer_ring::FlushTicket, buffer_ring::DurableWatch, buffer_ring::Extent)>();
    named::<(buffer_ring::Reservation<'_>, buffer_ring::Writer<'_>, buffer_ring::OwnedWriter)>();
    named::<(buffer_ring::RingStats, buffer_ring::WriterStats, buffer_ring::OldestReservation)>();
    named::<(buffer_ring::Latencies, buffer_ring::hdrhistogram::Histogram<u64>)>();
    named::<(buffer_ring::QuikIO, buffer_ring::QuikIOOptions, buffer_ring::QuikIOBuilder, buffer_ring::WriteMode)>();
    named::<(buffer_ring::Engine, buffer_ring::EngineKind, buffer_ring::MemoryDevice, buffer_ring::DeviceEvent<'_>)>();
    named::<(buffer_ring::OpenError, buffer_ring::FileError, buffer_ring::AttachError, buffer_ring::DeviceError)>();
    named::<(buffer_ring::Operation, buffer_ring::WriteQueue, buffer_ring::Registered, buffer_ring::Wait)>();
    named::<(buffer_ring::Finished, buffer_ring::Arena, buffer_ring::ArenaError, buffer_ring::HugePages)>();
    named::<(buffer_ring::Buffer, buffer_ring::Frozen, buffer_ring::Region)>();
    #[cfg(feature = "async")]
    named::<(buffer_ring::AppendFuture<'_>, buffer_ring::DurableFuture<'_>)>();
}
