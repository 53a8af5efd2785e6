//! Why an entry of a layer is not unpacked: the layer, the entry, the rule, and how to mend it.

use std::fmt;

use super::digest::Digest;

/// An entry that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The layer's blob.
    pub layer: Digest,
    /// The entry's name as it stands in the archive, escaped.
    pub entry: String,
    /// The rule it breaks.
    pub rule: Rule,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}: entry `{}` is refused: {}", self.layer, short(&self.entry), self.rule)
    }
}

/// The ends of a long name: it begins where one looks for it, and ends with the file.
fn short(entry: &str) -> std::borrow::Cow<'_, str> {
    const HALF: usize = 60;
    if entry.chars().count() <= 2 * HALF + 3 {
        return entry.into();
    }
    let ends: Vec<char> = entry.chars().collect();
    let (first, last) = (&ends[..HALF], &ends[ends.len() - HALF..]);
    format!("{}...{}", first.iter().collect::<String>(), last.iter().collect::<String>()).into()
}

impl std::error::Error for Refusal {}

/// The rules of unpacking.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The name begins with `/`.
    #[error(
        "its path is absolute; make the layer with paths relative to the image's root (tar does so unless told -P)"
    )]
    AbsolutePath,
    /// The name has a `..`.
    #[error("its path has a `..` and could leave the image's root; make the layer without such names")]
    ParentInPath,
    /// The name has no name in it.
    #[error("its name is empty; make the layer anew")]
    EmptyName,
    /// NUL, newline or another control character.
    #[error("its name has a control character (such as NUL or newline); rename the file and build the image again")]
    ControlCharacter,
    /// The path is too long.
    #[error("its path has {found} bytes, {limit} are allowed; shorten it")]
    PathTooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// One name of the path is too long.
    #[error("a name in its path has {found} bytes, {limit} are allowed; shorten it")]
    NameTooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many folders in folders.
    #[error("its path is {found} folders deep, {limit} are allowed; flatten the tree")]
    TooDeep {
        /// Depth found.
        found: usize,
        /// Depth allowed.
        limit: usize,
    },
    /// A name that begins with `.wh.` where no whiteout can stand.
    #[error("its path uses the prefix `.wh.`, which layers reserve for removed files; rename it")]
    ReservedName,
    /// A whiteout of `.`, `..` or nothing.
    #[error("it removes nothing that could exist; make the layer anew")]
    BadWhiteout,
    /// A path that leads through a file.
    #[error("its path leads through `{through}`, which is not a folder; build the image again with one tool")]
    ParentNotAFolder {
        /// The file on the way.
        through: String,
    },
    /// A path through links to links to links.
    #[error("its path leads through more than 40 symbolic links; remove the loop")]
    LinkLoop,
    /// A symbolic link with more `..` than folders above it.
    #[error("its target `{target}` climbs out of the image's root; point the link to a path inside the image")]
    EscapingLink {
        /// The target.
        target: String,
    },
    /// A link that points nowhere by construction.
    #[error("its link target is empty or has a NUL; make the layer anew")]
    BadLinkTarget,
    /// A hard link to what is not there.
    #[error(
        "it is a hard link to `{target}`, which does not exist in this layer or below; put the target before the link"
    )]
    HardLinkToNothing {
        /// The target.
        target: String,
    },
    /// A hard link to a folder.
    #[error("it is a hard link to the folder `{target}`; link to files only")]
    HardLinkToFolder {
        /// The target.
        target: String,
    },
    /// The target of a hard link breaks a rule of names.
    #[error("it is a hard link to `{target}`, and of that name: {rule}")]
    HardLinkName {
        /// The target.
        target: String,
        /// The rule that the target breaks.
        rule: Box<Rule>,
    },
    /// A device outside `/dev`.
    #[error("it is a {kind} outside /dev; containers get their devices from the runtime, leave it out of the image")]
    Device {
        /// `character device` or `block device`.
        kind: &'static str,
    },
    /// A type of entry that tar readers do not agree on.
    #[error(
        "it is of a kind that is not known here (tar type `{kind}`); make the layer with GNU tar, bsdtar or an image builder"
    )]
    UnknownKind {
        /// The type byte, escaped.
        kind: String,
    },
    /// A sparse file in the PAX form.
    #[error("it is a sparse file in PAX form; make the layer without --sparse")]
    PaxSparse,
    /// The root must stay a folder.
    #[error("it replaces the image's root by something that is not a folder; leave it out")]
    RootNotAFolder,
    /// An attribute that cannot be kept in memory.
    #[error("its extended attributes have more than {limit} bytes; remove them")]
    TooManyAttributes {
        /// Bytes allowed.
        limit: usize,
    },
    /// A header field that is not a number, a name that does not fit, and so on.
    #[error("its header is not valid ({why}); make the layer anew")]
    BadHeader {
        /// What the reader said.
        why: String,
    },
    /// The content ends before the size in the header.
    #[error(
        "it says to have {expected} bytes and has {actual}; the layer is cut off or lies about sizes, make it anew"
    )]
    SizeLie {
        /// Bytes announced.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// More headers before an entry than any tool writes.
    #[error(
        "more than {limit} bytes of headers stand before the next entry; make the layer anew with shorter names and attributes"
    )]
    HeaderTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// More bytes than allowed.
    #[error("the image unpacks to more than {limit} bytes; make it smaller: the limit is the same on every node")]
    TooManyBytes {
        /// Bytes allowed.
        limit: u64,
    },
    /// A compression bomb.
    #[error("the layer unpacks to more than {limit} times its size; if it is no bomb, store the layer uncompressed")]
    Bomb {
        /// The ratio allowed.
        limit: u64,
    },
    /// More files than allowed.
    #[error(
        "the image has more than {limit} files, folders and links; make it smaller: the limit is the same on every node"
    )]
    TooManyInodes {
        /// Inodes allowed.
        limit: u64,
    },
    /// Paths and whiteouts that cost more than any real image.
    #[error(
        "the image's paths lead through more than {limit} folders and links in all; remove long chains of symbolic links"
    )]
    TooMuchWork {
        /// Steps allowed.
        limit: u64,
    },
}
