//! What no compiler checks: which part imports which, the edges of orderings, the length of lines, names of types,
//! descriptors that programs would inherit.

mod code;
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::run::root;
use code::{Token, code};

/// Columns of a line.
const COLUMNS: usize = 120;

/// The crates whose orderings name their edges.
const ORDERED: [&str; 4] = ["ring-state", "ring-alloc", "ring-io", "buffer_ring"];

/// The page that lists the edges.
const EDGES: &str = "docs/ORDERINGS.md";

/// What returns a descriptor that is inherited unless it is told otherwise.
const OPENING: [&str; 2] = [concat!("fs::", "open("), concat!("fs::", "openat(")];

/// Lines above an ordering in which its comment may stand.
const ABOVE: usize = 6;

/// Checks the checkout.
pub(crate) fn task(_: &[String]) -> Result<(), String> {
    let broken = broken(&Tree::of(&root())?);
    if broken.is_empty() { Ok(()) } else { Err(format!("not tidy\n{}", broken.join("\n"))) }
}

/// The texts of a checkout, by their paths.
struct Tree(BTreeMap<String, String>);

impl Tree {
    /// All `.rs` and `.md` files below `root`, without what is hidden or built.
    fn of(root: &Path) -> Result<Self, String> {
        let (mut texts, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            let failed = |error| format!("{}: {error}", folder.display());
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with('.') || name == "target" || path.is_symlink() {
                    continue;
                } else if path.is_dir() {
                    folders.push(path);
                } else if name.ends_with(".rs") || name.ends_with(".md") {
                    let text = fs::read_to_string(&path).map_err(failed)?;
                    let path = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
                    texts.insert(path, text);
                }
            }
        }
        Ok(Self(texts))
    }

    /// The modules of a crate, whose sources are in `folder`, that a normal build compiles.
    fn modules(&self, folder: &str) -> BTreeMap<Vec<&str>, Module<'_>> {
        let (mut modules, mut waiting) = (BTreeMap::new(), vec![Vec::new()]);
        while let Some(module) = waiting.pop() {
            let path = module.join("/");
            let names = match &*path {
                "" => ["lib.rs", "main.rs"].map(str::to_owned),
                _ => [format!("{path}.rs"), format!("{path}/mod.rs")],
            };
            let file = names.iter().find_map(|name| self.0.get_key_value(&format!("{folder}/{name}")));
            let Some((file, source)) = file else { continue };
            let tokens = code(source);
            for declaration in tokens.windows(3).filter(|tokens| tokens[0].text == "mod" && tokens[2].text == ";") {
                waiting.push([&module[..], &[declaration[1].text]].concat());
            }
            modules.insert(module, Module { file, tokens });
        }
        modules
    }

    /// The modules of each crate, with its name.
    fn crates(&self) -> impl Iterator<Item = (&str, Module<'_>)> {
        let names = self.0.keys().filter_map(|path| Some(path.strip_prefix("crates/")?.split_once("/src/")?.0));
        let names: BTreeSet<_> = names.collect();
        names.into_iter().flat_map(|name| {
            self.modules(&format!("crates/{name}/src")).into_values().map(move |module| (name, module))
        })
    }
}

/// A file of a normal build.
struct Module<'a> {
    file: &'a str,
    tokens: Vec<Token<'a>>,
}

/// What breaks the rules, one a line.
fn broken(tree: &Tree) -> Vec<String> {
    [imports::check(tree), orderings(tree), columns(tree), types(tree), inherited(tree)].concat()
}

