//! How much an image may ask for. Each bound shows its arithmetic; all of them are above what images in the wild need
//! and below what hurts a node.

/// KiB, MiB, GiB in bytes.
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Bounds for one image. `Limits::default()` suits every common image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A manifest, index or config: 4 MiB, what registries accept too. It is parsed in memory.
    pub metadata_bytes: u64,
    /// One stored (compressed) blob: 16 GiB. The largest machine-learning images have layers of about 10 GiB.
    pub blob_bytes: u64,
    /// All layers unpacked together: 64 GiB, four times the largest blob.
    pub unpacked_bytes: u64,
    /// Unpacked over stored, per layer. Programs compress about 3:1, logs and sparse disks 20:1, and deflate ends at 1032:1;
    /// 200:1 is beyond what real layers reach.
    pub ratio: u64,
    /// The ratio is not looked at below this many unpacked bytes: 64 MiB of zeros fill no disk.
    pub ratio_free_bytes: u64,
    /// Files, folders and links of all layers: 2 million. A full desktop distribution has 400,000. The plan of a tree
    /// takes about 200 bytes an inode in memory, so 400 MiB at the bound.
    pub inodes: u64,
    /// Nodes looked at while paths are followed and whiteouts applied, for the whole image: 128 million, 64 per inode allowed, at
    /// about 0.2 us each half a minute. Real images need about 10 per inode; links to links to long paths would need 80,000.
    pub tree_steps: u64,
    /// Layers: 127, as Docker's own bound. (Flattened here, so the bound is for the reader's patience, not for overlayfs.)
    pub layers: usize,
    /// Bytes of an entry's whole path: 4,095, the kernel's PATH_MAX (4,096) without its ending zero.
    pub path_bytes: usize,
    /// Bytes of one name in a path: 255, the kernel's NAME_MAX.
    pub name_bytes: usize,
    /// Folders in folders: 256. The deepest trees (node_modules) have about 30; 4,095 bytes would allow 2,047.
    pub path_depth: usize,
    /// Headers before one entry (long names, PAX records, sparse maps): 1 MiB. They are held in memory.
    pub header_bytes: u64,
    /// Extended attributes of one entry: 64 KiB, the kernel's bound for one value.
    pub xattr_bytes: usize,
    /// Members of an archive that holds a layout: 16,384. 127 layers, and `docker save` writes three per layer and image.
    pub archive_members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_bytes: 4 * MIB,
            blob_bytes: 16 * GIB,
            unpacked_bytes: 64 * GIB,
            ratio: 200,
            ratio_free_bytes: 64 * MIB,
            inodes: 2_000_000,
            tree_steps: 64 * 2_000_000,
            layers: 127,
            path_bytes: 4_095,
            name_bytes: 255,
            path_depth: 256,
            header_bytes: MIB,
            xattr_bytes: usize::try_from(64 * KIB).expect("64 KiB fits any usize"),
            archive_members: 16_384,
        }
    }
}
