//! Segment files: their names, how they are made, used again and removed.
//!
//! Segment `k` of a log with segments of `S` bytes holds the addresses from `k * S` to `(k + 1) * S` behind a header
//! of 4096 bytes. Its name is its first address, in 20 digits. A segment is durable, file, header and name, before a
//! batch that leads to it is submitted; so a missing one is always damage.

use crate::directory::Directory;
use crate::error::OpenError;
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader};

const DIGITS: usize = 20;
const SUFFIX: &str = ".seg";

/// Returns the name of the segment that begins at `address`.
#[must_use]
pub fn file_name(address: u64) -> String {
    format!("{address:020}{SUFFIX}")
}

/// Returns the file that holds the byte at `address`, and where in it that byte is.
pub(crate) fn place(address: u64, segment_size: u64) -> (String, u64) {
    let within = address % segment_size;
    (file_name(address - within), SEGMENT_HEADER_LEN as u64 + within)
}

/// Returns the address where the segment with this name begins; `None` if it is no segment's name.
#[must_use]
pub fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Returns the name that a file of a log is kept under when it is set aside; `number` sets one time apart from others.
#[must_use]
pub fn aside_name(number: u64, name: &str) -> String {
    format!("aside-{number:020}-{name}")
}

impl SegmentHeader {
    /// Returns the name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(self.number.saturating_mul(self.segment_size))
    }
}

/// Reads the header block of an open segment; missing bytes read as zeros.
pub(crate) fn read_header<D: Directory>(
    directory: &D,
    file: &D::File,
    name: &str,
) -> Result<[u8; SEGMENT_HEADER_LEN], OpenError> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    directory.read_at(file, &mut bytes, 0).map_err(OpenError::io("read", name))?;
    Ok(bytes)
}

/// Makes sure that the segment is there, with this header, on stable storage. What it holds behind the header stays,
/// and so does the mark that the file is whole, as long as it is.
///
/// # Errors
///
/// [`OpenError::Io`]. A full disk is one of these errors; calling again later resumes.
pub fn ensure<D: Directory>(directory: &D, header: &SegmentHeader) -> Result<(), OpenError> {
    let (name, file) = (&header.file_name(), open_or_create(directory, header)?);
    put_header(directory, &file, header)?;
    directory.sync_file(&file).map_err(OpenError::io("sync", name))?;
    directory.sync_dir().map_err(OpenError::io("sync the directory of", name))
}

/// The same, with a whole file: as long as a segment is, before its header says so. Its first `written` bytes are
/// written, unless they were there.
pub(crate) fn ensure_whole<D: Directory>(directory: &D, header: &SegmentHeader, written: u64) -> Result<(), OpenError> {
    let (name, len) = (&header.file_name(), header.file_len());
    let file = open_or_create(directory, header)?;
    // Also of another segment, whose file this was: it says what was synced.
    let is_marked = SegmentHeader::decode(&read_header(directory, &file, name)?).is_ok_and(|found| found.whole);
    if !is_marked || directory.len(&file).map_err(OpenError::io("look at", name))? < len {
        put_header(directory, &file, header)?;
        directory.extend(&file, len, written).map_err(OpenError::io("extend", name))?;
        directory.sync_file(&file).map_err(OpenError::io("sync", name))?;
    }
    // Which opens it once more: this handle may go past the cache since it has written zeros, and headers do not.
    ensure(directory, &SegmentHeader { whole: true, ..header.clone() })
}

fn open_or_create<D: Directory>(directory: &D, header: &SegmentHeader) -> Result<D::File, OpenError> {
    let name = &header.file_name();
    match directory.open(name, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            directory.create(name).map_err(OpenError::io("create", name))
        }
        opened => opened.map_err(OpenError::io("open", name)),
    }
}

