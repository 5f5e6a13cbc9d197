//! The layer table: which crate of this workspace may use which.
//!
//! The table is the law, `layers.toml`; the crates' manifests are what is judged.

use crate::metadata::{Metadata, root};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The table as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    may_use: BTreeMap<String, BTreeSet<String>>,
    on_top: OnTop,
    without_io: WithoutIo,
}

/// Crates that may use anything and that nothing may use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnTop {
    crates: BTreeSet<String>,
}

/// Crates in whose trees some packages must not be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithoutIo {
    crates: BTreeSet<String>,
    packages: BTreeSet<String>,
}

/// Judges this workspace. Returns a line to print.
///
/// # Errors
/// Every arrow that the table does not allow, every crate it does not know.
pub(crate) fn check_workspace() -> Result<String> {
    let text = std::fs::read_to_string(root().join("xtask/layers.toml")).context("read the layer table")?;
    let table: Table = toml::from_str(&text).context("read the layer table")?;
    let metadata = Metadata::load()?;
    let uses: BTreeMap<&str, BTreeSet<&str>> = metadata
        .members()
        .map(|package| {
            let ours = |name: &&str| metadata.members().any(|member| member.name == **name);
            (package.name.as_str(), package.dependencies.iter().map(|d| d.name.as_str()).filter(ours).collect())
        })
        .collect();
    let mut violations = judge(&table, &uses);
    for name in table.without_io.crates.iter().filter(|name| uses.contains_key(name.as_str())) {
        for package in metadata.tree(name)? {
            if table.without_io.packages.contains(&package.name) {
                violations.push(format!("{name} must know no I/O and is built from {}", package.name));
            }
        }
    }
    if violations.is_empty() {
        let arrows: usize = uses.values().map(BTreeSet::len).sum();
        return Ok(format!("{} crates, {arrows} arrows, all of them in the table", uses.len()));
    }
    bail!("{}", violations.join("\n"))
}

/// What the table does not allow in `uses`: crate → crates of the workspace that its manifest names.
fn judge(table: &Table, uses: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, used) in uses {
        if table.on_top.crates.contains(*name) {
            continue;
        }
        let Some(allowed) = table.may_use.get(*name) else {
            violations.push(format!("{name} is not in the layer table"));
            continue;
        };
        for target in used {
            if !allowed.contains(*target) {
                violations.push(format!("{name} uses {target}, which the layer table does not allow"));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(uses: &[(&'static str, &[&'static str])]) -> Vec<String> {
        let table: Table = toml::from_str(
            r#"
            [may-use]
            low = []
            middle = ["low"]
            high = ["middle", "low"]
            [on-top]
            crates = ["tests"]
            [without-io]
            crates = []
            packages = []
            "#,
        )
        .expect("a valid table");
        judge(&table, &uses.iter().map(|(name, used)| (*name, used.iter().copied().collect())).collect())
    }

    #[test]
    fn the_workspace_keeps_to_its_layers() {
        check_workspace().expect("every arrow is in the table");
    }

    #[test]
    fn arrows_of_the_table_and_fewer_are_allowed() {
        let uses: &[(&str, &[&str])] =
            &[("low", &[]), ("middle", &["low"]), ("high", &["middle"]), ("tests", &["low", "high"])];
        assert!(judged(uses).is_empty());
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_a_violation() {
        assert_eq!(judged(&[("low", &["middle"])]), ["low uses middle, which the layer table does not allow"]);
    }

    #[test]
    fn nothing_may_use_what_stands_on_top() {
        assert_eq!(judged(&[("high", &["tests"])]), ["high uses tests, which the layer table does not allow"]);
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_a_violation() {
        assert_eq!(judged(&[("newcomer", &[])]), ["newcomer is not in the layer table"]);
    }
}
