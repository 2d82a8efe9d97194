//! Damages a block of a table file of a store.

use std::path::{Path, PathBuf};

/// Has all rows of the log written to table files, one a table.
pub fn flush(dir: &Path) {
    celeriac::broker::embedded::flush_log(dir).unwrap();
}

/// The largest file of a table, by the table's number.
pub fn table(dir: &Path, number: u8) -> PathBuf {
    let files = std::fs::read_dir(dir.join(format!("db/keyspaces/{number}/tables"))).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap()
}

/// Flips a byte at so many hundredths of the rows of a table file.
pub fn damage(file: &Path, hundredths: u64) {
    let archive = sfa::Reader::new(file).unwrap();
    let data = archive.toc().section(b"data").unwrap();
    let at = usize::try_from(data.pos() + data.len() * hundredths / 100).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x55;
    std::fs::write(file, bytes).unwrap();
}
