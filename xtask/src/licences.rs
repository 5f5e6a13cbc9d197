//! What may enter the tree: licences, sources, bans, and how many crates the server is made of.
//!
//! The rules are those of `deny.toml`. They are checked here, from `cargo metadata`, and not by cargo-deny: building
//! that takes minutes on two cores, on every machine that is new, for a check that takes a tenth of a second.

use crate::metadata::{Metadata, Package, built, root};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Crates the server may be made of, itself included.
const SERVER_CRATES_MAX: usize = 250;
/// The package whose tree is the server.
const SERVER: &str = "headwater";

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// One crate may have licences that others may not.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// Judges this workspace. Returns a line to print.
///
/// # Errors
/// Every crate that breaks a rule.
pub(crate) fn check_workspace() -> Result<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).context("read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("read deny.toml")?;
    let metadata = Metadata::load()?;
    let mut violations = Vec::new();
    let registries: BTreeSet<&str> = metadata.packages.iter().filter_map(|p| p.source.as_deref()).collect();
    for source in &registries {
        if !source.starts_with("registry+") {
            violations.push(format!("a package comes from {source}, not from a registry"));
        }
    }
    if registries.len() > 1 {
        violations.push(format!("packages come from {} places: {registries:?}", registries.len()));
    }
    for package in &metadata.packages {
        violations.extend(violation(&rules, package));
    }
    let tree = built(SERVER)?;
    if tree.len() > SERVER_CRATES_MAX {
        violations
            .push(format!("the server is made of {} crates, at most {SERVER_CRATES_MAX} are allowed", tree.len()));
    }
    if !violations.is_empty() {
        bail!("{}", violations.join("\n"));
    }
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    for (name, version) in &tree {
        versions.entry(name).or_default().push(version);
    }
    let several: Vec<String> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} ({})", versions.join(", ")))
        .collect();
    let several = if several.is_empty() { "none".to_owned() } else { several.join(", ") };
    Ok(format!(
        "the server is made of {} crates (at most {SERVER_CRATES_MAX}); in several versions: {several}",
        tree.len()
    ))
}

fn violation(rules: &Rules, package: &Package) -> Option<String> {
    let Package { name, version, .. } = package;
    if rules.bans.deny.iter().any(|banned| banned.name == *name) {
        return Some(format!("{name} {version} is banned"));
    }
    let Some(licence) = &package.license else { return Some(format!("{name} {version} names no licence")) };
    let exception = rules.licenses.exceptions.iter().find(|exception| exception.name == *name);
    let allowed = |licence: &str| {
        rules.licenses.allow.contains(licence) || exception.is_some_and(|exception| exception.allow.contains(licence))
    };
    match satisfied(licence, &allowed) {
        Ok(true) => None,
        Ok(false) => Some(format!("{name} {version} has the licence {licence}, which is not allowed")),
        Err(reason) => Some(format!("{name} {version} has the licence {licence:?}: {reason}")),
    }
}

/// Can an SPDX expression be met with allowed licences? `AND` binds closer than `OR`; a slash is an old way to write
/// `OR`.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let result = any_of(&mut rest, allowed)?;
    if let Some(word) = rest.first() {
        bail!("{word} where the expression should end");
    }
    Ok(result)
}

fn any_of(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let mut result = all_of(rest, allowed)?;
    while let [first, tail @ ..] = *rest
        && *first == "OR"
    {
        *rest = tail;
        result |= all_of(rest, allowed)?;
    }
    Ok(result)
}

fn all_of(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    let mut result = one(rest, allowed)?;
    while let [first, tail @ ..] = *rest
        && *first == "AND"
    {
        *rest = tail;
        result &= one(rest, allowed)?;
    }
    Ok(result)
}

fn one(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> Result<bool> {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let result = any_of(rest, allowed)?;
            let [")", tail @ ..] = *rest else { bail!("a parenthesis is not closed") };
            *rest = tail;
            Ok(result)
        }
        [licence, "WITH", exception, tail @ ..] => {
            *rest = tail;
            // An exception only ever permits more than the licence alone.
            Ok(allowed(&format!("{licence} WITH {exception}")) || allowed(licence))
        }
        [licence, tail @ ..] if !["OR", "AND", "WITH", ")"].contains(licence) => {
            *rest = tail;
            Ok(allowed(licence))
        }
        _ => bail!("a licence is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = |licence: &str| ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&licence);
        assert_eq!(satisfied(expression, &allowed).expect("a valid expression"), expected, "{expression}");
    }

    #[test]
    fn of_alternatives_one_must_be_allowed() {
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("MIT/GPL-2.0", true);
        check("GPL-2.0 OR GPL-3.0", false);
    }

    #[test]
    fn of_what_holds_together_all_must_be_allowed() {
        check("MIT AND ISC", true);
        check("MIT AND OpenSSL", false);
        check("MIT OR Apache-2.0 AND GPL-3.0", true);
        check("(MIT OR Apache-2.0) AND GPL-3.0", false);
        check("(MIT OR GPL-3.0) AND (ISC OR GPL-3.0)", true);
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        check("Apache-2.0 WITH LLVM-exception", true);
        check("GPL-3.0 WITH LLVM-exception", false);
        check("GPL-3.0 WITH LLVM-exception OR MIT", true);
    }

    #[test]
    fn an_expression_that_cannot_be_read_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT ISC"] {
            assert!(satisfied(expression, &|_| true).is_err(), "{expression}");
        }
    }

    #[test]
    fn a_banned_crate_one_without_a_licence_and_one_with_a_wrong_one_are_found() {
        let rules: Rules = toml::from_str(
            r#"
            licenses = { allow = ["MIT"], exceptions = [{ crate = "special", allow = ["ISC"] }] }
            bans = { deny = [{ crate = "banned" }] }
            "#,
        )
        .expect("valid rules");
        let judged = |name: &str, licence: Option<&str>| {
            let package = Package {
                id: name.to_owned(),
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                license: licence.map(str::to_owned),
                source: None,
                dependencies: Vec::new(),
            };
            violation(&rules, &package)
        };
        assert_eq!(judged("good", Some("MIT")), None);
        assert_eq!(judged("special", Some("ISC")), None);
        assert!(judged("other", Some("ISC")).is_some_and(|text| text.contains("not allowed")));
        assert!(judged("silent", None).is_some_and(|text| text.contains("no licence")));
        assert!(judged("banned", Some("MIT")).is_some_and(|text| text.contains("banned")));
    }
}
