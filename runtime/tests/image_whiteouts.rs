//! A naive second opinion of layers: overlay semantics on a map, whiteouts first and then additions, against the unpacked tree.

mod image_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use image_support::{Blobs, Layer, Place, Stored};
use proptest::prelude::*;

/// One member of a layer.
#[derive(Debug, Clone)]
enum Op {
    Folder(String, u32),
    File(String, u8),
    Whiteout(String),
    Opaque(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Folder(u32),
    File(u8),
}

type Tree = BTreeMap<String, Node>;

/// Folders are called `d` and `e`, files `f` and `g`, and `x` may be either but has nothing in it: what happens to paths through files is the
/// business of another test.
fn folders() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["d", "e"]), 0..3)
        .prop_map(|names| names.iter().map(|name| format!("{name}/")).collect())
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = |names: &'static [&'static str]| {
        (folders(), prop::sample::select(names)).prop_map(|(folder, name)| format!("{folder}{name}"))
    };
    let mode = prop::sample::select(vec![0o700, 0o711, 0o777]);
    prop_oneof![
        2 => (leaf(&["d", "e", "x"]), mode).prop_map(|(path, mode)| Op::Folder(path, mode)),
        4 => (leaf(&["f", "g", "x"]), any::<u8>()).prop_map(|(path, content)| Op::File(path, content)),
        3 => leaf(&["d", "e", "f", "g", "x"]).prop_map(Op::Whiteout),
        1 => folders().prop_map(Op::Opaque),
    ]
}

fn archive(ops: &[Op]) -> Vec<u8> {
    let add = |layer: Layer, op: &Op| match op {
        Op::Folder(path, mode) => layer.folder(path, *mode),
        Op::File(path, content) => layer.file(path, &[*content]),
        Op::Whiteout(path) => {
            let (folder, name) = path.rsplit_once('/').map_or(("", &path[..]), |(folder, name)| (folder, name));
            layer.file(format!("{folder}/.wh.{name}").trim_start_matches('/'), b"")
        }
        Op::Opaque(folder) => layer.file(&format!("{folder}.wh..wh..opq"), b""),
    };
    ops.iter().fold(Layer::default(), add).finish()
}

fn remove_below(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| !other.starts_with(&below));
}

fn naive(layers: &[Vec<Op>]) -> Tree {
    let mut tree = Tree::new();
    for ops in layers {
        for op in ops {
            match op {
                Op::Whiteout(path) => {
                    tree.remove(path);
                    remove_below(&mut tree, path);
                }
                Op::Opaque(folder) if folder.is_empty() => tree.clear(),
                Op::Opaque(folder) => remove_below(&mut tree, folder.trim_end_matches('/')),
                _ => {}
            }
        }
        for op in ops {
            let (Op::Folder(path, _) | Op::File(path, _)) = op else { continue };
            for (slash, _) in path.match_indices('/') {
                tree.entry(path[..slash].to_owned()).or_insert(Node::Folder(0o755));
            }
            match op {
                Op::File(_, content) => tree.insert(path.clone(), Node::File(*content)),
                Op::Folder(_, mode) => tree.insert(path.clone(), Node::Folder(*mode)),
                _ => None,
            };
        }
    }
    tree
}

fn read(root: &Path, prefix: &str, tree: &mut Tree) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(prefix))? {
        let path = format!("{prefix}{}", entry?.file_name().to_string_lossy());
        let metadata = fs::symlink_metadata(root.join(&path))?;
        if metadata.is_dir() {
            tree.insert(path.clone(), Node::Folder(metadata.mode() & 0o7777));
            read(root, &format!("{path}/"), tree)?;
        } else {
            tree.insert(path.clone(), Node::File(fs::read(root.join(&path))?[0]));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_tree_is_what_a_naive_reader_expects(layers in prop::collection::vec(prop::collection::vec(op(), 0..12), 1..5)) {
        let archives: Vec<Vec<u8>> = layers.iter().map(|ops| archive(ops)).collect();
        let place = Place::in_memory().expect("a temporary store");
        let digest = Blobs::new(&archives, Stored::Plain).put(&place.store).expect("sound blobs");
        let image = place.store.unpack(&digest).expect("nothing to refuse");
        let mut found = Tree::new();
        read(&image.root, "", &mut found).expect("readable");
        prop_assert_eq!(found, naive(&layers));
    }
}
