//! One member of a layer's archive, checked by itself: names, kind, owner, times, attributes. What it does to the tree is `plan`'s question.

use std::io::Read;

use tar::EntryType;

use super::limits::Limits;
use super::refusal::Rule;

/// A name in a path: not empty, not `.` or `..`, no `/`, no control character.
pub(super) type Name = Box<[u8]>;

/// A checked entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Names from the root down; empty for the root itself. For a whiteout, of what it removes; for an opaque mark, of the folder.
    pub path: Vec<Name>,
    pub action: Action,
    pub meta: Meta,
}

/// What an entry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Folder,
    File {
        bytes: u64,
    },
    Fifo,
    SymbolicLink {
        target: Box<[u8]>,
    },
    HardLink {
        target: Vec<Name>,
    },
    /// Removes what lower layers have at the path.
    Whiteout,
    /// Removes what lower layers have in the folder.
    Opaque,
    /// Nothing, for this reason.
    Skip(&'static str),
}

/// Owner, permissions, time and attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The lower 12 bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Only those worth keeping, see [`keeps_attribute`].
    pub attributes: Vec<(Name, Box<[u8]>)>,
}

/// The id that the kernel reads as "leave it alone", so no file can have it.
const NO_ID: u32 = u32::MAX;

/// Reads the header of an entry. `Ok(None)`: not a file at all (a global header).
pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>, limits: &Limits) -> Result<Option<Entry>, Rule> {
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(None);
    }
    let raw = entry.path_bytes().into_owned();
    let mut path = components(&raw, limits)?;
    let meta = meta(entry, limits)?;
    let action = match removal(&mut path)? {
        Some(removal) => removal,
        None => action(entry, kind, &raw, &path, limits)?,
    };
    Ok(Some(Entry { path, action, meta }))
}

/// Splits a path into names and checks each.
pub(super) fn components(raw: &[u8], limits: &Limits) -> Result<Vec<Name>, Rule> {
    if raw.len() > limits.path_bytes {
        return Err(Rule::PathTooLong { found: raw.len(), limit: limits.path_bytes });
    }
    if raw.is_empty() {
        return Err(Rule::EmptyName);
    }
    if raw.iter().any(u8::is_ascii_control) {
        return Err(Rule::ControlCharacter);
    }
    if raw[0] == b'/' {
        return Err(Rule::AbsolutePath);
    }
    let names = raw.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names = names.map(|name| check_component(name, limits)).collect::<Result<Vec<Name>, Rule>>()?;
    if names.len() > limits.path_depth {
        return Err(Rule::TooDeep { found: names.len(), limit: limits.path_depth });
    }
    Ok(names)
}

fn check_component(name: &[u8], limits: &Limits) -> Result<Name, Rule> {
    if name == b".." {
        return Err(Rule::ParentInPath);
    }
    if name.len() > limits.name_bytes {
        return Err(Rule::NameTooLong { found: name.len(), limit: limits.name_bytes });
    }
    Ok(name.into())
}

/// Recognises `.wh.` names, and makes the path that of what they remove.
fn removal(path: &mut Vec<Name>) -> Result<Option<Action>, Rule> {
    let Some((last, parents)) = path.split_last() else { return Ok(None) };
    if parents.iter().any(|name| name.starts_with(b".wh.")) {
        return Err(Rule::ReservedName);
    }
    let Some(removed) = last.strip_prefix(b".wh.") else { return Ok(None) };
    match removed {
        b".wh..opq" => {
            path.pop();
            Ok(Some(Action::Opaque))
        }
        _ if removed.starts_with(b".wh.") => Ok(Some(Action::Skip("bookkeeping of the AUFS file system"))),
        b"" | b"." | b".." => Err(Rule::BadWhiteout),
        _ => {
            let removed = Name::from(removed);
            path.pop();
            path.push(removed);
            Ok(Some(Action::Whiteout))
        }
    }
}

