//! What has to hold before the crates are published. Nothing here publishes anything.

mod licences;
mod manifest;
mod packed;
mod pages;
mod registry;
mod semver;

use manifest::Workspace;
use packed::Depth;

use crate::run::read;

/// Leaves out what only the registry can answer.
const WITHOUT_REGISTRY: &str = "--no-registry";

/// What does not hold, one a line.
type Problems = Vec<String>;

pub(crate) fn task(arguments: &[String]) -> Result<(), String> {
    let asks_registry = match arguments {
        [] => true,
        [flag] if flag == WITHOUT_REGISTRY => false,
        _ => return Err(format!("release takes no arguments but {WITHOUT_REGISTRY}")),
    };
    let workspace = Workspace::here()?;
    let mut problems = of_the_checkout(&workspace)?;
    problems.extend(packed::check(&workspace, Depth::Everything)?);
    if !asks_registry {
        println!("not looked at: names in the registry, the last release, the date");
        return conclude(problems);
    }
    problems.extend(today()?);
    problems.extend(semver::check(&workspace)?);
    problems.extend(registry::check(&workspace, &mut registry::ask));
    conclude(problems)?;
    print_what_to_do(&workspace);
    Ok(())
}

/// What the gate has time for, and can see without the registry.
pub(crate) fn few() -> Result<(), String> {
    let workspace = Workspace::here()?;
    let mut problems = of_the_checkout(&workspace)?;
    problems.extend(packed::check(&workspace, Depth::Compiles)?);
    conclude(problems)
}

/// The crates that are in no package; without xtask itself, which has been built alone when this runs.
pub(crate) fn unpublished() -> Result<Vec<String>, String> {
    let names = Workspace::here()?.packages.into_iter().filter(|package| !package.is_published()).map(|it| it.name);
    Ok(names.filter(|name| name != env!("CARGO_PKG_NAME")).collect())
}

fn of_the_checkout(workspace: &Workspace) -> Result<Problems, String> {
    let mut problems = pages::check(workspace)?;
    problems.extend(workspace.problems());
    problems.extend(licences::check(workspace)?);
    Ok(problems)
}

fn conclude(problems: Problems) -> Result<(), String> {
    if problems.is_empty() { Ok(()) } else { Err(format!("not ready for a release\n{}", problems.join("\n"))) }
}

/// What holds on the day of a release only.
fn today() -> Result<Problems, String> {
    let mut problems = Problems::new();
    if !read("git status --porcelain")?.is_empty() {
        problems.push("the checkout has changes that are not committed".into());
    }
    if pages::text(pages::CHANGELOG)?.lines().any(|line| line.starts_with("## ") && line.ends_with("unreleased")) {
        problems.push(format!("{} says `unreleased`: give the release its date", pages::CHANGELOG));
    }
    Ok(problems)
}

fn print_what_to_do(workspace: &Workspace) {
    println!("\nready; what is left to do, in this order:");
    for package in workspace.published() {
        println!("  cargo publish -p {}", package.name);
    }
    println!("  git tag v{0} && git push origin v{0}", workspace.version());
}
