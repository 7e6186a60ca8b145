//! Which file of a crate imports which, and what it may not.

use std::collections::{BTreeMap, BTreeSet};

use super::code::Token;
use super::{Module, Tree};

/// The folder that the rules are about.
const SOURCES: &str = "crates/buffer_ring/src";

/// Each part, and the modules that it must not know.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("staging", &["writeback", "commit", "ring"]),
    ("writeback", &["commit", "ring", "reservation"]),
    ("commit", &["ring", "writeback::device"]),
];

/// The parts that do no I/O.
const WITHOUT_DEVICE: &[&str] = &["staging", "commit"];

/// All that those may use of `ring_io`: errors, and how events reach foreign code.
const NO_DEVICE: &[&str] = &["AttachError", "DeviceError", "FileError", "OpenError", "Operation", "event", "events"];

/// Files that import each other in a circle, at most.
const LARGEST_CIRCLE: usize = 3;

type Path<'a> = Vec<&'a str>;

/// A path in the code of a file: the module that it is in, its parts, and whether it is a `use`.
#[derive(Debug)]
struct Found<'a> {
    line: usize,
    module: Path<'a>,
    path: Path<'a>,
    /// The name that a `use` gives it.
    name: Option<&'a str>,
}

/// One crate of the tree.
struct Sources<'a> {
    /// The module of each file of a normal build.
    files: BTreeMap<&'a str, Path<'a>>,
    modules: BTreeMap<Path<'a>, &'a str>,
    found: BTreeMap<&'a str, Vec<Found<'a>>>,
    /// What a `use` makes of a name in a module.
    names: BTreeMap<(Path<'a>, &'a str), (Path<'a>, Path<'a>)>,
}

/// What breaks the rules.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let sources = Sources::of(tree, SOURCES);
    let mut broken: Vec<_> = FORBIDDEN
        .iter()
        .filter(|(part, _)| !sources.modules.keys().any(|module| module.first() == Some(part)))
        .map(|(part, _)| format!("{SOURCES}: there is no module `{part}`, for which there is a rule"))
        .collect();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (&file, found) in &sources.found {
        let part = sources.files[file].first().copied().unwrap_or_default();
        let forbidden = FORBIDDEN.iter().find(|(name, _)| *name == part).map_or(&[][..], |(_, forbidden)| forbidden);
        for Found { line, module, path, .. } in found {
            let target = match sources.resolve(module, path) {
                Ok(target) => target,
                Err(path) => {
                    let is_device = path[0] == "ring_io" && !path.get(1).is_some_and(|name| NO_DEVICE.contains(name));
                    if WITHOUT_DEVICE.contains(&part) && is_device {
                        broken.push(format!("{file}:{line}: `{part}` does no I/O, and uses `{}`", path.join("::")));
                    }
                    continue;
                }
            };
            let target_module = sources.files[target].join("::");
            if forbidden.iter().any(|name| target_module == *name || target_module.starts_with(&format!("{name}::"))) {
                broken.push(format!("{file}:{line}: `{part}` must not know `{target_module}`"));
            }
            if target != file {
                imports.entry(file).or_default().insert(target);
            }
        }
    }
    broken.sort();
    broken.dedup();
    let circles = circles(&imports).into_iter().filter(|circle| circle.len() > LARGEST_CIRCLE);
    broken.extend(circles.map(|circle| {
        let names: Vec<_> =
            circle.iter().map(|file| file.trim_start_matches(SOURCES).trim_start_matches('/')).collect();
        format!("{SOURCES}: {} files import each other in a circle: {}", names.len(), names.join(", "))
    }));
    broken
}

impl<'a> Sources<'a> {
    /// The files below `folder` that a normal build reaches from its `lib.rs`.
    fn of(tree: &'a Tree, folder: &str) -> Self {
        let mut sources =
            Self { files: BTreeMap::new(), modules: BTreeMap::new(), found: BTreeMap::new(), names: BTreeMap::new() };
        for (module, Module { file, tokens }) in tree.modules(folder) {
            let found = found(&tokens, &module);
            for Found { module, path, name, .. } in &found {
                if let Some(name) = name {
                    sources.names.insert((module.clone(), name), (module.clone(), path.clone()));
                }
            }
            sources.found.insert(file, found);
            sources.files.insert(file, module.clone());
            sources.modules.insert(module, file);
        }
        sources
    }

    /// The file in which the item is that `path` names in `module`; or its path, if it is of another crate.
    fn resolve(&self, module: &[&'a str], path: &[&'a str]) -> Result<&'a str, Path<'a>> {
        // No chain of re-exports is longer than that.
        self.resolve_within(module, path, 20)
    }

