//! The workspace as its manifests describe it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Problems;
use crate::run::read;

/// Limits of the registry.
const KEYWORDS: usize = 5;
const KEYWORD_LEN: usize = 20;

/// Those of the registry's categories that crates like these belong to. It ignores all others.
const CATEGORIES: &[&str] = &[
    "asynchronous",
    "command-line-utilities",
    "concurrency",
    "data-structures",
    "database-implementations",
    "filesystem",
    "memory-management",
    "no-std",
    "os::linux-apis",
];

/// What `cargo metadata` says.
#[derive(Debug, Deserialize)]
pub(super) struct Workspace {
    pub(super) packages: Vec<Package>,
    #[serde(default)]
    metadata: Option<Own>,
}

/// `[workspace.metadata]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Own {
    /// What packages are to be called in the registry, where that differs.
    #[serde(default)]
    registry_names: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    manifest_path: PathBuf,
    pub(super) repository: Option<String>,
    pub(super) rust_version: Option<String>,
    pub(super) features: BTreeMap<String, Vec<String>>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) targets: Vec<Target>,
    description: Option<String>,
    license: Option<String>,
    readme: Option<PathBuf>,
    documentation: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
    /// No registry at all, if it is empty.
    publish: Option<Vec<String>>,
    metadata: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `None`: of every build.
    pub(super) kind: Option<String>,
    pub(super) path: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) kind: Vec<String>,
    #[serde(default)]
    pub(super) required_features: Vec<String>,
}

impl Workspace {
    pub(super) fn here() -> Result<Self, String> {
        Self::of(&read("cargo metadata --no-deps --offline --format-version 1")?)
    }

    pub(super) fn of(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("cannot read what `cargo metadata` says: {error}"))
    }

    /// The packages that are to be published, each behind those that it needs.
    pub(super) fn published(&self) -> Vec<&Package> {
        let mut waiting: Vec<_> = self.packages.iter().filter(|package| package.is_published()).collect();
        let mut sorted: Vec<&Package> = Vec::new();
        while let Some(next) = waiting.iter().position(|package| {
            let mut needed = package.needed().filter(|need| need.path.is_some());
            needed.all(|need| !waiting.iter().any(|waits| waits.name == need.name))
        }) {
            sorted.push(waiting.remove(next));
        }
        assert!(waiting.is_empty(), "cargo refuses circles");
        sorted
    }

    pub(super) fn version(&self) -> &str {
        self.packages.iter().find(|package| package.is_published()).map_or("", |package| &package.version)
    }

    /// What a package is to be called in the registry.
    pub(super) fn registry_name<'a>(&'a self, package: &'a Package) -> &'a str {
        let other = self.metadata.as_ref().and_then(|own| own.registry_names.get(&package.name));
        other.unwrap_or(&package.name)
    }

    /// What manifests lack or have too much of.
    pub(super) fn problems(&self) -> Problems {
        let ours: BTreeSet<_> = self.packages.iter().map(|package| &*package.name).collect();
        let mut problems = Problems::new();
        for package in &self.packages {
            // The registry may have a package of that name, and then it is not ours.
            let foreign = package.dependencies.iter().filter(|need| need.path.is_none() && ours.contains(&*need.name));
            problems.extend(foreign.map(|need| {
                format!("{}: depends on `{}` from the registry instead of by its path", package.name, need.name)
            }));
            if package.is_published() {
                let name = self.registry_name(package);
                problems
                    .extend(package.problems(name).into_iter().map(|problem| format!("{}: {problem}", package.name)));
                if package.version != self.version() {
                    problems.push(format!("{}: its version is not {}", package.name, self.version()));
                }
            }
        }
        problems
    }
}

impl Package {
    pub(super) fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }

    /// Its own, below `crates`, which keeps its name whatever the package is called.
    pub(super) fn folder(&self) -> String {
        let folder = self.manifest_path.parent().and_then(Path::file_name);
        folder.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Dependencies of those that use the package, optional ones too.
    pub(super) fn needed(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|need| need.kind.is_none())
    }

    fn problems(&self, registry_name: &str) -> Problems {
        let mut problems = Problems::new();
        let mut demand = |holds: bool, what: &str| {
            if !holds {
                problems.push(what.to_owned());
            }
        };
        demand(self.description.as_ref().is_some_and(|text| !text.is_empty()), "no description");
        demand(self.license.as_deref() == Some("MIT OR Apache-2.0"), "its licence is not `MIT OR Apache-2.0`");
        demand(self.rust_version.is_some(), "no rust-version");
        demand(self.readme.as_ref().is_some_and(|path| path.as_os_str() == "README.md"), "no README.md of its own");
        let pages = format!("https://docs.rs/{registry_name}");
        demand(self.documentation.as_ref() == Some(&pages), &format!("its documentation is not `{pages}`"));
        demand((1..=KEYWORDS).contains(&self.keywords.len()), &format!("not 1 to {KEYWORDS} keywords"));
        for word in &self.keywords {
            demand(is_keyword(word), &format!("the registry refuses the keyword `{word}`"));
        }
        demand((1..=5).contains(&self.categories.len()), "not 1 to 5 categories");
        for category in &self.categories {
            demand(CATEGORIES.contains(&&**category), &format!("`{category}` is no category that is known here"));
        }
        let all = self.metadata.as_ref().and_then(|all| all.pointer("/docs/rs/all-features")?.as_bool());
        demand(all == Some(true), "docs.rs would show no features (package.metadata.docs.rs.all-features)");
        problems
    }
}

