//! The trial of the store: owners, each with a slot of its own in every page, and what they may find there.
//!
//! The updates of an owner are numbered, and what an update writes, and where, follows from its number alone. So the
//! number of updates that were acknowledged says what the pages have to hold; only those of the round that was not
//! acknowledged yet may be there or not, each for itself.

use core::error::Error;
use core::hash::Hasher;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringlog::Lsn;
use siphasher::sip::SipHasher24;

use crate::page::PAGE;
use crate::store::Store;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Updates of an owner between two acknowledgements.
const ROUND: u64 = 64;

/// Bytes of an owner's slot: the number of the owner's newest update of the page, and bytes that follow from that.
const SLOT: usize = 64;

/// So many slots has a page.
pub(crate) const MOST_OWNERS: usize = PAGE / SLOT;

/// A thread of the trial.
pub(crate) struct Owner {
    id: usize,
    /// The number of the next update. The first one has the number 1.
    next: u64,
    /// Of each page, the owner's newest update before `next`; 0: none.
    newest: Vec<u64>,
    /// Updates below may be in the pages already.
    begun: u64,
}

impl Owner {
    /// One that goes on with the update number `next`. Updates below `begun` may have been done before, and are done
    /// again then.
    fn new(id: usize, pages: u32, next: u64, begun: u64) -> Self {
        let mut owner = Self { id, next: 1, newest: vec![0; pages as usize], begun };
        while owner.next < next {
            owner.update();
        }
        owner
    }

    /// A number for an update, the same on each machine.
    fn drawn(&self, number: u64, nth: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.id as u64, number);
        hasher.write(&nth.to_le_bytes());
        hasher.finish()
    }

    /// Half of the updates go to a sixteenth of the pages.
    fn page(&self, number: u64) -> u32 {
        let drawn = self.drawn(number, 0);
        let pages = self.newest.len() / if drawn.is_multiple_of(2) { 16 } else { 1 };
        (drawn / 2 % pages.max(1) as u64) as u32
    }

    fn slot(&self, number: u64) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        for (word, nth) in slot.as_chunks_mut().0.iter_mut().zip(1..) {
            *word = self.drawn(number, nth).to_le_bytes();
        }
        slot[..8].copy_from_slice(&number.to_le_bytes());
        slot
    }

    /// The next update: the page, where in it, and the bytes.
    fn update(&mut self) -> (u32, usize, [u8; SLOT]) {
        let number = self.next;
        let page = self.page(number);
        self.newest[page as usize] = number;
        self.next += 1;
        (page, self.id * SLOT, self.slot(number))
    }

    /// Whether a page holds of this owner what it has to.
    fn check(&self, page: u32, content: &[u8]) -> Result<(), String> {
        let slot = &content[self.id * SLOT..][..SLOT];
        let (newest, found) = (self.newest[page as usize], slot.first_chunk().map_or(0, |n| u64::from_le_bytes(*n)));
        let is_there = match found {
            0 => newest == 0 && slot == [0; SLOT],
            _ => {
                let is_one = self.page(found) == page && slot == self.slot(found);
                is_one && found >= newest && found < self.next.max(self.begun)
            }
        };
        let wrong = || format!("page {page}: update {found} of owner {} is there, and should be {newest}", self.id);
        if is_there { Ok(()) } else { Err(wrong()) }
    }

    /// Updates and reads pages, round by round, as long as `go_on` says, which is given what a round has done.
    pub(crate) fn work(
        &mut self,
        store: &Store,
        acknowledged: &Acknowledged,
        longest_log: u64,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<(), Failure> {
        loop {
            let mut touched = Vec::new();
            for _ in 0..ROUND {
                let (page, at, slot) = self.update();
                store.write(page, at, &slot)?;
                touched.push(page);
                let page = self.page(!self.next);
                self.check(page, &store.read(page)?)?;
            }
            let mut end = Lsn::START;
            for page in touched {
                end = end.max(store.flush(page)?);
            }
            store.log().wait_durable(end)?;
            acknowledged.set(self.id, self.next)?;
            while store.log_len() > longest_log && store.clean()? {}
            if !go_on(ROUND) {
                return Ok(());
            }
        }
    }
}

/// The owners of the store in a folder, and what is acknowledged to them.
pub(crate) struct Owners {
    pub(crate) acknowledged: Acknowledged,
    pub(crate) pages: u32,
    pub(crate) all: Vec<Owner>,
}

impl Owners {
    pub(crate) fn create(folder: &Path, pages: u32, owners: usize) -> Result<Self, Failure> {
        Acknowledged::create(&folder.join("acknowledged"), pages, owners)?;
        Self::open(folder)
    }

    /// As they were when the process ended that they worked in.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        let acknowledged = Acknowledged::open(&folder.join("acknowledged"))?;
        let (pages, next) = acknowledged.get()?;
        Ok(Self { acknowledged, pages, all: owners(pages, &next, &next) })
    }
}

/// Owners whose updates below `least` are acknowledged; those of the round that begins with `most` may be done.
pub(crate) fn owners(pages: u32, least: &[u64], most: &[u64]) -> Vec<Owner> {
    assert!(least.len() <= MOST_OWNERS, "a page has {MOST_OWNERS} slots");
    let owner = |(id, (least, most)): (usize, (&u64, &u64))| Owner::new(id, pages, *least, *most + ROUND);
    least.iter().zip(most).enumerate().map(owner).collect()
}

/// Compares all pages with what the owners have written.
pub(crate) fn verify(store: &Store, pages: u32, owners: &[Owner]) -> Result<(), Failure> {
    for page in 0..pages {
        let content = store.read(page)?;
        owners.iter().try_for_each(|owner| owner.check(page, &content))?;
    }
    Ok(())
}

/// A file with the number of pages, and of each owner the number of the first update that is not acknowledged.
pub(crate) struct Acknowledged(File);

impl Acknowledged {
    fn create(path: &Path, pages: u32, owners: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&u64::from(pages).to_le_bytes(), 0)?;
        let all = Self(file);
        (0..owners).try_for_each(|owner| all.set(owner, 1))?;
        Ok(all)
    }

    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// One call: all of it is there after a kill, or nothing.
    fn set(&self, owner: usize, next: u64) -> io::Result<()> {
        self.0.write_all_at(&next.to_le_bytes(), (owner as u64 + 1) * 8)
    }

    /// How many pages there are, and where each owner goes on.
    pub(crate) fn get(&self) -> io::Result<(u32, Vec<u64>)> {
        let mut bytes = vec![0; self.0.metadata()?.len() as usize];
        self.0.read_exact_at(&mut bytes, 0)?;
        let mut numbers = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        Ok((numbers.next().unwrap_or(0) as u32, numbers.collect()))
    }
}
