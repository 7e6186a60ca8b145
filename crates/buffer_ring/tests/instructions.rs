//! Counts the locked instructions that an append executes: each is a cache line that this core has to have for itself,
//! and the price of a small record if other threads want the same one.
//!
//! The processor's trap flag stops a thread after each instruction. The handler looks at the next one.
#![cfg(all(target_arch = "x86_64", not(any(loom, shuttle))))]

mod common;

use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::{mem, ptr};

use common::{in_memory, options};

/// Of the thread that is being watched: there is only one.
static INSTRUCTIONS: AtomicU64 = AtomicU64::new(0);
static LOCKED: AtomicU64 = AtomicU64::new(0);

/// Instructions, and locked ones among them, that `body` executes.
fn watch(body: impl FnOnce()) -> (u64, u64) {
    let counted = || (INSTRUCTIONS.load(Relaxed), LOCKED.load(Relaxed));
    let before = counted();
    // SAFETY: pushes and pops the flags, with the trap flag set. There is a handler, and nothing else changes.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    body();
    // SAFETY: as above, with the trap flag cleared.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    let after = counted();
    (after.0 - before.0, after.1 - before.1)
}

fn install() {
    // SAFETY: all zeros is a valid action: the default one.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = look as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is valid, its handler takes three arguments as `SA_SIGINFO` says, and does nothing that a
    // handler must not.
    let outcome = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
    assert_eq!(outcome, 0, "the kernel takes the handler");
}

extern "C" fn look(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    INSTRUCTIONS.fetch_add(1, Relaxed);
    // SAFETY: the kernel hands a handler of this kind the thread's context, for as long as it runs.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let mut code = context.uc_mcontext.gregs[libc::REG_RIP as usize] as *const u8;
    loop {
        // SAFETY: the thread is about to execute it, and it does not end before its opcode.
        let byte = unsafe { code.read() };
        code = code.wrapping_add(1);
        match byte {
            // The prefix `lock`.
            0xF0 => break,
            // Other prefixes.
            0x26 | 0x2E | 0x36 | 0x3E | 0x40..=0x4F | 0x64..=0x67 | 0xF2 | 0xF3 => {}
            // An exchange locks by itself, except between registers.
            0x86 | 0x87 => {
                // SAFETY: an operand follows the opcode.
                let operand = unsafe { code.read() };
                if operand >> 6 == 0b11 {
                    return;
                }
                break;
            }
            _ => return,
        }
    }
    LOCKED.fetch_add(1, Relaxed);
}

#[test]
fn an_append_into_a_lease_executes_no_locked_instruction() {
    const APPENDS: u64 = 100;
    install();
    let (ring, _device) = in_memory(options(4, 1 << 20));
    let mut writer = ring.writer();
    // The largest lease for records of this length, and not the end of it.
    while ring.stats().writers.leases_ended < 4 {
        writer.append(&[1; 16]).expect("room");
    }
    let before = ring.stats().writers;
    let (instructions, locked) = watch(|| {
        for _ in 0..APPENDS {
            writer.append(&[2; 16]).expect("room");
        }
    });
    let after = ring.stats().writers;
    assert_eq!(after.leased_records - before.leased_records, APPENDS);
    assert_eq!(after.leases_ended, before.leases_ended, "all went into one lease");
    // Where the kernel has no barrier there are two fences, locked instructions on the thread's own stack.
    let fences = if after.membarrier { 0 } else { 2 };
    println!("{instructions} instructions for {APPENDS} appends through a writer, {locked} locked");
    assert_eq!(locked, fences * APPENDS);

    // To see that they would be counted: a plain append adds to the word, and leaves it.
    ring.append(&[3; 16]).expect("room");
    let (instructions, locked) = watch(|| {
        for _ in 0..APPENDS {
            ring.append(&[4; 16]).expect("room");
        }
    });
    println!("{instructions} instructions for {APPENDS} plain appends, {locked} locked");
    assert_eq!(locked, 2 * APPENDS);
}