fn is_keyword(word: &str) -> bool {
    let is_good = |char: char| char.is_ascii_alphanumeric() || "_-+".contains(char);
    word.len() <= KEYWORD_LEN
        && word.starts_with(|char: char| char.is_ascii_alphanumeric())
        && word.chars().all(is_good)
}

/// What the tests of this module and its siblings look at.
#[cfg(test)]
pub(super) mod examples {
    use super::Workspace;

    /// A workspace of `a`, of `b` that needs it, and of `tests` that is not published, changed.
    pub(in super::super) fn workspace(change: impl FnOnce(&mut serde_json::Value)) -> Workspace {
        let package = |name: &str, needs: serde_json::Value| {
            serde_json::json!({
                "name": name, "version": "0.1.0", "manifest_path": format!("/x/crates/{name}/Cargo.toml"),
                "description": "what it is", "license": "MIT OR Apache-2.0", "readme": "README.md",
                "documentation": format!("https://docs.rs/{name}"), "repository": null, "rust_version": "1.95",
                "keywords": ["log"], "categories": ["filesystem"], "publish": null, "features": {"async": []},
                "metadata": {"docs": {"rs": {"all-features": true}}}, "dependencies": needs,
                "targets": [{"name": name, "kind": ["lib"]}, {"name": format!("use_{name}"), "kind": ["example"]}],
            })
        };
        let need = |name: &str, path: Option<&str>| serde_json::json!({"name": name, "kind": null, "path": path});
        let mut json = serde_json::json!({
            "packages": [
                package("b", serde_json::json!([need("a", Some("/x/crates/a")), need("libc", None)])),
                package("a", serde_json::json!([need("libc", None)])),
                package("tests", serde_json::json!([])),
            ],
            "metadata": null,
        });
        json["packages"][2]["publish"] = serde_json::json!([]);
        change(&mut json);
        Workspace::of(&json.to_string()).expect("as cargo writes it")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::examples::workspace;
    #[test]
    fn packages_are_published_behind_those_that_they_need_and_some_never() {
        let workspace = workspace(|_| ());
        let names: Vec<_> = workspace.published().iter().map(|package| &*package.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn whatever_a_manifest_lacks_is_found() {
        assert_eq!(workspace(|_| ()).problems(), [""; 0]);
        for (field, value, what) in [
            ("description", json!(null), "no description"),
            ("license", json!("GPL-3.0"), "licence"),
            ("readme", json!(null), "README.md"),
            ("readme", json!("../../README.md"), "README.md"),
            ("documentation", json!("https://docs.rs/other"), "documentation"),
            ("rust_version", json!(null), "rust-version"),
            ("version", json!("0.2.0"), "its version"),
            ("keywords", json!([]), "keywords"),
            ("keywords", json!(["a", "b", "c", "d", "e", "f"]), "keywords"),
            ("keywords", json!(["two words"]), "keyword `two words`"),
            ("keywords", json!(["longer-than-the-registry-allows"]), "keyword"),
            ("categories", json!(["logs"]), "`logs` is no category"),
            ("metadata", json!(null), "docs.rs"),
        ] {
            let problems = workspace(|json| json["packages"][1][field] = value.clone()).problems();
            // Of two versions, either may be the right one.
            assert!(problems.len() == 1 && problems[0].contains(what), "{field} {value}: {problems:?}");
        }
    }

    #[test]
    fn documentation_follows_the_name_in_the_registry() {
        let renamed = |pages: &str| {
            let workspace = workspace(|json| {
                json["metadata"] = json!({"registry-names": {"a": "other"}});
                json["packages"][1]["documentation"] = json!(pages);
            });
            workspace.problems().len()
        };
        assert_eq!((renamed("https://docs.rs/other"), renamed("https://docs.rs/a")), (0, 1));
    }

    #[test]
    fn a_dependency_on_one_of_our_names_in_the_registry_is_found() {
        let problems = workspace(|json| json["packages"][2]["dependencies"] = json!([{"name": "a", "kind": "dev"}]));
        let problems = problems.problems();
        assert_eq!(problems, ["tests: depends on `a` from the registry instead of by its path"]);
    }
}