fn put_header<D: Directory>(directory: &D, file: &D::File, header: &SegmentHeader) -> Result<(), OpenError> {
    let name = &header.file_name();
    let (found, expected) = (read_header(directory, file, name)?, header.encode());
    let is_marked = found == SegmentHeader { whole: true, ..header.clone() }.encode();
    let keeps = is_marked && directory.len(file).map_err(OpenError::io("look at", name))? >= header.file_len();
    if found != expected && !keeps {
        directory.write_at(file, &expected, 0).map_err(OpenError::io("write", name))?;
    }
    Ok(())
}

/// Gives a trimmed segment the name of this one, to be used again: [`ensure`] has to follow. Its old batches are
/// refused by their addresses.
///
/// # Errors
///
/// [`OpenError::Io`].
pub fn recycle<D: Directory>(directory: &D, trimmed: &str, header: &SegmentHeader) -> Result<(), OpenError> {
    directory.rename(trimmed, &header.file_name()).map_err(OpenError::io("rename", trimmed))
}

/// Removes trimmed segments. `MANIFEST` must say so already.
///
/// # Errors
///
/// [`OpenError::Io`].
pub fn remove<D: Directory>(directory: &D, trimmed: &[String]) -> Result<(), OpenError> {
    for name in trimmed {
        directory.unlink(name).map_err(OpenError::io("remove", name))?;
    }
    Ok(())
}

/// Returns the segments that lie below `address` as a whole.
///
/// # Errors
///
/// [`OpenError::Io`].
pub fn below<D: Directory>(directory: &D, address: u64, segment_size: u64) -> Result<Vec<String>, OpenError> {
    let first = address / segment_size * segment_size;
    let mut names = directory.list().map_err(OpenError::io("list", "the directory"))?;
    names.retain(|name| parse_name(name).is_some_and(|base| base < first && base.is_multiple_of(segment_size)));
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::MemoryDirectory;

    fn header(number: u64) -> SegmentHeader {
        SegmentHeader { log_id: 7, number, segment_size: 32 << 10, whole: false, cookie: Vec::new() }
    }

    #[test]
    fn a_name_is_20_digits_and_nothing_else_is_one() {
        assert_eq!(file_name(67_108_864), "00000000000067108864.seg");
        assert_eq!(parse_name("00000000000067108864.seg"), Some(67_108_864));
        for name in
            ["67108864.seg", "00000000000067108864.seg.bak", "0000000000006710886x.seg", "+0000000000067108864.seg"]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
        assert_eq!(parse_name("99999999999999999999.seg"), None);
    }

    #[test]
    fn once_made_a_segment_survives_any_power_cut() {
        let directory = MemoryDirectory::new();
        ensure(&directory, &header(1)).unwrap();
        for seed in 0..20 {
            let files = directory.power_cut(seed).contents();
            assert_eq!(files["00000000000000032768.seg"][..], header(1).encode());
        }
        recycle(&directory, "00000000000000032768.seg", &header(3)).unwrap();
        ensure(&directory, &header(3)).unwrap();
        for seed in 0..20 {
            let files = directory.power_cut(seed).contents();
            assert_eq!(files.keys().collect::<Vec<_>>(), ["00000000000000098304.seg"]);
            assert_eq!(files["00000000000000098304.seg"][..], header(3).encode());
        }
    }

    #[test]
    fn below_a_trim_point_are_the_segments_that_end_there_or_before() {
        let directory = MemoryDirectory::new();
        (0..4).for_each(|number| ensure(&directory, &header(number)).unwrap());
        directory.put("00000000000000000001.seg", [1]);
        assert_eq!(below(&directory, 2 * 32_768 + 5, 32_768).unwrap(), [file_name(0), file_name(32_768)]);
        remove(&directory, &below(&directory, 65_536, 32_768).unwrap()).unwrap();
        assert_eq!(below(&directory, 65_536, 32_768).unwrap(), Vec::<String>::new());
        assert_eq!(directory.list().unwrap().len(), 3);
    }
}
