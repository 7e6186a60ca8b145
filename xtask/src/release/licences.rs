//! What the published crates pull in, and under which licences.

use std::collections::{BTreeMap, BTreeSet};

use super::Problems;
use super::manifest::Workspace;
use crate::run::read;

/// What a program may contain that is itself under MIT or Apache-2.0.
const ALLOWED: &[&str] = &["Apache-2.0", "MIT", "Unicode-3.0"];

/// Crates of which a build may have two versions, each with the reason.
const TWICE: &[(&str, &str)] = &[];

/// Name, version, licence.
type Pulled = BTreeSet<(String, String, String)>;

pub(super) fn check(workspace: &Workspace) -> Result<Problems, String> {
    let mut problems = BTreeSet::new();
    for package in workspace.published() {
        problems.extend(problems_of(&pulled(&package.name, " --all-features")?, TWICE));
    }
    Ok(problems.into_iter().collect())
}

/// What a build of `package` pulls in, itself included.
pub(super) fn pulled(package: &str, flags: &str) -> Result<Pulled, String> {
    let line = format!("cargo tree --locked -p {package}{flags} -e normal --prefix none --format {{p}}|{{l}}");
    understand(&read(&line)?)
}

fn understand(tree: &str) -> Result<Pulled, String> {
    let crates = tree.lines().map(|line| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        Some((name.to_owned(), version.to_owned(), licence.trim_end_matches("(*)").trim_end().to_owned()))
    });
    crates.collect::<Option<_>>().ok_or_else(|| format!("cannot read what `cargo tree` says:\n{tree}"))
}

fn problems_of(pulled: &Pulled, twice: &[(&str, &str)]) -> Problems {
    let mut problems = Problems::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, version, licence) in pulled {
        versions.entry(name).or_default().push(version);
        if !is_allowed(licence) {
            problems.push(format!("{name} {version}: its licence `{licence}` is not among those that are allowed"));
        }
    }
    versions.retain(|name, versions| versions.len() > 1 && !twice.iter().any(|(allowed, _)| allowed == name));
    problems.extend(versions.into_iter().map(|(name, versions)| format!("{name}: twice, {}", versions.join(" and "))));
    problems
}

/// Whether the licences that are allowed satisfy an SPDX expression.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = &*words;
    any(&mut rest) == Some(true) && rest.is_empty()
}

/// `a OR b …`; `None`: that is no expression.
fn any(words: &mut &[&str]) -> Option<bool> {
    let mut holds = all(words)?;
    while take(words, "OR") {
        holds |= all(words)?;
    }
    Some(holds)
}

/// `a AND b …`, which binds closer.
fn all(words: &mut &[&str]) -> Option<bool> {
    let mut holds = one(words)?;
    while take(words, "AND") {
        holds &= one(words)?;
    }
    Some(holds)
}

/// A licence, with its exception, or an expression in parentheses.
fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let holds = any(words)?;
        return take(words, ")").then_some(holds);
    }
    let (licence, rest) = words.split_first().filter(|(word, _)| !["OR", "AND", "WITH", ")"].contains(word))?;
    *words = rest;
    if take(words, "WITH") {
        // An exception only allows more.
        *words = words.get(1..)?;
    }
    Some(ALLOWED.contains(licence))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let rest = words.split_first().filter(|(first, _)| **first == word).map(|(_, rest)| rest);
    *words = rest.unwrap_or(words);
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_allowed_if_allowed_licences_satisfy_it() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "Unlicense OR MIT",
            "Apache-2.0 OR GPL-2.0-only",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "GPL-3.0 AND MIT OR MIT",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND OpenSSL",
            "GPL-3.0 WITH Classpath-exception-2.0",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "MIT WITH",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    #[test]
    fn a_foreign_licence_and_a_second_version_are_found() {
        let fine = "ring-io v0.1.0 (/x/crates/ring-io)|MIT OR Apache-2.0\nlibc v0.2.191|MIT\nlibc v0.2.191|MIT (*)\n";
        assert_eq!(problems_of(&understand(fine).expect("a tree"), &[]), [""; 0]);
        let bad = format!("{fine}buffer_ring v0.2.6|GPL-3.0\nlibc v1.0.0|MIT\n");
        let bad = understand(&bad).expect("a tree");
        let problems = problems_of(&bad, &[]);
        assert!(problems.len() == 2 && problems[0].starts_with("buffer_ring v0.2.6: its licence `GPL-3.0`"));
        assert_eq!(problems[1], "libc: twice, v0.2.191 and v1.0.0");
        assert_eq!(problems_of(&bad, &[("libc", "a test")]).len(), 1);
        assert!(understand("no tree").is_err());
    }
}
