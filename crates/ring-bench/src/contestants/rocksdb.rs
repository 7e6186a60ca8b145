//! RocksDB's write-ahead log: synced puts of small keys, over the distribution's library and its C interface.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::log::{Contestant, Family, Log, Outcome, Place, Writer};
use crate::stamp::{STAMP, Tally};

pub const ROCKSDB: Contestant = Contestant::of::<RocksDb>(Family::Rival, "RocksDB WAL");

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> *mut c_void;
    fn rocksdb_options_destroy(options: *mut c_void);
    fn rocksdb_options_set_create_if_missing(options: *mut c_void, value: u8);
    fn rocksdb_options_set_write_buffer_size(options: *mut c_void, size: usize);
    fn rocksdb_open(options: *const c_void, path: *const c_char, error: *mut *mut c_char) -> *mut c_void;
    fn rocksdb_close(db: *mut c_void);
    fn rocksdb_writeoptions_create() -> *mut c_void;
    fn rocksdb_writeoptions_destroy(options: *mut c_void);
    fn rocksdb_writeoptions_set_sync(options: *mut c_void, value: u8);
    fn rocksdb_put(
        db: *mut c_void,
        options: *const c_void,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
        error: *mut *mut c_char,
    );
    fn rocksdb_readoptions_create() -> *mut c_void;
    fn rocksdb_readoptions_destroy(options: *mut c_void);
    fn rocksdb_create_iterator(db: *mut c_void, options: *const c_void) -> *mut c_void;
    fn rocksdb_iter_seek_to_first(iterator: *mut c_void);
    fn rocksdb_iter_valid(iterator: *const c_void) -> u8;
    fn rocksdb_iter_next(iterator: *mut c_void);
    fn rocksdb_iter_value(iterator: *const c_void, len: *mut usize) -> *const c_char;
    fn rocksdb_iter_destroy(iterator: *mut c_void);
}

pub struct RocksDb {
    db: *mut c_void,
    synced: *mut c_void,
}

// SAFETY: RocksDB's handles may be used by several threads.
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

fn check(error: *mut c_char) -> Outcome<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: RocksDB gives a string that it leaves to us; leaked, since the run ends here.
    Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned().into())
}

impl Log for RocksDb {
    type Writer<'a> = &'a Self;

    fn open(place: &Place) -> Outcome<Self> {
        let folder = place.folder.join("rocksdb");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let path = CString::new(folder.as_os_str().as_bytes())?;
        let mut error = ptr::null_mut();
        // SAFETY: made and destroyed here.
        let options = unsafe { rocksdb_options_create() };
        // SAFETY: valid options.
        unsafe { rocksdb_options_set_create_if_missing(options, 1) };
        // Its tables are not what is measured: large enough that none is written.
        // SAFETY: valid options.
        unsafe { rocksdb_options_set_write_buffer_size(options, 1 << 30) };
        // SAFETY: valid options, a string that ends in zero, a place for the error.
        let db = unsafe { rocksdb_open(options, path.as_ptr(), &mut error) };
        // SAFETY: not used any more.
        unsafe { rocksdb_options_destroy(options) };
        check(error)?;
        // SAFETY: destroyed by `drop`.
        let synced = unsafe { rocksdb_writeoptions_create() };
        // SAFETY: valid options.
        unsafe { rocksdb_writeoptions_set_sync(synced, 1) };
        Ok(Self { db, synced })
    }

    fn writer(&self, _: usize) -> &Self {
        self
    }

    fn read_back(self, tally: &mut Tally) -> Outcome<bool> {
        // SAFETY: destroyed below.
        let options = unsafe { rocksdb_readoptions_create() };
        // SAFETY: a valid database and options.
        let iterator = unsafe { rocksdb_create_iterator(self.db, options) };
        // SAFETY: a valid iterator.
        unsafe { rocksdb_iter_seek_to_first(iterator) };
        // SAFETY: a valid iterator.
        while unsafe { rocksdb_iter_valid(iterator) } != 0 {
            let mut len = 0;
            // SAFETY: a valid iterator, at an entry.
            let value = unsafe { rocksdb_iter_value(iterator, &mut len) };
            // SAFETY: the value lives until the iterator moves.
            tally.note(unsafe { std::slice::from_raw_parts(value.cast(), len) });
            // SAFETY: a valid iterator.
            unsafe { rocksdb_iter_next(iterator) };
        }
        // SAFETY: not used any more.
        unsafe { rocksdb_iter_destroy(iterator) };
        // SAFETY: not used any more.
        unsafe { rocksdb_readoptions_destroy(options) };
        Ok(true)
    }
}

impl Writer for &RocksDb {
    fn append(&mut self, record: &[u8]) {
        let mut error = ptr::null_mut();
        let (key, value) = (record.as_ptr().cast(), record.as_ptr().cast());
        // The stamp is the key.
        // SAFETY: a valid database and options; key and value are as long as is said.
        unsafe { rocksdb_put(self.db, self.synced, key, STAMP, value, record.len(), &mut error) };
        check(error).expect("the database takes it");
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: not used any more.
        unsafe { rocksdb_writeoptions_destroy(self.synced) };
        // SAFETY: it is used no more.
        unsafe { rocksdb_close(self.db) };
    }
}
