//! Images: a content-addressed store, and an unpacker that trusts nobody.
//!
//! ```text
//!  layout, archive ──load──▶ staging ──every digest, size, rule──▶ blobs/sha256/<hex> ──▶ names.json
//!  another node ──put_blob──────────────────────────────────────▶ blobs/sha256/<hex> ──register──▶ names.json
//!  blobs ──unpack: decode → plan → perform──▶ staging ──syncfs, rename──▶ trees/<hex>/rootfs   (one flattened lower tree)
//! ```
//!
//! Reading order: [`store`] (what is kept, and how several processes share it), `source` (layouts and archives), `metadata`
//! (manifest and config), `load` (with `choose` and `docker`); then unpacking: `decode` (bytes to archive members, metered), `entry` (one member, checked), `plan` (decides, in memory, what an entry
//! does to the tree: links are resolved here), `perform` (does it, below one folder descriptor, crossing no link), `unpack`;
//! `rehearse` plans and does nothing.
//! [`build`] goes the other way.
//!
//! A layer is hostile input. What it may ask for stands in [`Limits`], what it may contain in [`Rule`].
//!
//! Deliberately absent: talking to registries, building from recipes, overlay mounts (one tree is one lower layer), digests
//! other than sha256.

mod blobs;
pub mod build;
mod choose;
mod config;
mod decode;
mod digest;
mod docker;
mod elf;
mod entry;
mod error;
mod limits;
mod load;
mod metadata;
mod perform;
mod plan;
mod refusal;
mod rehearse;
mod source;
mod staging;
pub mod store;
mod unpack;
mod user;

pub use choose::Wanted;
pub use config::{ExposedPort, ImageConfig, User};
pub use digest::{Digest, NotADigest};
pub use error::{Error, Result};
pub use limits::Limits;
pub use load::Loaded;
pub use metadata::{Blob, BlobKind};
pub use refusal::{Refusal, Rule};
pub use rehearse::Verified;
pub use store::{Collected, Listed, Store};
pub use unpack::{Image, Skipped};
