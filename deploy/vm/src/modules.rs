//! Kernel modules for a machine: their files, in an order in which they can be loaded.
//!
//! A package that was fetched and not installed has no `modules.dep`; each module's own section `.modinfo` says what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A module's name and file.
pub type Module = (String, Vec<u8>);

/// The modules of `wanted`, which all exist or are built in, and all they need, each after what it needs. `folder` is `lib/modules/VERSION`.
pub fn in_order(folder: &Path, wanted: &[&str]) -> io::Result<Vec<Module>> {
    let built_in = fs::read_to_string(folder.join("modules.builtin"))?;
    let built_in = built_in.lines().map(|line| name_of(Path::new(line))).collect();
    let mut loading =
        Loading { files: files(&folder.join("kernel"))?, built_in, seen: BTreeSet::new(), order: Vec::new() };
    wanted.iter().try_for_each(|name| loading.add(&underscored(name)))?;
    Ok(loading.order)
}

struct Loading {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Loading {
    fn add(&mut self, name: &str) -> io::Result<()> {
        if self.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no module {name}"));
        let content = fs::read(self.files.get(name).ok_or_else(missing)?)?;
        needs(&content).iter().try_for_each(|needed| self.add(needed))?;
        self.order.push((name.to_owned(), content));
        Ok(())
    }
}

fn files(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let (mut found, mut next) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder)? {
            let (kind, path) = entry.and_then(|entry| Ok((entry.file_type()?, entry.path())))?;
            if kind.is_dir() {
                next.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                found.insert(name_of(&path), path);
            }
        }
    }
    Ok(found)
}

/// File names have dashes where the kernel has underscores.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &Path) -> String {
    underscored(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// What a module needs: `depends=a,b` among the NUL-ended texts of `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|name| !name.is_empty()).map(underscored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("kernel/net")).expect("a folder");
        fs::write(folder.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").expect("written");
        for (name, needs) in modules {
            let text = format!("ELF\0license=GPL\0depends={needs}\0name=x\0");
            fs::write(folder.path().join(format!("kernel/net/{name}.ko")), text).expect("written");
        }
        folder
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let folder = tree(&[("a", "b-2,c"), ("b-2", "c"), ("c", ""), ("unwanted", "")]);
        let order = in_order(folder.path(), &["ext4", "a", "b-2"]).expect("all are there");
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c", "b_2", "a"]);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let folder = tree(&[("a", "gone")]);
        let error = in_order(folder.path(), &["a"]).expect_err("it needs one that is not there").to_string();
        assert!(error.contains("no module gone"), "{error}");
    }
}
