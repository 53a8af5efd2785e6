//! The raft log on disk: what was acknowledged comes back, or the start is refused. Never less in silence.

#[path = "storage/damage.rs"]
mod damage;
#[path = "storage/disk.rs"]
mod disk;
#[path = "storage/faults.rs"]
mod faults;
#[path = "storage/folder.rs"]
mod folder;