/// Orderings that name no edge, or one that the page does not have.
fn orderings(tree: &Tree) -> Vec<String> {
    let page = tree.0.get(EDGES).map_or("", String::as_str);
    let edges: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter(|name| is_edge(name))
        .collect();
    let mut broken = Vec::new();
    for (_, Module { file: path, tokens }) in tree.crates().filter(|(name, _)| ORDERED.contains(name)) {
        let lines: Vec<_> = tree.0[path].lines().collect();
        for line in ordered_lines(&tokens) {
            let near = &lines[line.saturating_sub(ABOVE + 1)..line];
            let comments = near.iter().filter_map(|line| Some(line.split_once("//")?.1));
            let words = comments.flat_map(|comment| comment.split(|char: char| !char.is_alphanumeric()));
            let named: Vec<_> = words.filter(|word| is_edge(word)).collect();
            if named.is_empty() {
                broken.push(format!("{path}:{line}: this ordering names no edge of {EDGES}"));
            }
            let unknown = named.iter().filter(|name| !edges.contains(*name));
            broken.extend(unknown.map(|name| format!("{path}:{line}: {EDGES} has no edge {name}")));
        }
    }
    broken
}

/// Like `E1`.
fn is_edge(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|first| first.is_ascii_uppercase())
        && word.len() > 1
        && chars.all(|char| char.is_ascii_digit())
}

/// Where an access is more than relaxed.
fn ordered_lines(tokens: &[Token<'_>]) -> BTreeSet<usize> {
    let mut is_use = false;
    let mut lines = BTreeSet::new();
    for token in tokens {
        match token.text {
            "use" => is_use = true,
            ";" => is_use = false,
            "Acquire" | "Release" | "AcqRel" | "SeqCst" if !is_use => _ = lines.insert(token.line),
            _ => {}
        }
    }
    lines
}

/// Lines that are too long. Tables, the targets of links and quoted lines of code cannot be broken.
fn columns(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in &tree.0 {
        for (number, line) in text.lines().enumerate() {
            let is_table = line.trim_start_matches(['/', '!', ' ', '>']).starts_with('|');
            let is_quoted_code = line.trim_start().starts_with('"') && line.contains("\\n");
            let columns = without_links(line).chars().count();
            if columns > COLUMNS && !is_table && !is_quoted_code {
                broken.push(format!("{path}:{}: {columns} columns, more than {COLUMNS}", number + 1));
            }
        }
    }
    broken
}

/// The line without the targets of its links.
fn without_links(line: &str) -> String {
    let mut left = String::new();
    let mut rest = line;
    while let Some((text, behind)) = rest.split_once("](") {
        left += text;
        left += "](";
        rest = behind.split_once(')').map_or("", |(_, behind)| behind);
    }
    left += rest;
    left.split(' ').filter(|word| !word.contains("://")).collect::<Vec<_>>().join(" ")
}

/// Types that share a name with another one of their crate.
fn types(tree: &Tree) -> Vec<String> {
    let mut places: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (name, Module { file, tokens }) in tree.crates() {
        for pair in tokens.windows(2).filter(|pair| ["struct", "enum", "trait"].contains(&pair[0].text)) {
            if pair[1].is_word() {
                places.entry((name, pair[1].text)).or_default().push(format!("{file}:{}", pair[1].line));
            }
        }
    }
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1);
    twice.map(|((_, name), places)| format!("{}: `{name}` is also at {}", places[0], places[1..].join(", "))).collect()
}

