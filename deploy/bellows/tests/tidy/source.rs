//! Source files, and which of their lines are production: those outside `#[cfg(test)]` items that hold code. Blank lines and lines
//! of nothing but comment are free, so that nobody saves on them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One parsed file.
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// What it means.
    pub file: syn::File,
    tests: Vec<RangeInclusive<usize>>,
}

impl Source {
    /// Parses one file's text.
    pub fn new(path: &Path, text: String) -> Self {
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{} is no Rust: {e}", path.display()));
        let mut found = TestItems::default();
        if is_test(&file.attrs) {
            found.lines.push(1..=usize::MAX);
        }
        found.visit_file(&file);
        Self { path: path.to_owned(), text, file, tests: found.lines }
    }

    /// Path below the workspace.
    pub fn name(&self, root: &Path) -> String {
        self.path.strip_prefix(root).unwrap_or(&self.path).display().to_string()
    }

    /// Whether this line, counted from 1, belongs to tests.
    pub fn in_tests(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// How many production lines there are among these.
    pub fn production_lines(&self, lines: RangeInclusive<usize>) -> usize {
        let numbered = self.text.lines().enumerate().map(|(index, text)| (index + 1, text.trim()));
        let code = numbered.filter(|(_, text)| !text.is_empty() && !text.starts_with("//"));
        code.filter(|(line, _)| lines.contains(line) && !self.in_tests(*line)).count()
    }
}

/// `#[cfg(test)]`, or `cfg(all(test, ..))`.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || a.path().is_ident("cfg")
                && a.meta.require_list().is_ok_and(|list| {
                    let words = list.tokens.to_string();
                    words == "test" || words.replace(' ', "").starts_with("all(test,")
                })
    })
}

#[derive(Default)]
struct TestItems {
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<String>,
}

impl TestItems {
    fn note(&mut self, attributes: &[syn::Attribute], item: &dyn Spanned) -> bool {
        let test = is_test(attributes);
        if test {
            let first = attributes.iter().map(|a| a.span().start().line).min();
            let span = item.span();
            self.lines.push(first.unwrap_or(span.start().line)..=span.end().line);
        }
        test
    }
}

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if self.note(&item.attrs, item) {
            if item.content.is_none() {
                self.modules.push(item.ident.to_string());
            }
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.attrs, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !self.note(&item.attrs, item) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.attrs, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note(&item.attrs, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.note(&item.attrs, item);
    }
}

/// Every production file below a `src` folder, those left out that a `#[cfg(test)] mod name;` brings in.
pub fn files(folder: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(folder, &mut paths);
    let sources = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        Source::new(path, text)
    });
    let sources: Vec<_> = sources.collect();
    let tests: BTreeSet<PathBuf> = sources.iter().flat_map(test_modules).collect();
    let of_tests = |path: &Path| tests.iter().any(|t| path == t.with_extension("rs") || path.starts_with(t));
    sources.into_iter().filter(|s| !of_tests(&s.path)).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("listing {}: {e}", folder.display()));
    for path in entries.map(|e| e.expect("a readable entry").path()) {
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Paths, without the ending, of the modules that are tests in files of their own.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    let mut found = TestItems::default();
    found.visit_file(&source.file);
    let stem = source.path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let folder = match stem {
        "mod" | "lib" | "main" => source.path.with_file_name(""),
        _ => source.path.with_extension(""),
    };
    found.modules.into_iter().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "//! Docs.\n\nfn one() {\n    // why\n    let _ = 1;\n}\n\n#[cfg(test)]\nmod tests {\n    fn two() {}\n}\n";

    #[test]
    fn comments_blank_lines_and_tests_are_no_production() {
        let source = Source::new(Path::new("x.rs"), TEXT.to_owned());
        assert_eq!(source.production_lines(1..=usize::MAX), 3);
        assert!(source.in_tests(8) && source.in_tests(10) && !source.in_tests(5));
    }

    #[test]
    fn a_file_of_tests_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("lib.rs", "#[cfg(test)]\nmod scripts;\nmod plan;");
        write("scripts.rs", "fn of_a_test() {}");
        write("plan.rs", "fn of_production() {}");
        let mut names: Vec<_> = files(folder.path()).iter().map(|s| s.name(folder.path())).collect();
        names.sort();
        assert_eq!(names, ["lib.rs", "plan.rs"]);
    }
}
