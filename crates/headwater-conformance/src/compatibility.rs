//! What works with which client: found by the clients' suites, written down in `docs/compatibility.md`.
//!
//! A suite that ran all of a client's features stores its findings below the target directory. The page is made of
//! them and of nothing else, and a check compares it with the one that is committed: a feature that is new, gone, or
//! ends differently shows up as a difference. Nothing on it depends on how long anything took.

use crate::prepare::Places;
use crate::suites::{Case, Outcome, run_cases};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;

const HEAD: &str = "# What works with which client\n\n\
Written by `headwater-conformance compatibility --write` from what the suites of the published clients found against\n\
the real binary; `cargo xtask test` compares it. What the clients themselves cannot do is in\n\
[genuine-clients.md](genuine-clients.md).\n";

/// One feature of one client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature {
    /// What it belongs to.
    pub group: String,
    /// A sentence.
    pub name: String,
    /// Whether it held.
    pub works: bool,
}

impl Feature {
    /// From the name of a case, `client group: sentence`.
    pub fn parse(case: &str, works: bool) -> Option<Self> {
        let (place, name) = case.split_once(": ")?;
        let (_, group) = place.split_once(' ')?;
        Some(Self { group: group.to_owned(), name: name.to_owned(), works })
    }
}

/// All that was found about one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Its name.
    pub client: String,
    /// Which release of it.
    pub version: String,
    /// In any order.
    pub features: Vec<Feature>,
}

impl Findings {
    fn path(places: &Places, client: &str) -> PathBuf {
        let name: String = client.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        places.target.join("conformance/compatibility").join(name + ".json")
    }

    /// Keeps them for the page, in place of those of an earlier run.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn store(&self, places: &Places) -> Result<()> {
        let features: Vec<Value> =
            self.features.iter().map(|f| json!({ "group": f.group, "name": f.name, "works": f.works })).collect();
        let text = json!({ "client": self.client, "version": self.version, "features": features }).to_string();
        let path = Self::path(places, &self.client);
        let parent = path.parent().context("the findings have a directory")?;
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
        let feature = |value: &Value| {
            let works = value.get("works")?.as_bool()?;
            Some(Feature { group: text(value, "group")?, name: text(value, "name")?, works })
        };
        let features = value.get("features")?.as_array()?.iter().map(feature).collect::<Option<_>>()?;
        Some(Self { client: text(&value, "client")?, version: text(&value, "version")?, features })
    }

    /// Its part of the page: a heading and a table.
    fn render(&self) -> String {
        let mut features = self.features.clone();
        features.sort();
        let mut text =
            format!("\n## {} {}\n\n| group | feature | result |\n|---|---|---|\n", self.client, self.version);
        for Feature { group, name, works } in features {
            let result = if works { "works" } else { "**does not work**" };
            text += &format!("| {group} | {} | {result} |\n", name.replace('|', "\\|"));
        }
        text
    }
}

/// Compares the committed page with what was found, or writes it.
///
/// # Errors
/// When nothing was found yet, or the findings or the page cannot be read or written.
pub fn run(places: &Places, write: bool) -> Result<Outcome> {
    let directory = places.target.join("conformance/compatibility");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("no findings in {}", directory.display()))? {
        let path = entry.context("list the findings")?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        found.push(Findings::parse(&text).with_context(|| format!("{} is not what a suite stores", path.display()))?);
    }
    ensure!(!found.is_empty(), "no suite of a client has run yet");
    found.sort_by(|a, b| a.client.cmp(&b.client));
    let page = places.root.join("docs/compatibility.md");
    if write {
        let text: String = std::iter::once(HEAD.to_owned()).chain(found.iter().map(Findings::render)).collect();
        std::fs::write(&page, text).with_context(|| format!("write {}", page.display()))?;
        println!("wrote {} from the findings of {} clients", page.display(), found.len());
    }
    let committed = std::fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    let cases = found
        .iter()
        .map(|findings| {
            Case::new(format!("compatibility: the page says of the {} what was found", findings.client), || {
                compare(findings, &committed)
            })
        })
        .collect();
    Ok(run_cases(cases, 1))
}

/// A client whose suite did not run here is not judged; one that ran must be on the page just so.
fn compare(findings: &Findings, page: &str) -> Result<String> {
    let part = findings.render();
    if page.contains(&part) {
        return Ok(format!("{} features", findings.features.len()));
    }
    let missing: Vec<&str> = part.lines().filter(|line| !page.contains(line)).collect();
    bail!(
        "docs/compatibility.md is not what was found; `headwater-conformance compatibility --write` writes it anew\n{}",
        if missing.is_empty() { "lines on it were not found".to_owned() } else { missing.join("\n") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let feature = |group: &str, name: &str, works| Feature { group: group.into(), name: name.into(), works };
        Findings {
            client: "Java".into(),
            version: "1.0".into(),
            features: vec![feature("b", "y", true), feature("a", "x|z", false)],
        }
    }

    #[test]
    fn findings_are_read_back_as_they_were_stored_and_rendered_in_order() {
        let places = Places { root: PathBuf::new(), target: std::env::temp_dir().join("headwater-compatibility-test") };
        findings().store(&places).expect("store");
        let text = std::fs::read_to_string(Findings::path(&places, "Java")).expect("read");
        assert_eq!(Findings::parse(&text), Some(findings()));
        let table =
            "| group | feature | result |\n|---|---|---|\n| a | x\\|z | **does not work** |\n| b | y | works |\n";
        assert_eq!(findings().render(), format!("\n## Java 1.0\n\n{table}"));
    }

    #[test]
    fn a_feature_that_is_gone_or_ends_differently_is_a_difference() {
        let page = HEAD.to_owned() + &findings().render();
        assert!(compare(&findings(), &page).is_ok());
        let mut fewer = findings();
        fewer.features.pop();
        assert!(compare(&fewer, &page).is_err());
        let mut other = findings();
        other.features[1].works = true;
        let error = compare(&other, &page).expect_err("the page says otherwise").to_string();
        assert!(error.contains("| a | x\\|z | works |"), "{error}");
    }

    #[test]
    fn the_name_of_a_case_holds_a_group_and_a_sentence() {
        let feature = Feature::parse("rust txn: transactions commit: always", true).expect("a feature");
        assert_eq!((feature.group.as_str(), feature.name.as_str()), ("txn", "transactions commit: always"));
        assert_eq!(Feature::parse("no colon", true), None);
    }
}
