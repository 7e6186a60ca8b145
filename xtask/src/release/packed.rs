//! Crates as the registry would have them: packed, unpacked elsewhere, and built from nothing but that.
//!
//! Cargo's own check of packages builds each from nothing, with all that it depends on, in a folder of its own. Here
//! they share the normal folder for builds, where the crates of others have been checked already.

use std::fs;
use std::path::{Path, PathBuf};

use super::Problems;
use super::manifest::{Package, Workspace};
use crate::run::{root, run, target};

/// What both licences allow: each package has to carry them.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// How much is done with the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The libraries compile, without features.
    Compiles,
    /// And with them, the programs and examples too; and the doctests pass.
    Everything,
}

pub(super) fn check(workspace: &Workspace, depth: Depth) -> Result<Problems, String> {
    let published = workspace.published();
    let place = PathBuf::from(target("packages"));
    pack(workspace, &place)?;
    let outside = place.join("outside");
    let mut problems = Problems::new();
    for package in &published {
        let folder = unpack(package, &place.join("package"), &outside)?;
        let lacking = lacking(&folder)?;
        problems.extend(lacking.iter().map(|what| format!("{}: the package lacks {what}", package.name)));
    }
    let write = |name: &str, text: &[u8]| {
        let path = outside.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("Cargo.toml", manifest(&published).as_bytes())?;
    // The versions that were tested, less what only tests need.
    let lock = root().join("Cargo.lock");
    write("Cargo.lock", &fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?)?;

    let manifest = outside.join("Cargo.toml");
    let build = target("");
    for Package { name, .. } in published {
        let cargo = |command: &str, flags: &str| {
            let line = format!("cargo {command} --offline --manifest-path {} -p {name}{flags}", manifest.display());
            run(&[("CARGO_TARGET_DIR", build.trim_end_matches('/'))], &line)
        };
        let mut outcome = cargo("check", "");
        if depth == Depth::Everything {
            outcome = outcome.and_then(|()| cargo("build", " --all-features --lib --bins --examples"));
            outcome = outcome.and_then(|()| cargo("test", " --all-features --doc"));
        }
        problems.extend(outcome.err().map(|error| format!("{name}: as a package, {error}")));
    }
    Ok(problems)
}

/// Packs what is to be published. Cargo itself refuses a dependency that has a path and no version, and takes ours for
/// those that the registry does not have yet, or has from others.
fn pack(workspace: &Workspace, place: &Path) -> Result<(), String> {
    let unpublished = workspace.packages.iter().filter(|package| !package.is_published());
    let excluded: String = unpublished.map(|package| format!(" --exclude {}", package.name)).collect();
    let place = place.display();
    // Quiet: it would list the tests of each crate, which are left out on purpose.
    run(
        &[],
        &format!(
            "cargo package --quiet --workspace{excluded} --no-verify --allow-dirty --offline --target-dir {place}"
        ),
    )
}

/// Unpacks a package, and says where.
fn unpack(package: &Package, packed: &Path, outside: &Path) -> Result<PathBuf, String> {
    let name = format!("{}-{}", package.name, package.version);
    let folder = outside.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::create_dir_all(outside).map_err(|error| format!("{}: {error}", outside.display()))?;
    // Packages give all files the same time, by which cargo would take what has changed for what it has built before.
    run(&[], &format!("tar -x --touch -f {}/{name}.crate -C {}", packed.display(), outside.display()))?;
    Ok(folder)
}

/// The files that a package ought to have and does not.
fn lacking(folder: &Path) -> Result<Vec<String>, String> {
    let mut lacking = Vec::new();
    for name in LICENCES {
        let ours = fs::read(root().join(name)).map_err(|error| format!("{name}: {error}"))?;
        if !fs::read(folder.join(name)).is_ok_and(|text| text == ours) {
            lacking.push(name.to_owned());
        }
    }
    if !fs::read_to_string(folder.join("README.md")).is_ok_and(|text| text.starts_with("# ")) {
        lacking.push("README.md".to_owned());
    }
    Ok(lacking)
}

/// Of a workspace of these packages, each of which finds the others where it expects them in the registry.
fn manifest(packages: &[&Package]) -> String {
    let folders: Vec<_> = packages.iter().map(|package| format!("\"{}-{}\"", package.name, package.version)).collect();
    let mut manifest = format!("[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n", folders.join(", "));
    manifest += "[patch.crates-io]\n";
    for (package, folder) in packages.iter().zip(folders) {
        manifest += &format!("{} = {{ path = {folder} }}\n", package.name);
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::super::manifest::examples::workspace;
    use super::*;

    #[test]
    fn packages_find_each_other_and_nothing_of_the_checkout() {
        let workspace = workspace(|_| ());
        let manifest = manifest(&workspace.published());
        assert_eq!(
            manifest,
            "[workspace]\nresolver = \"3\"\nmembers = [\"a-0.1.0\", \"b-0.1.0\"]\n\n\
             [patch.crates-io]\na = { path = \"a-0.1.0\" }\nb = { path = \"b-0.1.0\" }\n"
        );
    }

    #[test]
    fn a_package_without_a_licence_or_a_page_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).expect("a file");
        write("README.md", b"# a\n");
        for name in LICENCES {
            write(name, &fs::read(root().join(name)).expect("a licence"));
        }
        assert_eq!(lacking(folder.path()), Ok(vec![]));
        write("LICENSE-MIT", b"other words");
        assert_eq!(lacking(folder.path()), Ok(vec!["LICENSE-MIT".to_owned()]));
        fs::remove_file(folder.path().join("README.md")).expect("it was there");
        assert_eq!(lacking(folder.path()).map(|lacking| lacking.len()), Ok(2));
    }
}
