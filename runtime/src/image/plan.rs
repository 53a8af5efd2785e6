//! Decides what each entry does to the tree. Pure: it keeps the whole tree in memory (names, kinds, folders' owners; no content), follows
//! links in it as a process inside the image would, and answers with steps on paths that cross no link. `perform` does them, or nobody,
//! when an image is only being rehearsed.
//!
//! Links: a path may lead through symbolic links of the image (`/lib -> usr/lib` of a merged distribution does so in every image); they are
//! followed inside the image's root and can never lead out of it, `..` at the root stays there.
//!
//! Whiteouts remove what *lower* layers have, wherever they stand among the entries of their own layer: each node knows its layer.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use super::entry::{Action, Entry, Meta, Name};
use super::limits::Limits;
use super::refusal::Rule;

/// Links on one path, as the kernel bounds them.
const MAX_HOPS: usize = 40;

/// Owner and permissions of folders that no entry describes.
const IMPLIED: Meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), attributes: Vec::new() };

/// A path from the root without links in it: names joined by `/`, empty for the root.
pub(super) type TreePath = Vec<u8>;

/// One change to the tree on disk. Steps are to be done in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// With everything in it.
    Remove(TreePath),
    /// Private until the end, when folders get their owners and modes (see [`Plan::folders`]).
    MakeFolder(TreePath),
    MakeFile(TreePath),
    MakeFifo(TreePath),
    MakeSymbolicLink {
        path: TreePath,
        target: Box<[u8]>,
    },
    MakeHardLink {
        path: TreePath,
        target: TreePath,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id(usize);

const ROOT: Id = Id(0);

struct Node {
    parent: Id,
    name: Name,
    depth: usize,
    path_bytes: usize,
    layer: usize,
    /// The layer in which nothing of lower layers was left in this folder, so that removing it again costs nothing.
    cleared: usize,
    kind: Kind,
}

enum Kind {
    Folder { children: BTreeMap<Name, Id>, meta: Box<Meta> },
    SymbolicLink(Box<[u8]>),
    Other,
}

/// The tree as far as it is planned.
pub(super) struct Plan {
    nodes: Vec<Node>,
    layer: usize,
    limits: Limits,
    /// Nodes looked at so far.
    work: Cell<u64>,
}

impl Plan {
    pub(super) fn new(limits: &Limits) -> Self {
        let kind = Kind::Folder { children: BTreeMap::new(), meta: Box::new(IMPLIED) };
        let root = Node { parent: ROOT, name: Name::default(), depth: 0, path_bytes: 0, layer: 0, cleared: 0, kind };
        Self { nodes: vec![root], layer: 0, limits: *limits, work: Cell::new(0) }
    }

    /// What was there so far is lower now.
    pub(super) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// All that was ever made, removed again or not.
    pub(super) fn inodes(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// What the entry does.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<Vec<Step>, Rule> {
        let mut steps = Vec::new();
        match (&entry.action, entry.path.split_last()) {
            (Action::Skip(_), _) => {}
            (Action::Opaque, _) => self.clear(&entry.path, &mut steps)?,
            (Action::Folder, None) => self.describe(ROOT, &entry.meta),
            (_, None) => return Err(Rule::RootNotAFolder),
            (Action::Whiteout, Some((name, parents))) => self.white_out(parents, name, &mut steps)?,
            (Action::Folder, Some((name, parents))) => self.put_folder(parents, name, &entry.meta, &mut steps)?,
            (Action::HardLink { target }, Some((name, parents))) => {
                self.put_hard_link(parents, name, target, &mut steps)?
            }
            (_, Some((name, parents))) => self.put(parents, name, &entry.action, &mut steps)?,
        }
        Ok(steps)
    }

    /// All folders with what they are to be in the end, each after the folders in it.
    pub(super) fn folders(&self) -> Vec<(TreePath, &Meta)> {
        let mut found = Vec::new();
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            if let Kind::Folder { children, meta } = &self.node(id).kind {
                found.push((self.path(id), &**meta));
                open.extend(children.values());
            }
        }
        found.reverse();
        found
    }

    /// Links and whiteouts can make one small entry look at many nodes, and there can be many such entries.
    fn work(&self) -> Result<(), Rule> {
        self.work.set(self.work.get() + 1);
        match self.work.get() <= self.limits.tree_steps {
            true => Ok(()),
            false => Err(Rule::TooMuchWork { limit: self.limits.tree_steps }),
        }
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    fn child(&self, folder: Id, name: &[u8]) -> Option<Id> {
        match &self.node(folder).kind {
            Kind::Folder { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn path(&self, id: Id) -> TreePath {
        let mut names = Vec::new();
        let mut id = id;
        while id != ROOT {
            names.push(&*self.node(id).name);
            id = self.node(id).parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn shown(&self, id: Id) -> String {
        self.path(id).escape_ascii().to_string()
    }

    /// An entry of this layer speaks of the folder: from now on it counts as this layer's.
    fn describe(&mut self, folder: Id, with: &Meta) {
        let layer = self.layer;
        let node = &mut self.nodes[folder.0];
        node.layer = layer;
        if let Kind::Folder { meta, .. } = &mut node.kind {
            **meta = with.clone();
        }
    }

    fn insert(&mut self, folder: Id, name: &[u8], kind: Kind) -> Result<Id, Rule> {
        let parent = self.node(folder);
        let (depth, path_bytes) = (parent.depth + 1, parent.path_bytes + name.len() + 1);
        // Links can make the real path longer than the one written down.
        if depth > self.limits.path_depth {
            return Err(Rule::TooDeep { found: depth, limit: self.limits.path_depth });
        }
        if path_bytes > self.limits.path_bytes {
            return Err(Rule::PathTooLong { found: path_bytes, limit: self.limits.path_bytes });
        }
        if self.inodes() >= self.limits.inodes {
            return Err(Rule::TooManyInodes { limit: self.limits.inodes });
        }
        let id = Id(self.nodes.len());
        self.nodes.push(Node {
            parent: folder,
            name: name.into(),
            depth,
            path_bytes,
            layer: self.layer,
            cleared: self.layer,
            kind,
        });
        if let Kind::Folder { children, .. } = &mut self.nodes[folder.0].kind {
            children.insert(name.into(), id);
        }
        Ok(id)
    }

    fn make_folder(&mut self, parent: Id, name: &[u8], meta: Meta, steps: &mut Vec<Step>) -> Result<Id, Rule> {
        let id = self.insert(parent, name, Kind::Folder { children: BTreeMap::new(), meta: Box::new(meta) })?;
        steps.push(Step::MakeFolder(self.path(id)));
        Ok(id)
    }

    fn detach(&mut self, id: Id) {
        let Node { parent, name, .. } = &self.nodes[id.0];
        let (parent, name) = (*parent, name.clone());
        if let Kind::Folder { children, .. } = &mut self.nodes[parent.0].kind {
            children.remove(&name);
        }
    }

    fn remove(&mut self, id: Id, steps: &mut Vec<Step>) {
        steps.push(Step::Remove(self.path(id)));
        self.detach(id);
    }

    /// The folder that the names lead to, links followed inside the root. Missing folders are made.
    fn enter(&mut self, names: &[Name], steps: &mut Vec<Step>) -> Result<Id, Rule> {
        let mut walk = Walk::new(names);
        while let Some(name) = walk.next_name() {
            match self.advance(&mut walk, &name)? {
                Some(()) => {}
                None => walk.at = self.make_folder(walk.at, &name, IMPLIED, steps)?,
            }
        }
        Ok(walk.at)
    }

    /// The same, but none when a folder is missing.
    fn find(&self, names: &[Name]) -> Result<Option<Id>, Rule> {
        let mut walk = Walk::new(names);
        while let Some(name) = walk.next_name() {
            if self.advance(&mut walk, &name)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(walk.at))
    }

    /// One name further; none when there is nothing by this name.
    fn advance(&self, walk: &mut Walk, name: &[u8]) -> Result<Option<()>, Rule> {
        self.work()?;
        if name == b".." {
            walk.at = self.node(walk.at).parent; // the root's parent is the root
            return Ok(Some(()));
        }
        let Some(id) = self.child(walk.at, name) else { return Ok(None) };
        match &self.node(id).kind {
            Kind::Folder { .. } => walk.at = id,
            Kind::SymbolicLink(target) => walk.follow(target)?,
            Kind::Other => return Err(Rule::ParentNotAFolder { through: self.shown(id) }),
        }
        Ok(Some(()))
    }

    fn put_folder(&mut self, parents: &[Name], name: &[u8], meta: &Meta, steps: &mut Vec<Step>) -> Result<(), Rule> {
        let parent = self.enter(parents, steps)?;
        if let Some(id) = self.child(parent, name) {
            if matches!(self.node(id).kind, Kind::Folder { .. }) {
                self.describe(id, meta);
                return Ok(());
            }
            self.remove(id, steps);
        }
        self.make_folder(parent, name, meta.clone(), steps).map(|_| ())
    }

    fn put(&mut self, parents: &[Name], name: &[u8], action: &Action, steps: &mut Vec<Step>) -> Result<(), Rule> {
        let parent = self.enter(parents, steps)?;
        let kind = match action {
            Action::SymbolicLink { target } => {
                check_climb(self.node(parent).depth, target)?;
                Kind::SymbolicLink(target.clone())
            }
            _ => Kind::Other,
        };
        if let Some(id) = self.child(parent, name) {
            self.remove(id, steps);
        }
        let id = self.insert(parent, name, kind)?;
        let path = self.path(id);
        steps.push(match action {
            Action::SymbolicLink { target } => Step::MakeSymbolicLink { path, target: target.clone() },
            Action::Fifo => Step::MakeFifo(path),
            _ => Step::MakeFile(path),
        });
        Ok(())
    }

    fn put_hard_link(
        &mut self,
        parents: &[Name],
        name: &[u8],
        target: &[Name],
        steps: &mut Vec<Step>,
    ) -> Result<(), Rule> {
        let parent = self.enter(parents, steps)?;
        let existing = self.child(parent, name);
        if existing.is_some() && existing == self.link_target(target)? {
            return Ok(()); // a link to itself is there already
        }
        if let Some(id) = existing {
            self.remove(id, steps);
        }
        // Looked for again: it may have been in what was just replaced.
        let shown = || target.join(&b'/').escape_ascii().to_string();
        let found = self.link_target(target)?.ok_or_else(|| Rule::HardLinkToNothing { target: shown() })?;
        let kind = match &self.node(found).kind {
            Kind::Folder { .. } => return Err(Rule::HardLinkToFolder { target: shown() }),
            Kind::SymbolicLink(to) => Kind::SymbolicLink(to.clone()),
            Kind::Other => Kind::Other,
        };
        let id = self.insert(parent, name, kind)?;
        steps.push(Step::MakeHardLink { path: self.path(id), target: self.path(found) });
        Ok(())
    }

    /// What a hard link means: folders on the way are followed through links, the last name is not.
    fn link_target(&self, target: &[Name]) -> Result<Option<Id>, Rule> {
        let Some((name, parents)) = target.split_last() else { return Ok(None) };
        Ok(self.find(parents)?.and_then(|folder| self.child(folder, name)))
    }

    fn white_out(&mut self, parents: &[Name], name: &[u8], steps: &mut Vec<Step>) -> Result<(), Rule> {
        match self.find_to_remove(parents)?.and_then(|folder| self.child(folder, name)) {
            Some(id) => self.prune(id, steps),
            None => Ok(()),
        }
    }

    fn clear(&mut self, folder: &[Name], steps: &mut Vec<Step>) -> Result<(), Rule> {
        match self.find_to_remove(folder)? {
            Some(id) => self.prune_children(id, steps),
            None => Ok(()),
        }
    }

    /// Below something that is no folder there is nothing to remove.
    fn find_to_remove(&self, names: &[Name]) -> Result<Option<Id>, Rule> {
        match self.find(names) {
            Err(Rule::ParentNotAFolder { .. }) => Ok(None),
            found => found,
        }
    }

    /// Removes what is of lower layers and keeps what is of this one, with the folders that lead to it. The depth is bounded by
    /// `Limits::path_depth`.
    fn prune(&mut self, id: Id, steps: &mut Vec<Step>) -> Result<(), Rule> {
        if !self.has_own(id)? {
            self.remove(id, steps);
            return Ok(());
        }
        if self.node(id).layer != self.layer {
            self.describe(id, &IMPLIED); // the folder itself is gone; what is kept stands in a new one
        }
        self.prune_children(id, steps)
    }

    fn prune_children(&mut self, id: Id, steps: &mut Vec<Step>) -> Result<(), Rule> {
        let node = self.node(id);
        if node.cleared == self.layer {
            return Ok(());
        }
        let Kind::Folder { children, .. } = &node.kind else { return Ok(()) };
        for child in children.values().copied().collect::<Vec<_>>() {
            self.prune(child, steps)?;
        }
        self.nodes[id.0].cleared = self.layer;
        Ok(())
    }

    /// Whether the node or anything in it is of this layer.
    fn has_own(&self, id: Id) -> Result<bool, Rule> {
        self.work()?;
        let node = self.node(id);
        let Kind::Folder { children, .. } = &node.kind else { return Ok(node.layer == self.layer) };
        if node.layer == self.layer {
            return Ok(true);
        }
        for child in children.values() {
            if self.has_own(*child)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A path being followed.
struct Walk {
    at: Id,
    todo: VecDeque<Name>,
    hops: usize,
}

impl Walk {
    fn new(names: &[Name]) -> Self {
        Self { at: ROOT, todo: names.iter().cloned().collect(), hops: 0 }
    }

    fn next_name(&mut self) -> Option<Name> {
        self.todo.pop_front()
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), Rule> {
        self.hops += 1;
        if self.hops > MAX_HOPS {
            return Err(Rule::LinkLoop);
        }
        if target.starts_with(b"/") {
            self.at = ROOT;
        }
        let names = target.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
        for name in names.rev() {
            self.todo.push_front(name.into());
        }
        Ok(())
    }
}

/// Refuses links with more `..` than folders above them. They would stay in the root all the same; but whoever writes one
/// means harm or has made a mistake.
fn check_climb(depth: usize, target: &[u8]) -> Result<(), Rule> {
    let mut depth = if target.starts_with(b"/") { 0 } else { depth };
    for name in target.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return Err(Rule::EscapingLink { target: target.escape_ascii().to_string() }),
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(())
}
