//! The package graph, as `cargo metadata` tells it: only what the checks here ask for.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

/// The cargo that started us, without what it told us about our own package: build scripts look at these variables, so
/// that a build started from here would otherwise rebuild half the tree, and the next one by hand rebuild it back.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// Where it was fetched from; nothing for packages of this repository.
    pub(crate) source: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Debug, Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl Metadata {
    /// Asks cargo about this workspace, for the platform of this machine.
    pub(crate) fn load() -> Result<Self> {
        let host = cargo().args(["-vV"]).output().context("ask cargo for its host")?;
        let host = String::from_utf8_lossy(&host.stdout).into_owned();
        let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo names no host")?;
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--filter-platform", host])
            .current_dir(root())
            .output()
            .context("start cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("read what cargo metadata says")
    }

    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Everything that `name` is built from on this machine, itself included, without what only its tests need.
    pub(crate) fn tree(&self, name: &str) -> Result<BTreeSet<&Package>> {
        let root = self.members().find(|package| package.name == name).with_context(|| format!("no package {name}"))?;
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let packages: BTreeMap<&str, &Package> = self.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut tree = BTreeSet::new();
        let mut waiting = vec![root.id.as_str()];
        while let Some(id) = waiting.pop() {
            if !tree.insert(*packages.get(id).with_context(|| format!("no package {id}"))?) {
                continue;
            }
            let node = nodes.get(id).with_context(|| format!("no node {id}"))?;
            let built = |dep: &&NodeDep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
            waiting.extend(node.deps.iter().filter(built).map(|dep| dep.pkg.as_str()));
        }
        Ok(tree)
    }
}

/// Names and versions of everything that a package is built from on this machine, itself included, without what only its
/// tests need. Asks for the tree as cargo builds it: the metadata also have what features that are off would bring.
///
/// # Errors
/// Cargo does not answer.
pub(crate) fn built(name: &str) -> Result<BTreeSet<(String, String)>> {
    let name_and_version = |line: &String| {
        let (name, rest) = line.split_once(' ').with_context(|| format!("cargo tree says {line:?}"))?;
        let version = rest.split(' ').next().unwrap_or(rest);
        Ok((name.to_owned(), version.trim_start_matches('v').to_owned()))
    };
    let lines = tree(&["--package", name, "--edges", "normal,build", "--format", "{p}"])?;
    lines.iter().map(name_and_version).collect()
}

/// The different lines that `cargo tree` says of what it is asked for: one for each package.
///
/// # Errors
/// Cargo does not answer.
pub(crate) fn tree(selection: &[&str]) -> Result<BTreeSet<String>> {
    let output = cargo()
        .args(["tree", "--prefix", "none"])
        .args(selection)
        .current_dir(root())
        .output()
        .context("start cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    // A star is for what was said before.
    Ok(lines.lines().filter(|line| !line.is_empty() && !line.ends_with("(*)")).map(str::to_owned).collect())
}

impl PartialEq for Package {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Package {}

impl PartialOrd for Package {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Package {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}
