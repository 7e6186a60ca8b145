//! Errors are values to keep, to pass on and to print.

mod common;

use core::error::Error;

use buffer_ring::ring_io::{AttachError, FileError, OpenError};
use buffer_ring::{AppendError, DeviceError, Extent, OptionsError, ReadError, RingError, RotateError};
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
        Box::new(AppendError::Poisoned(failure.clone())),
        Box::new(RingError::TimedOut),
        Box::new(RingError::NotAppended { address: 2, tail: 1 }),
        Box::new(RingError::ReservationLeaked(4096)),
        Box::new(RingError::Closed),
        Box::new(RotateError::RingFull),
        Box::new(RotateError::AddressesExhausted),
        Box::new(RotateError::Poisoned(failure.clone())),
        Box::new(failure),
        Box::new(ReadError::TooShort { len: 1, extent: 2 }),
        Box::new(ReadError::NotAppended { extent: Extent::new(0, 10), tail: 5 }),
        Box::new(ReadError::Reserved),
        Box::new(ReadError::Gone(0)),
        Box::new(ReadError::Truncated(0)),
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
    assert_eq!(refused.to_string(), format!("the ring is poisoned: {failure}"));
    assert_eq!(refused.source().map(ToString::to_string), Some(failure.to_string()));
}
