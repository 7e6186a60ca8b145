//! Whether the public interface still fits those that use the last release.

use super::Problems;
use super::manifest::Workspace;
use crate::run::{read, run};

pub(super) fn check(workspace: &Workspace) -> Result<Problems, String> {
    let tags = read("git tag --list v* --sort=-version:refname --merged HEAD")?;
    let tag = match last(&tags, workspace.version()) {
        Last::None => {
            println!("no earlier tag: there is no public interface to compare with");
            return Ok(Problems::new());
        }
        Last::Same(tag) => return Ok(vec![format!("{tag} is tagged already; raise the version")]),
        Last::Earlier(tag) => tag,
    };
    if read("cargo semver-checks --version").is_err() {
        let how = "cargo install cargo-semver-checks --locked";
        return Ok(vec![format!("cannot compare with {tag}: cargo-semver-checks is not installed ({how})")]);
    }
    let published = workspace.published();
    let compared = published.iter().map(|package| {
        let flags = "--all-features --baseline-rev";
        run(&[], &format!("cargo semver-checks -p {} {flags} {tag}", package.name))
    });
    Ok(compared.filter_map(Result::err).collect())
}

/// The last release.
#[derive(Debug, PartialEq, Eq)]
enum Last<'a> {
    None,
    /// The one that is to be made.
    Same(&'a str),
    Earlier(&'a str),
}

/// Of the tags, the newest first.
fn last<'a>(tags: &'a str, version: &str) -> Last<'a> {
    let is_release = |tag: &&str| {
        tag.strip_prefix('v').is_some_and(|version| version.starts_with(|char: char| char.is_ascii_digit()))
    };
    match tags.lines().find(is_release) {
        None => Last::None,
        Some(tag) if tags.lines().any(|tag| tag.strip_prefix('v') == Some(version)) => Last::Same(tag),
        Some(tag) => Last::Earlier(tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_release_is_the_newest_tag_of_a_version() {
        assert_eq!(last("", "0.1.0"), Last::None);
        assert_eq!(last("video\n", "0.1.0"), Last::None);
        assert_eq!(last("v0.1.1\nv0.1.0\n", "0.2.0"), Last::Earlier("v0.1.1"));
        assert_eq!(last("v0.1.0\n", "0.1.0"), Last::Same("v0.1.0"));
        assert_eq!(last("v0.1.1\nv0.1.0\n", "0.1.0"), Last::Same("v0.1.1"));
    }
}