/// Calls that open a file for every program that this process will start, tests of the same binary included. Unlike
/// those of the standard library, they are asked for the flag.
fn inherited(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.0.iter().filter(|(path, _)| path.ends_with(".rs")) {
        for (number, line) in text.lines().enumerate() {
            let opens = OPENING.iter().any(|call| line.contains(call));
            if opens && !line.contains("CLOEXEC") {
                broken.push(format!("{path}:{}: opens a file without CLOEXEC", number + 1));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn the_checkout_is_tidy() {
        let broken = broken(&Tree::of(&root()).unwrap());
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn an_ordering_names_an_edge_that_the_page_has() {
        let orderings = |source: &str| {
            orderings(&tree(&[("crates/ring-io/src/lib.rs", source), (EDGES, "| edge |\n|---|\n| E1 | a -> b |\n")]))
        };
        let far = format!("// E1\n{}a.load(Acquire);", "\n".repeat(ABOVE));
        for fine in [
            "// ordering: release half of E1.\na.store(1, Release);",
            "a.store(1, Ordering::Release); // E1",
            "// E1\na.compare_exchange(\n0,\n1,\nAcqRel,\nRelaxed);",
            "use core::sync::atomic::Ordering::{Acquire, Release};",
            "a.load(Relaxed); // Acquire",
            "#[cfg(test)] mod tests { fn b() { a.load(Acquire) } }",
        ] {
            assert_eq!(orderings(fine), [""; 0], "{fine}");
        }
        for (source, what) in [
            ("a.load(Acquire);", "names no edge"),
            ("fence(SeqCst);", "names no edge"),
            ("let e1 = a.swap(1, AcqRel);", "names no edge"),
            ("// For the sake of order.\na.load(Ordering::Acquire);", "names no edge"),
            (&far, "names no edge"),
            ("// E2\na.load(Acquire);", "has no edge E2"),
        ] {
            let broken = orderings(source);
            assert!(broken.len() == 1 && broken[0].contains(what), "{source}: {broken:?}");
        }
    }

    #[test]
    fn a_long_line_is_found_unless_it_is_a_table_or_its_link_is_long() {
        let (long, word) = ("long ".repeat(30), "x".repeat(COLUMNS));
        let columns =
            |line: &str| columns(&tree(&[("docs/A.md", &format!("a\n{line}\n")), ("crates/a/src/b.rs", line)]));
        for fine in [
            &format!("| {long} |"),
            &format!("//! | {long} |"),
            &format!("    \"{long}\\n{long}\","),
            &format!("[a]({word}) b"),
            &"é".repeat(COLUMNS),
        ] {
            assert_eq!(columns(fine), [""; 0]);
        }
        assert_eq!(columns(&format!("see https://{word}")), [""; 0]);
        for broken in
            [&format!("// {long}"), &format!("\"{long}\","), &format!("[{word}](a)"), &"é".repeat(COLUMNS + 1)]
        {
            let found = columns(broken);
            assert!(
                found.len() == 2 && found.iter().any(|line| line.starts_with("docs/A.md:2: ")),
                "{broken}: {found:?}"
            );
        }
    }

    #[test]
    fn a_name_is_given_to_one_type_of_a_crate() {
        let types = |a, b, c| {
            types(&tree(&[
                ("crates/x/src/lib.rs", "mod a; mod b; #[cfg(loom)] mod d;"),
                ("crates/x/src/a.rs", a),
                ("crates/x/src/b/mod.rs", b),
                ("crates/x/src/d.rs", "struct A; struct B;"),
                ("crates/y/src/main.rs", c),
            ]))
        };
        assert_eq!(types("struct A;", "enum B {}", "struct A; trait B {}"), [""; 0]);
        assert_eq!(types("struct A;", "#[cfg(test)] mod tests { struct A; } // enum A", "impl A for B {}"), [""; 0]);
        for twice in ["pub struct A<T>(T);", "enum A {}", "pub(crate) trait A {}", "fn f() { struct A; }"] {
            let broken = types("struct A;", twice, "");
            assert!(broken.len() == 1 && broken[0].contains("`A` is also at crates/x/src/b/mod.rs:1"), "{broken:?}");
        }
    }

    #[test]
    fn a_file_that_every_program_inherits_is_found() {
        let lines = ["OFlags::RDONLY, Mode::empty())", "OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())"];
        let calls = OPENING.map(|call| lines.map(|line| format!("rustix::{call}path, {line}")).join("\n"));
        for call in calls {
            let broken = inherited(&tree(&[("crates/x/tests/a.rs", &call), ("docs/A.md", &call)]));
            assert_eq!(broken, ["crates/x/tests/a.rs:1: opens a file without CLOEXEC"]);
        }
    }
}
