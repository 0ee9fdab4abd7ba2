//! Harm to the files of a node that does not run.

use crate::seed::Seeded;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: u64 = 4096;
/// Bits that are flipped.
const BITS: usize = 16;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A few bits are flipped, anywhere.
    Bits,
    /// A page is zeroed, not one of the first two.
    Page,
    /// The second half is gone.
    Cut,
}

/// Does it.
///
/// # Panics
/// When the file cannot be changed.
pub fn damage(file: &Path, harm: Harm, rng: &mut Seeded) {
    let done = match harm {
        Harm::Bits => flip(file, rng),
        Harm::Page => zero(file, rng),
        Harm::Cut => cut(file),
    };
    done.unwrap_or_else(|e| panic!("damage {}: {e}", file.display()));
}

fn open(file: &Path) -> std::io::Result<(std::fs::File, u64)> {
    let file = std::fs::File::options().read(true).write(true).open(file)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn flip(file: &Path, rng: &mut Seeded) -> std::io::Result<()> {
    let (file, len) = open(file)?;
    for _ in 0..BITS {
        let at = rng.any() % len;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << rng.below(8);
        file.write_all_at(&byte, at)?;
    }
    Ok(())
}

fn zero(file: &Path, rng: &mut Seeded) -> std::io::Result<()> {
    let (file, len) = open(file)?;
    let page = 2 + rng.any() % (len / PAGE - 2);
    file.write_all_at(&[0; 4096], page * PAGE)
}

fn cut(file: &Path) -> std::io::Result<()> {
    let (file, len) = open(file)?;
    file.set_len(len / 2)
}

/// Copies files and directories, nothing else.
///
/// # Panics
/// When that fails.
pub fn copy(from: &Path, to: &Path) {
    let failed = |e: std::io::Error| panic!("copy {} to {}: {e}", from.display(), to.display());
    std::fs::create_dir_all(to).unwrap_or_else(failed);
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match std::fs::metadata(&from) {
            Ok(meta) if meta.is_dir() => copy(&from, &to),
            Ok(meta) if meta.is_file() => {
                std::fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            }
            _ => {}
        }
    }
}
