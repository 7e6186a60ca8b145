//! Whether the buffers are registered, as the statistics say and as the kernel says. A program of its own: the kernel
//! is asked about all rings of the process.

mod common;

use std::fs;

use buffer_ring::QuikIO;
use common::{disk, options, ring_on};

/// Buffers that are registered with the io_uring rings of this process.
fn registered() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let rings = descriptors.filter(|it| fs::read_link(it.path()).is_ok_and(|to| to.ends_with("anon_inode:[io_uring]")));
    let texts = rings.map(|it| {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", it.file_name().to_string_lossy())).expect("what it is")
    });
    texts
        .map(|text| {
            let count = text.lines().find_map(|line| line.strip_prefix("UserBufs:"));
            count.expect("a number of buffers").trim().parse::<usize>().expect("a number")
        })
        .sum()
}

#[test]
fn the_statistics_say_of_registered_buffers_what_the_kernel_says() {
    let dir = disk();
    let ring = ring_on(QuikIO::open(dir.path().join("log")).expect("a file"), options(2, 8192));
    let said = ring.stats().registered_buffers;
    assert_eq!(said, registered() > 0, "{:?}", ring.stats().engine);
    println!("registered: {said}");
    ring.close().expect("a ring that works");
    assert_eq!(registered(), 0);
}
