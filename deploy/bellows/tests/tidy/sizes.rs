//! A function has at most 70 production lines and a file 500 (see `source` for what counts).

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::Source;

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 500;

/// The file and the functions in it that are too long.
pub fn violations(name: &str, source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.production_lines(1..=usize::MAX);
    if lines > FILE_LINES {
        found.push(format!("{name} has {lines} production lines, {FILE_LINES} are allowed"));
    }
    let mut functions = Functions { name, source, found };
    functions.visit_file(&source.file);
    functions.found
}

struct Functions<'a> {
    name: &'a str,
    source: &'a Source,
    found: Vec<String>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, whole: &dyn Spanned) {
        let (first, last) = (name.span().start().line, whole.span().end().line);
        let lines = self.source.production_lines(first..=last);
        if lines > FUNCTION_LINES {
            let text = format!("{}:{first} fn {name} has {lines} lines, {FUNCTION_LINES} are allowed", self.name);
            self.found.push(text);
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig.ident, item);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig.ident, item);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.measure(&item.sig.ident, item);
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(text: String) -> Vec<String> {
        violations("x.rs", &Source::new(Path::new("x.rs"), text))
    }

    fn function(name: &str, statements: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    step();\n".repeat(statements))
    }

    #[test]
    fn what_is_just_small_enough_passes() {
        assert_eq!(check(function("long", FUNCTION_LINES - 2)), Vec::<String>::new());
        assert_eq!(check("const A: u8 = 0;\n".repeat(FILE_LINES)), Vec::<String>::new());
    }

    #[test]
    fn a_planted_long_function_is_found_also_in_an_impl() {
        assert_eq!(check(function("long", 69)), ["x.rs:1 fn long has 71 lines, 70 are allowed"]);
        let method = format!("struct S;\nimpl S {{\n{}}}\n", function("long", 69));
        assert_eq!(check(method), ["x.rs:3 fn long has 71 lines, 70 are allowed"]);
    }

    #[test]
    fn a_long_function_of_the_tests_is_no_violation() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("long", 600));
        assert_eq!(check(tests), Vec::<String>::new());
    }

    #[test]
    fn a_planted_long_file_is_found() {
        assert_eq!(check("const A: u8 = 0;\n".repeat(501)), ["x.rs has 501 production lines, 500 are allowed"]);
    }
}