    fn resolve_within(&self, module: &[&'a str], path: &[&'a str], steps: usize) -> Result<&'a str, Path<'a>> {
        let mut here = module.to_vec();
        let mut rest = path;
        match rest[0] {
            "crate" => (here, rest) = (Path::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            first if !self.is_known(&here, first) => return Err(path.to_vec()),
            _ => {}
        }
        while let Some((first, behind)) = rest.split_first() {
            if *first == "super" {
                here.pop();
            } else if self.modules.contains_key(&[&here[..], &[*first]].concat()) {
                here.push(first);
            } else if let Some((module, path)) = self.names.get(&(here.clone(), *first)).filter(|_| steps > 0) {
                let whole = [&path[..], behind].concat();
                return self.resolve_within(module, &whole, steps - 1);
            } else {
                break;
            }
            rest = behind;
        }
        // What is in a module of its own within a file is in the file.
        let file = (0..=here.len()).rev().find_map(|len| self.modules.get(&here[..len]));
        file.copied().ok_or_else(|| path.to_vec())
    }

    fn is_known(&self, module: &[&'a str], name: &'a str) -> bool {
        self.modules.contains_key(&[module, &[name]].concat())
    }
}

/// The paths in the code of a file.
fn found<'a>(tokens: &[Token<'a>], file: &[&'a str]) -> Vec<Found<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let is_path = |at: usize| text(at) == ":" && text(at + 1) == ":";
    let mut found = Vec::new();
    // Modules within the file, and how deep they begin.
    let (mut inner, mut depth): (Vec<(&str, usize)>, usize) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let is_use = text(at) == "use";
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inner.retain(|(_, begins)| *begins <= depth);
            }
            "mod" if text(at + 2) == "{" => inner.push((text(at + 1), depth + 1)),
            _ => {}
        }
        let begins = tokens[at].is_word() && is_path(at + 1) && !(at >= 2 && is_path(at - 2));
        if !is_use && !begins {
            at += 1;
            continue;
        }
        let line = tokens[at].line;
        let module = [file, &inner.iter().map(|(name, _)| *name).collect::<Path>()].concat();
        let mut paths = Vec::new();
        at = tree_of_paths(tokens, at + usize::from(is_use), &mut Path::new(), &mut paths);
        found.extend(paths.into_iter().map(|(path, name)| {
            let name = name.filter(|_| is_use);
            Found { line, module: module.clone(), path, name }
        }));
    }
    found
}

/// Takes the paths down that begin at `at`: one, or those of a tree in braces. Answers the place behind them.
fn tree_of_paths<'a>(
    tokens: &[Token<'a>],
    at: usize,
    before: &mut Path<'a>,
    paths: &mut Vec<(Path<'a>, Option<&'a str>)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    match text(at) {
        "{" => {
            let mut at = at + 1;
            while !["}", ""].contains(&text(at)) {
                at = tree_of_paths(tokens, at, before, paths);
                at += usize::from(text(at) == ",");
            }
            at + 1
        }
        word if tokens.get(at).is_some_and(Token::is_word) => {
            let goes_on = text(at + 1) == ":" && text(at + 2) == ":";
            let is_self = word == "self" && !before.is_empty();
            if !is_self {
                before.push(word);
            }
            let behind = at + 3;
            let end = if goes_on && (["{", "*"].contains(&text(behind)) || tokens[behind].is_word()) {
                tree_of_paths(tokens, behind, before, paths)
            } else {
                let is_renamed = text(at + 1) == "as";
                let name = if is_renamed { text(at + 2) } else { before[before.len() - 1] };
                paths.push((before.clone(), Some(name)));
                at + if is_renamed { 3 } else { 1 }
            };
            if !is_self {
                before.pop();
            }
            end
        }
        // All of a module, or something that is no path.
        _ => {
            if !before.is_empty() {
                paths.push((before.clone(), None));
            }
            at + 1
        }
    }
}

