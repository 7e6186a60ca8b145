//! What documents say of the manifests: features, examples, dependencies, versions.

use std::collections::BTreeSet;
use std::fs;

use super::Problems;
use super::licences::pulled;
use super::manifest::{Package, Workspace};
use crate::run::root;

pub(super) const CHANGELOG: &str = "docs/CHANGELOG.md";
const DEPENDENCIES: &str = "docs/DEPENDENCIES.md";
const README: &str = "README.md";
const WORKFLOW: &str = ".github/workflows/check.yml";

/// A workspace of its own, which inherits nothing.
const BENCH: &str = "crates/ring-bench/Cargo.toml";

/// Packages of which the page lists all that a plain build pulls in.
const LISTED: [&str; 2] = ["buffer_ring", "ringlog"];

pub(super) fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

pub(super) fn check(workspace: &Workspace) -> Result<Problems, String> {
    let mut problems = Problems::new();
    let mut stating = vec![README.to_owned(), WORKFLOW.to_owned(), BENCH.to_owned()];
    for package in &workspace.packages {
        let path = format!("crates/{}/README.md", package.folder());
        if package.is_published() {
            problems.extend(features(package, &path, &text(&path)?));
            stating.push(path.clone());
        }
        for (path, page) in [(README, text(README)?), (&path, text(&path).unwrap_or_default())] {
            problems.extend(examples(package, path, &page));
        }
    }
    let page = text(DEPENDENCIES)?;
    problems.extend(workspace.published().into_iter().flat_map(|package| dependencies(package, &page)));
    for name in LISTED {
        let all = pulled(name, "")?.into_iter().map(|(name, ..)| name);
        problems.extend(differences(DEPENDENCIES, &format!("A plain build of `{name}`"), &page, all));
    }
    for path in stating {
        problems.extend(oldest_rust(workspace, &path, &text(&path)?));
    }
    problems.extend(changelog(workspace.version(), &text(CHANGELOG)?));
    Ok(problems)
}

/// The table of features has those of the manifest; a crate that has none says so.
fn features(package: &Package, path: &str, page: &str) -> Problems {
    let features = package.features.keys().filter(|feature| *feature != "default");
    differences(path, "Features", page, features.cloned())
}

/// The table of a crate's dependencies has those of its manifest.
fn dependencies(package: &Package, page: &str) -> Problems {
    let needed = package.needed().filter(|need| need.path.is_none()).map(|need| need.name.clone());
    differences(DEPENDENCIES, &format!("`{}`", package.name), page, needed)
}

/// What only one has of `all` and the first column of the table below a heading of `page`. Its cells stand between
/// backquotes; each has something beside it.
fn differences(path: &str, heading: &str, page: &str, all: impl Iterator<Item = String>) -> Problems {
    let Some(section) = section(page, heading) else { return vec![format!("{path}: no heading `{heading}`")] };
    let (mut listed, mut problems) = (BTreeSet::new(), Problems::new());
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let Some((name, beside)) = row.split_once("` |") else { continue };
        if beside.trim_matches(['|', ' ']).is_empty() {
            problems.push(format!("{path}: nothing beside `{name}` below `{heading}`"));
        }
        listed.insert(name.to_owned());
    }
    let all: BTreeSet<_> = all.collect();
    problems.extend(all.difference(&listed).map(|name| format!("{path}: `{name}` is missing below `{heading}`")));
    problems.extend(listed.difference(&all).map(|name| format!("{path}: `{name}` below `{heading}` does not exist")));
    problems
}

/// What stands below a heading of the second level.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let mut sections = page.split("\n## ");
    sections.find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'))
}

/// Each example is on the page, with the command that runs it.
fn examples(package: &Package, path: &str, page: &str) -> Problems {
    let mut problems = Problems::new();
    for example in package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "example")) {
        let is_default = |feature: &&String| package.features.get("default").is_some_and(|all| all.contains(*feature));
        let features: Vec<_> = example.required_features.iter().filter(|feature| !is_default(feature)).collect();
        let features = features.into_iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let flag = if features.is_empty() { String::new() } else { format!(" --features {}/{features}", package.name) };
        let command = format!("cargo run --release{flag} --example {}", example.name);
        let ends = |rest: &str| !rest.starts_with(|char: char| char.is_alphanumeric() || "_-".contains(char));
        if !page.match_indices(&command).any(|(at, command)| ends(&page[at + command.len()..])) {
            problems.push(format!("{path}: does not give `{command}`, an example of {}", package.name));
        }
    }
    problems
}

/// The oldest Rust is the same wherever it is stated. Clippy takes it from Cargo.toml.
fn oldest_rust(workspace: &Workspace, path: &str, page: &str) -> Option<String> {
    let versions: BTreeSet<_> = workspace.packages.iter().map(|package| package.rust_version.as_deref()).collect();
    let (Some(Some(version)), 1) = (versions.first(), versions.len()) else {
        return Some(format!("not all packages have the same rust-version: {versions:?}"));
    };
    let line = match path {
        README => format!("Rust {version} or later"),
        WORKFLOW => format!("rust: [\"{version}\", stable]"),
        BENCH => format!("rust-version = \"{version}\""),
        _ => format!("It needs Rust {version}."),
    };
    (!page.contains(&line)).then(|| format!("{path}: does not say `{line}`"))
}