fn action<R: Read>(
    entry: &tar::Entry<'_, R>,
    kind: EntryType,
    raw: &[u8],
    path: &[Name],
    limits: &Limits,
) -> Result<Action, Rule> {
    let in_dev = path.first().is_some_and(|first| **first == *b"dev");
    match kind {
        EntryType::Directory => Ok(Action::Folder),
        // Archives older than POSIX mark folders by the slash alone.
        EntryType::Regular if raw.ends_with(b"/") || path.is_empty() => Ok(Action::Folder),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(Action::File { bytes: entry.size() }),
        EntryType::Symlink => Ok(Action::SymbolicLink { target: symbolic_target(&link_target(entry)?, limits)? }),
        EntryType::Link => hard_link(&link_target(entry)?, limits),
        EntryType::Fifo => Ok(Action::Fifo),
        EntryType::Char | EntryType::Block if in_dev => {
            Ok(Action::Skip("a device; containers get theirs from the runtime"))
        }
        EntryType::Char => Err(Rule::Device { kind: "character device" }),
        EntryType::Block => Err(Rule::Device { kind: "block device" }),
        other => Err(Rule::UnknownKind { kind: other.as_byte().escape_ascii().to_string() }),
    }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, Rule> {
    entry.link_name_bytes().map(|target| target.into_owned()).ok_or(Rule::BadLinkTarget)
}

/// A symbolic link may point anywhere inside the image; whether it climbs out depends on where it stands, so `plan` says that.
fn symbolic_target(target: &[u8], limits: &Limits) -> Result<Box<[u8]>, Rule> {
    if target.is_empty() || target.contains(&0) {
        return Err(Rule::BadLinkTarget);
    }
    if target.len() > limits.path_bytes {
        return Err(Rule::PathTooLong { found: target.len(), limit: limits.path_bytes });
    }
    Ok(target.into())
}

fn hard_link(target: &[u8], limits: &Limits) -> Result<Action, Rule> {
    let shown = || target.escape_ascii().to_string();
    let names =
        components(target, limits).map_err(|rule| Rule::HardLinkName { target: shown(), rule: Box::new(rule) })?;
    if names.is_empty() {
        return Err(Rule::HardLinkToFolder { target: shown() });
    }
    Ok(Action::HardLink { target: names })
}

fn meta<R: Read>(entry: &mut tar::Entry<'_, R>, limits: &Limits) -> Result<Meta, Rule> {
    let bad = |error: std::io::Error| Rule::BadHeader { why: error.to_string() };
    let header = entry.header();
    let mut meta = Meta {
        mode: header.mode().map_err(bad)? & 0o7777,
        uid: id(header.uid().map_err(bad)?)?,
        gid: id(header.gid().map_err(bad)?)?,
        mtime: (i64::try_from(header.mtime().map_err(bad)?).unwrap_or(0), 0),
        attributes: Vec::new(),
    };
    extend(entry, &mut meta, limits)?;
    Ok(meta)
}

fn id(number: u64) -> Result<u32, Rule> {
    match u32::try_from(number) {
        Ok(id) if id != NO_ID => Ok(id),
        _ => Err(Rule::BadHeader { why: format!("the owner {number} is not a user or group id") }),
    }
}

/// What PAX records add. The tar crate itself applies path, linkpath, size, uid and gid.
fn extend<R: Read>(entry: &mut tar::Entry<'_, R>, meta: &mut Meta, limits: &Limits) -> Result<(), Rule> {
    let bad = |error: std::io::Error| Rule::BadHeader { why: error.to_string() };
    let Some(records) = entry.pax_extensions().map_err(bad)? else { return Ok(()) };
    let mut attribute_bytes = 0;
    for record in records {
        let record = record.map_err(bad)?;
        let (key, value) = (record.key_bytes(), record.value_bytes());
        if key.starts_with(b"GNU.sparse.") {
            return Err(Rule::PaxSparse);
        } else if key == b"mtime" {
            meta.mtime = time(value).ok_or_else(|| Rule::BadHeader { why: "mtime is not a number".to_owned() })?;
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            attribute_bytes += name.len() + value.len();
            if attribute_bytes > limits.xattr_bytes {
                return Err(Rule::TooManyAttributes { limit: limits.xattr_bytes });
            }
            if keeps_attribute(name) {
                meta.attributes.push((name.into(), value.into()));
            }
        }
    }
    Ok(())
}

/// `user.*` and file capabilities are kept. `user.overlay.*` is not: overlayfs would take it for its own marks (redirects, opaque
/// folders) and follow them. `trusted.*`, other `security.*` (labels of another host) and `system.*` (ACLs) are not.
fn keeps_attribute(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0))
}

/// `-12.5` as seconds and nanoseconds, the nanoseconds counting forward.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let limits = Limits { path_bytes: 20, name_bytes: 8, path_depth: 3, ..Limits::default() };
        let check = |raw: &[u8]| components(raw, &limits).map(|names| names.join(&b'/'));
        assert_eq!(check(b"./a//b/"), Ok(b"a/b".to_vec()));
        assert_eq!(check(b"./"), Ok(Vec::new()));
        assert_eq!(check(b"a\xff"), Ok(b"a\xff".to_vec()));
        assert_eq!(check(b""), Err(Rule::EmptyName));
        assert_eq!(check(b"/a"), Err(Rule::AbsolutePath));
        assert_eq!(check(b"a/../b"), Err(Rule::ParentInPath));
        assert_eq!(check(b"a\nb"), Err(Rule::ControlCharacter));
        assert_eq!(check(b"a\0b"), Err(Rule::ControlCharacter));
        assert_eq!(check(b"a/b/c/d"), Err(Rule::TooDeep { found: 4, limit: 3 }));
        assert_eq!(check(b"123456789"), Err(Rule::NameTooLong { found: 9, limit: 8 }));
        assert_eq!(check(&[b'a'; 21]), Err(Rule::PathTooLong { found: 21, limit: 20 }));
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"1.x"), None);
    }
}
