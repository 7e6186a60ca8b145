//! Whose packages the registry has under our names. A dependency without a path or a repository means those.

use std::env;
use std::process::Command;

use super::Problems;
use super::manifest::{Package, Workspace};

/// What the registry has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Free,
    Taken { version: String, repository: Option<String> },
}

/// Asks about each name that a published package has or is to have.
pub(super) fn check(workspace: &Workspace, ask: &mut dyn FnMut(&str) -> Result<Answer, String>) -> Problems {
    let mut problems = Problems::new();
    for package in workspace.published() {
        let planned = workspace.registry_name(package);
        let mut found = judge(package, &package.name, ask(&package.name));
        if planned != package.name {
            let verdict = judge(package, planned, ask(planned));
            found = found.map(|problem| match &verdict {
                None => format!("{problem}; `{planned}`, which it is to be called there, is still free"),
                Some(_) => problem,
            });
            problems.extend(verdict);
        }
        problems.extend(found);
    }
    problems
}

fn judge(package: &Package, name: &str, answer: Result<Answer, String>) -> Option<String> {
    match answer {
        Err(reason) => Some(format!("{}: could not look for `{name}` in the registry: {reason}", package.name)),
        Ok(Answer::Free) => {
            println!("`{name}` is free in the registry");
            None
        }
        // What a package says of itself: whether it is really ours, `cargo owner --list` says.
        Ok(Answer::Taken { version, repository }) if repository.is_some() && repository == package.repository => {
            println!("`{name}` {version} in the registry gives our repository");
            (version == package.version).then(|| format!("{}: {version} is published; raise the version", package.name))
        }
        Ok(Answer::Taken { version, repository }) => Some(format!(
            "{}: `{name}` {version} in the registry is another project's ({}); a dependency on that name would fetch \
             its code",
            package.name,
            repository.as_deref().unwrap_or("it names no repository")
        )),
    }
}

/// Asks the registry, through cargo. Outside of the checkout: inside, `cargo info` describes our own packages.
pub(super) fn ask(name: &str) -> Result<Answer, String> {
    let asked = Command::new("cargo").args(["info", name]).current_dir(env::temp_dir()).output();
    let asked = asked.map_err(|error| format!("cannot start cargo: {error}"))?;
    let [out, err] = [&asked.stdout, &asked.stderr].map(|text| String::from_utf8_lossy(text));
    understand(name, asked.status.success(), &out, &err)
}

/// What `cargo info` means. Offline it reports every name that it has not seen before as one that does not exist; only
/// behind a line which says that the index was updated is that an answer.
fn understand(name: &str, found: bool, out: &str, err: &str) -> Result<Answer, String> {
    let field = |field: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        line.map(|value| value.split(' ').next().unwrap_or_default().to_owned())
    };
    let is_updated = err.lines().any(|line| line.trim_start().starts_with("Updating "));
    let is_missing = err.lines().any(|line| line.starts_with(&format!("error: could not find `{name}` in registry")));
    match (found, field("version")) {
        (true, Some(version)) => Ok(Answer::Taken { version, repository: field("repository") }),
        (false, _) if is_missing && is_updated => Ok(Answer::Free),
        (false, _) if is_missing => Err("cargo is offline".into()),
        // The rest may name hosts.
        _ => Err(err.lines().find(|line| line.starts_with("error")).unwrap_or("no answer").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::manifest::examples::workspace;
    use super::*;

    /// As `cargo info` answered, without what follows.
    const STRANGER: &str = "\
ring-alloc #allocator #alloc #concurrent #no-std
Specialized allocator for short-living objects
version: 0.1.0 (latest 0.2.0)
license: MIT OR Apache-2.0
rust-version: unknown
documentation: https://docs.rs/ring-alloc
homepage: https://github.com/zakarumych/ring-alloc
repository: https://github.com/zakarumych/ring-alloc
";
    const UPDATED: &str = "    Updating crates.io index\n";
    const MISSING: &str = "error: could not find `ring-io` in registry `somewhere`\n";
    const NO_NETWORK: &str = "    Updating crates.io index\nerror: download of config.json failed\n\nCaused by:\n";

    fn stranger() -> Answer {
        understand("ring-alloc", true, STRANGER, UPDATED).expect("an answer")
    }

    #[test]
    fn the_answer_of_the_registry_is_understood() {
        let repository = Some("https://github.com/zakarumych/ring-alloc".to_owned());
        assert_eq!(stranger(), Answer::Taken { version: "0.1.0".into(), repository });
        let bare = understand("x", true, "x\nversion: 2.0.0\nlicense: MIT\n", "");
        assert_eq!(bare, Ok(Answer::Taken { version: "2.0.0".into(), repository: None }));
        assert_eq!(understand("ring-io", false, "", &format!("{UPDATED}{MISSING}")), Ok(Answer::Free));
    }

    #[test]
    fn a_name_is_not_free_because_the_registry_was_not_asked() {
        assert_eq!(understand("ring-io", false, "", MISSING), Err("cargo is offline".into()));
        for (found, err) in [(false, NO_NETWORK), (false, ""), (false, UPDATED), (true, UPDATED)] {
            assert!(understand("ring-io", found, "", err).is_err(), "{err}");
        }
        // Another name that is missing says nothing about this one.
        assert!(understand("ring", false, "", &format!("{UPDATED}{MISSING}")).is_err());
    }

    #[test]
    fn a_package_of_a_stranger_is_refused_and_a_free_name_or_our_own_is_not() {
        let a = |ours: Option<&str>, answer: Result<Answer, String>| {
            let workspace = workspace(|json| json["packages"][1]["repository"] = json!(ours));
            check(&workspace, &mut |name| if name == "a" { answer.clone() } else { Ok(Answer::Free) })
        };
        let taken = |version: &str, repository: Option<&str>| {
            Ok(Answer::Taken { version: version.into(), repository: repository.map(str::to_owned) })
        };
        let ours = Some("https://forge.example/ours");
        assert_eq!(a(None, Ok(Answer::Free)), [""; 0]);
        assert_eq!(a(ours, Ok(Answer::Free)), [""; 0]);
        assert_eq!(a(ours, taken("0.0.9", ours)), [""; 0]);
        for (ours, answer, what) in [
            (None, Ok(stranger()), "is another project's (https://github.com/zakarumych/ring-alloc)"),
            (ours, Ok(stranger()), "is another project's"),
            (ours, taken("0.1.0", None), "it names no repository"),
            (None, taken("0.1.0", None), "it names no repository"),
            (ours, taken("0.1.0", ours), "raise the version"),
            (ours, Err("cargo is offline".into()), "could not look"),
        ] {
            let problems = a(ours, answer);
            assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:?}");
        }
    }

    #[test]
    fn a_planned_name_is_looked_for_too() {
        let workspace = workspace(|json| json["metadata"] = json!({"registry-names": {"a": "other"}}));
        let with = |other: Answer| {
            check(&workspace, &mut |name| {
                Ok(if name == "a" {
                    stranger()
                } else if name == "other" {
                    other.clone()
                } else {
                    Answer::Free
                })
            })
        };
        let free = with(Answer::Free);
        assert!(free.len() == 1 && free[0].ends_with("is still free"), "{free:?}");
        let taken = with(stranger());
        assert!(taken.len() == 2 && taken.iter().all(|problem| problem.contains("another project's")), "{taken:?}");
    }
}