/// The strongly connected components of the graph: files of which each reaches each other one.
fn circles<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reached = |from: &'a str| {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(file) = waiting.pop() {
            waiting.extend(imports.get(file).into_iter().flatten().filter(|&&next| reached.insert(next)));
        }
        reached
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|&file| (file, reached(file))).collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|reached| reached.contains(to));
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for &file in imports.keys().filter(|file| reaches(file, file)) {
        match circles.iter_mut().find(|circle| circle.iter().any(|of| reaches(file, of) && reaches(of, file))) {
            Some(circle) => _ = circle.insert(file),
            None => circles.push(BTreeSet::from([file])),
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "mod ring; mod staging; mod writeback; mod commit; mod reservation; mod error; \
        pub use ring::BufferRing; \
        pub use ring_io::QuikIO;";

    /// What is found in a crate of these files, beside those that every part needs.
    fn broken(files: &[(&str, &str)]) -> Vec<String> {
        let all = [
            ("lib.rs", LIB),
            ("ring/mod.rs", "mod core; pub struct BufferRing;"),
            ("ring/core.rs", "use crate::{staging::Staging, writeback, commit::groups};"),
            ("staging/mod.rs", "mod seal; pub struct Staging;"),
            ("staging/seal.rs", ""),
            ("writeback/mod.rs", "mod device; mod flush;"),
            ("writeback/device.rs", "use ring_io::WriteQueue;"),
            ("writeback/flush.rs", ""),
            ("commit/mod.rs", "pub mod groups;"),
            ("commit/groups.rs", "use ring_io::DeviceError;"),
            ("reservation.rs", ""),
            ("error.rs", ""),
        ];
        let all = all.into_iter().filter(|(name, _)| files.iter().all(|(other, _)| other != name));
        let path = |(name, source): (&str, &str)| (format!("{SOURCES}/{name}"), source.to_owned());
        check(&Tree(all.chain(files.iter().copied()).map(path).collect()))
    }

    #[test]
    fn parts_that_keep_to_their_rules_are_fine() {
        assert_eq!(broken(&[]), [""; 0]);
    }

    #[test]
    fn each_forbidden_import_is_found_however_it_is_written() {
        for (file, source, what) in [
            ("staging/seal.rs", "use crate::{error, writeback::{self, flush}};", "`staging` must not know `writeback`"),
            (
                "staging/seal.rs",
                "fn a() { crate::commit::groups::start() }",
                "`staging` must not know `commit::groups`",
            ),
            ("staging/seal.rs", "use super::super::ring::core::*;", "`staging` must not know `ring::core`"),
            ("staging/seal.rs", "mod a { fn b(_: super::super::super::ring::BufferRing) {} }", "must not know `ring`"),
            ("staging/seal.rs", "use crate::BufferRing as Ring;", "`staging` must not know `ring`"),
            ("writeback/flush.rs", "\nuse crate::commit::groups;", "flush.rs:2: `writeback` must not know"),
            ("writeback/flush.rs", "use crate::reservation::Reservation;", "`writeback` must not know `reservation`"),
            ("writeback/flush.rs", "use crate::ring::core;", "`writeback` must not know `ring::core`"),
            ("commit/groups.rs", "use crate::ring::BufferRing;", "`commit` must not know `ring`"),
            ("commit/groups.rs", "use crate::writeback::device;", "`commit` must not know `writeback::device`"),
            ("commit/groups.rs", "use ring_io::{DeviceError, WriteQueue};", "uses `ring_io::WriteQueue`"),
            ("commit/groups.rs", "fn a(_: &ring_io::QuikIO) {}", "uses `ring_io::QuikIO`"),
            ("commit/groups.rs", "use crate::QuikIO as Device;", "uses `ring_io::QuikIO`"),
            ("commit/groups.rs", "use ring_io::*;", "uses `ring_io`"),
            ("staging/seal.rs", "use ring_io::WriteQueue;", "`staging` does no I/O, and uses `ring_io::WriteQueue`"),
        ] {
            let broken = broken(&[(file, source)]);
            assert!(broken.len() <= 2 && broken.iter().any(|line| line.contains(what)), "{source}: {broken:?}");
        }
    }

    #[test]
    fn what_is_no_import_is_not_taken_for_one() {
        for source in [
            "// use crate::ring::core;\n/// See [`crate::ring`].",
            "const A: &str = \"crate::ring::core\";",
            "#[cfg(test)] mod tests { use crate::ring::core; }",
            "#[cfg(loom)] use crate::ring::core;",
            "use crate::error; use std::ring; fn a() { other::ring::core() }",
        ] {
            assert_eq!(broken(&[("staging/seal.rs", source)]), [""; 0], "{source}");
        }
    }

    #[test]
    fn a_part_that_is_gone_is_missed() {
        let broken = broken(&[("lib.rs", "mod staging; mod commit;")]);
        assert!(broken[0].contains("no module `writeback`"), "{broken:?}");
    }

    #[test]
    fn three_files_may_stand_in_a_circle_and_four_may_not() {
        let modules =
            "mod a; mod b; mod c; mod d; mod ring; mod staging; mod writeback; mod commit; mod reservation; mod error;";
        let circle = |last| {
            let files =
                [("a.rs", "use crate::b;"), ("b.rs", "use super::c;"), ("c.rs", last), ("d.rs", "use crate::a::A;")];
            broken(&[&[("lib.rs", modules)], &files[..]].concat())
        };
        assert_eq!(circle("use crate::a;"), [""; 0]);
        let broken = circle("fn a() { crate::d::e() }");
        assert!(
            broken.len() == 1 && broken[0].contains("4 files") && broken[0].contains("a.rs, b.rs, c.rs, d.rs"),
            "{broken:?}"
        );
    }
}
