//! What a decision must not name: clocks, chance, concurrency, sockets, files, unordered maps, floats, logs.
//!
//! The rule reads tokens, not types: a banned name inside a macro's arguments is found as well, and a path is compared as it is
//! written or as its `use` spells it in full. Tests inside a pure crate may do as they like.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

use crate::source::Source;

/// Words that have no pure meaning, wherever they stand.
const WORDS: [(&str, &str); 12] = [
    ("async", "asynchronous code"),
    ("await", "asynchronous code"),
    ("tokio", "asynchronous code"),
    ("futures", "asynchronous code"),
    ("SystemTime", "a clock"),
    ("HashMap", "an unordered map (use BTreeMap or Vec)"),
    ("HashSet", "an unordered set (use BTreeSet or Vec)"),
    ("RandomState", "a random source"),
    ("DefaultHasher", "an unstable hash"),
    ("getrandom", "a random source"),
    ("f32", "a float"),
    ("f64", "a float"),
];

/// Paths that have no pure meaning, but for the last words that are listed as harmless.
const PATHS: [(&[&str], &str, &[&str]); 15] = [
    (&["Instant", "now"], "a clock", &[]),
    (&["std", "time"], "a clock", &["Duration"]),
    (&["rand"], "a random source", &[]),
    (&["fastrand"], "a random source", &[]),
    (&["std", "fs"], "a file", &[]),
    (&["std", "io"], "a file", &["Read", "Write", "BufRead", "Seek", "Error", "ErrorKind", "Result"]),
    (&["std", "net"], "a socket", &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    (&["std", "os"], "the operating system", &[]),
    (&["std", "env"], "the environment", &[]),
    (&["std", "process"], "a process", &[]),
    (&["std", "thread"], "a thread", &[]),
    (&["std", "collections", "hash_map"], "an unordered map", &[]),
    (&["std", "collections", "*"], "an unordered map", &[]),
    (&["log"], "a log", &[]),
    (&["tracing"], "a log", &[]),
];

/// Macros that write to somewhere.
const LOGS: [&str; 11] =
    ["trace", "debug", "info", "warn", "error", "crit", "log", "print", "println", "eprint", "eprintln"];

/// Everything impure that production code of this file names.
pub fn violations(name: &str, source: &Source) -> Vec<String> {
    let tokens: TokenStream = source.text.parse().expect("the file was parsed before");
    let mut found = Vec::new();
    let mut uses = Uses { spelled: Vec::new() };
    uses.visit_file(&source.file);
    found.extend(uses.spelled.iter().filter_map(|(line, path)| Some((*line, banned_path(path)?))));
    words(tokens, &mut found);
    found.retain(|(line, _)| !source.in_tests(*line));
    found.sort();
    found.dedup();
    found.into_iter().map(|(line, what)| format!("{name}:{line} names {what}")).collect()
}

fn banned_path(path: &[String]) -> Option<String> {
    let core_is_std = |word: &str| if word == "core" || word == "alloc" { "std".to_owned() } else { word.to_owned() };
    let path: Vec<String> = path.iter().map(|word| core_is_std(word)).collect();
    let rule = PATHS.iter().find(|(prefix, _, harmless)| {
        path.len() >= prefix.len()
            && path.iter().zip(*prefix).all(|(word, banned)| word == banned)
            && !path.get(prefix.len()).is_some_and(|next| harmless.contains(&next.as_str()))
    })?;
    // `use std::io;` alone allows every use of it, so it is banned like the whole; so is the glob.
    Some(format!("{} ({})", rule.1, path.join("::")))
}

/// Walks one level of tokens: words, paths as written, macros, float literals; then what is inside brackets.
fn words(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(word) => {
                found.extend(banned_word(&word.to_string()).map(|what| (line, what)));
                found.extend(banned_macro(&trees[index..]).map(|what| (line, what)));
                if !continues_path(&trees[..index]) {
                    found.extend(banned_path(&written_path(&trees[index..])).map(|what| (line, what)));
                }
            }
            TokenTree::Literal(literal) if is_float(literal) && !is_field(&trees[..index]) => {
                found.push((line, format!("a float ({literal})")))
            }
            TokenTree::Group(group) => words(group.stream(), found),
            _ => {}
        }
    }
}

fn banned_word(word: &str) -> Option<String> {
    let float_method = word.ends_with("_f32") || word.ends_with("_f64");
    let rule = WORDS.iter().find(|(banned, _)| *banned == word).map(|(_, what)| *what);
    rule.or(float_method.then_some("a float")).map(|what| format!("{what} ({word})"))
}

fn banned_macro(trees: &[TokenTree]) -> Option<String> {
    let [TokenTree::Ident(word), TokenTree::Punct(mark), TokenTree::Group(arguments), ..] = trees else {
        return None;
    };
    let called = mark.as_char() == '!' && arguments.delimiter() != Delimiter::None;
    (called && LOGS.contains(&word.to_string().as_str())).then(|| format!("a log ({word}!)"))
}

/// `a::b::c` as it is written at the head of these tokens. A lone word is no path: it may be anybody's variable; `a::{..}` is a `use`,
/// which [`Uses`] spells.
fn written_path(trees: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = trees;
    while let [TokenTree::Ident(word), after @ ..] = rest {
        path.push(word.to_string());
        match after {
            [TokenTree::Punct(_), TokenTree::Punct(_), TokenTree::Group(_), ..] => return Vec::new(),
            [TokenTree::Punct(a), TokenTree::Punct(b), next @ ..] if a.as_char() == ':' && b.as_char() == ':' => {
                rest = next
            }
            _ => break,
        }
    }
    if path.len() > 1 { path } else { Vec::new() }
}