/// The version has its heading, and something below.
fn changelog(version: &str, page: &str) -> Problems {
    let heading = page.lines().filter_map(|line| line.strip_prefix("## ")).next().unwrap_or_default();
    let is_first = heading.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
    let is_empty = !section(page, heading).is_some_and(|section| section.lines().any(|line| line.starts_with("- ")));
    let mut problems = Problems::new();
    if !is_first || is_empty {
        problems.push(format!("{CHANGELOG}: the first section is not that of {version}, or has nothing in it"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::manifest::examples::workspace;
    use super::*;

    #[test]
    fn the_documents_agree_with_the_manifests() {
        let problems = check(&Workspace::here().expect("cargo")).expect("documents");
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn a_table_lists_all_there_is_and_nothing_else() {
        let differences =
            |page: &str| differences("a.md", "Features", page, ["async", "command"].map(str::to_owned).into_iter());
        let fine = "# a\n\n## Features\n\n| feature | adds |\n|---|---|\n| `async` | futures |\n| `command` | it |\n";
        assert_eq!(differences(fine), [""; 0]);
        for (page, what) in [
            (fine.replace("| `command` | it |\n", ""), "`command` is missing"),
            (fine.replace("command", "commands"), "`commands` below `Features` does not exist"),
            (fine.replace("| it |", "| |"), "nothing beside `command`"),
            (fine.replace("| `command`", "\n## Other\n\n| `command`"), "`command` is missing"),
            (fine.replace("## Features", "## Other"), "no heading"),
        ] {
            let problems = differences(&page);
            assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:?}");
        }
    }

    #[test]
    fn a_feature_or_a_dependency_that_no_page_has_is_found() {
        let all = workspace(|_| ());
        let b = &all.packages[0];
        assert_eq!(features(b, "b.md", "\n## Features\n| `async` | a |\n"), [""; 0]);
        assert_eq!(features(b, "b.md", "\n## Features\nNone.\n").len(), 1);
        // Our own crates need no reason.
        assert_eq!(dependencies(b, "\n## `b`\n| `libc` | calls |\n"), [""; 0]);
        assert_eq!(
            dependencies(b, "\n## `b`\n"),
            ["docs/DEPENDENCIES.md: `libc` is missing below `` `b` ``"].map(|text| text.replace("`` `b` ``", "``b``"))
        );
    }

    #[test]
    fn an_example_without_its_command_is_found() {
        let all = workspace(|json| json["packages"][0]["targets"][1]["required-features"] = json!(["async"]));
        let [b, a] = [&all.packages[0], &all.packages[1]];
        let by_default = workspace(|json| {
            json["packages"][0]["targets"][1]["required-features"] = json!(["async"]);
            json["packages"][0]["features"]["default"] = json!(["async"]);
        });
        assert_eq!(examples(&by_default.packages[0], "b.md", "cargo run --release --example use_b"), [""; 0]);
        assert_eq!(examples(a, "a.md", "| `cargo run --release --example use_a` |"), [""; 0]);
        assert_eq!(examples(b, "b.md", "cargo run --release --features b/async --example use_b"), [""; 0]);
        for page in ["", "cargo run --release --example use_a_twice", "cargo run --example use_a"] {
            assert_eq!(examples(a, "a.md", page).len(), 1, "{page}");
        }
        assert_eq!(examples(b, "b.md", "cargo run --release --example use_b").len(), 1);
    }

    #[test]
    fn one_oldest_rust_is_stated_everywhere() {
        let is_right = |path: &str, page: &str| oldest_rust(&workspace(|_| ()), path, page).is_none();
        for (path, page) in [
            (README, "with Rust 1.95 or later"),
            (WORKFLOW, "rust: [\"1.95\", stable]"),
            (BENCH, "rust-version = \"1.95\""),
            ("crates/a/README.md", "It needs Rust 1.95."),
        ] {
            assert!(is_right(path, page), "{path}");
            assert!(!is_right(path, &page.replace("1.95", "1.96")), "{path}");
            assert!(!is_right(path, ""), "{path}");
        }
        let mixed = workspace(|json| json["packages"][2]["rust_version"] = json!("1.90"));
        assert!(oldest_rust(&mixed, README, "with Rust 1.95 or later").is_some());
    }

    #[test]
    fn the_changelog_begins_with_the_version() {
        assert_eq!(changelog("0.1.0", "# Changelog\n\n## 0.1.0, unreleased\n\n- all\n"), [""; 0]);
        assert_eq!(changelog("0.1.0", "# Changelog\n\n## 0.1.0\n\n- all\n"), [""; 0]);
        for old in ["# Changelog\n\n## 0.1.0, unreleased\n\n", "## 0.0.9\n\n- all\n", "\n## 0.1.01\n\n- all\n", ""] {
            assert_eq!(changelog("0.1.0", old).len(), 1, "{old}");
        }
    }
}
