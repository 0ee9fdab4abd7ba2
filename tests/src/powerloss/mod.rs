//! Power loss: what a process wrote is recorded, and directories are rebuilt as a power cut at any moment may leave them.
//!
//! [`record`] runs a program with `tests/powerloss/recorder.c` preloaded, [`log`] reads what was recorded, [`replay`] builds
//! directories from it, [`plan`] is the load of the recorded writer, and [`verdict`] says what must be in such a directory.
//!
//! # The model
//! - What a sync that returned before the cut covers is there. So is a write through a descriptor opened `O_DSYNC` that
//!   returned before the cut.
//! - Of everything else, any part may be there: each page of 4 KiB of each write by itself (LMDB's meta write of 120 bytes
//!   lies in one sector and is one part), each change of a file's length, and of the changes of a directory any first ones.
//! - The name of a new file is durable when its directory was synced, not before. Real file systems are kinder.
//!
//! Not modelled: torn sectors, disks that lie about a sync (but see `WEALD_RECORD_IGNORE`, which is such a disk).

pub mod log;
pub mod plan;
pub mod record;
pub mod replay;
pub mod verdict;