/// Whether the tokens before make the next word the middle of a path of ours, such as `crate::time::Instant` or `.time`.
fn continues_path(before: &[TokenTree]) -> bool {
    let own = |tree: Option<&TokenTree>| matches!(tree, Some(TokenTree::Ident(_) | TokenTree::Group(_)));
    match before {
        [.., TokenTree::Punct(dot)] if dot.as_char() == '.' => true,
        [head @ .., TokenTree::Punct(a), TokenTree::Punct(b)] if a.as_char() == ':' && b.as_char() == ':' => {
            own(head.last())
        }
        _ => false,
    }
}

/// `pair.1.0`: what looks like 1.0 after a single dot is two field numbers.
fn is_field(before: &[TokenTree]) -> bool {
    let dot = |tree: Option<&TokenTree>| matches!(tree, Some(TokenTree::Punct(mark)) if mark.as_char() == '.');
    dot(before.last()) && !dot(before.iter().rev().nth(1))
}

fn is_float(literal: &proc_macro2::Literal) -> bool {
    matches!(syn::parse_str::<syn::Lit>(&literal.to_string()), Ok(syn::Lit::Float(_)))
}

/// `use` trees spelled in full.
struct Uses {
    spelled: Vec<(usize, Vec<String>)>,
}

impl Uses {
    fn spell(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let joined = |word: String| prefix.iter().cloned().chain([word]).collect::<Vec<_>>();
        let mut leaf = |word: &syn::Ident, path| self.spelled.push((word.span().start().line, path));
        match tree {
            syn::UseTree::Path(path) => self.spell(&joined(path.ident.to_string()), &path.tree),
            syn::UseTree::Name(name) if name.ident == "self" => leaf(&name.ident, prefix.to_vec()),
            syn::UseTree::Name(name) => leaf(&name.ident, joined(name.ident.to_string())),
            syn::UseTree::Rename(name) => leaf(&name.ident, joined(name.ident.to_string())),
            syn::UseTree::Glob(glob) => {
                self.spelled.push((glob.star_token.spans[0].start().line, joined("*".to_owned())));
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.spell(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.spell(&[], &item.tree);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(text: &str) -> Vec<String> {
        violations("x.rs", &Source::new(Path::new("x.rs"), text.to_owned()))
    }

    #[test]
    fn each_planted_impurity_is_found() {
        let planted = [
            ("fn f() { let t = std::time::Instant::now(); }", "a clock"),
            ("use std::time::Instant;", "a clock"),
            ("use std::{collections::BTreeMap, time::{Duration, Instant as Clock}};", "a clock"),
            ("fn f() { let t = Instant::now(); }", "a clock"),
            ("fn f() -> ::std::time::SystemTime { g() }", "a clock"),
            ("use std::time;", "a clock"),
            ("fn f() { let n: u64 = rand::random(); }", "a random source"),
            ("use rand::Rng;", "a random source"),
            ("use std::hash::RandomState;", "a random source"),
            ("async fn f() {}", "asynchronous code"),
            ("fn f() { g(async { 1 }) }", "asynchronous code"),
            ("use tokio::sync::mpsc;", "asynchronous code"),
            ("fn f() { let s = std::net::TcpStream::connect(a); }", "a socket"),
            ("use std::net::{IpAddr, UdpSocket};", "a socket"),
            ("fn f() { std::fs::read(p); }", "a file"),
            ("use std::fs;", "a file"),
            ("use std::io;", "a file"),
            ("use std::io::{Read, stdin};", "a file"),
            ("use std::thread::spawn;", "a thread"),
            ("fn f() { std::env::var(n); }", "the environment"),
            ("use std::collections::HashMap;", "an unordered map"),
            ("use std::collections::{BTreeMap, HashSet};", "an unordered set"),
            ("use std::collections::*;", "an unordered map"),
            ("struct S { share: f64 }", "a float"),
            ("fn f() { let share = 0.5; }", "a float"),
            ("fn f() { g(vec![1e3]); }", "a float"),
            ("fn f() { g(0.0..1.0); }", "a float (1.0)"),
            ("fn f(d: Duration) { d.as_secs_f64(); }", "a float"),
            ("fn f() { tracing::info!(\"said\"); }", "a log"),
            ("fn f() { debug!(\"said\"); }", "a log"),
            ("fn f() { println!(\"said\"); }", "a log"),
            ("fn f() { assert!(matches!(x, HashMap { .. })); }", "an unordered map"),
        ];
        for (text, what) in planted {
            let said = check(text);
            assert!(said.iter().any(|v| v.contains(what)), "{text}: {said:?}");
        }
    }

    #[test]
    fn what_is_pure_passes() {
        let pure = [
            "use std::time::Duration; use std::net::{IpAddr, Ipv4Addr}; use std::io::Write; use std::fmt;",
            "use crate::time::Instant; fn f(now: Instant) { let fs = now; fs.time::<u8>(); }",
            "use std::collections::{BTreeMap, BTreeSet, VecDeque};",
            "fn f(t: (u8, (u8, u8))) -> u8 { let x = t.1.0; 1..2; x }",
            "fn error() {} fn log(tracing: u8) { error(); debug_assert!(tracing > 0); }",
            "/// An f64 of a HashMap, asynchronous: async.\nfn f() {}",
            "#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n    fn f() { println!(\"{}\", 0.5); }\n}",
        ];
        for text in pure {
            assert_eq!(check(text), Vec::<String>::new(), "{text}");
        }
    }
}
