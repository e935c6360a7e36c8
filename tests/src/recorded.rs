//! A guest's memory that was recorded: `tests/data/recorded-ram`, whose README says how.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// How it is made anew, with the screens that are compared with it.
pub const HOW: &str = "to record it anew: MM_RECORD=1 cargo test -p mm-tests --test qemu recording && \
    UPDATE_EXPECT=1 cargo test -p mm-tests --test seen recorded";
/// Bytes that are a hole of the file if all of them are zero.
pub const PAGE: usize = 4096;

/// Where it is, and what is compared with it.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recorded-ram")
}

/// The memory, packed.
#[must_use]
pub fn packed() -> PathBuf {
    folder().join("ram.gz")
}

/// Unpacks it, as `gunzip` does, but for pages of zeros, which become holes.
///
/// # Errors
/// Those of the files.
pub fn unpack(to: &Path) -> io::Result<()> {
    let mut memory = Vec::new();
    GzDecoder::new(File::open(packed())?).read_to_end(&mut memory)?;
    let file = File::create(to)?;
    file.set_len(memory.len() as u64)?;
    for (number, page) in memory.chunks(PAGE).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            file.write_all_at(page, (number * PAGE) as u64)?;
        }
    }
    Ok(())
}

/// Packs memory that is in a file. The same memory is the same bytes: no name, no time.
///
/// # Errors
/// Those of the file.
pub fn pack(memory: &Path) -> io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&fs::read(memory)?)?;
    packer.finish()
}
