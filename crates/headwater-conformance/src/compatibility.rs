//! What works with which client: found by the clients' suites, written down in `docs/compatibility.md`.
//!
//! A suite that ran all of a client's features stores its findings below the target directory. The page is made of
//! them, and of a list of what a client has no way to ask for; a check compares it with the one that is committed: a
//! feature that is new, gone, or ends differently shows up as a difference. Nothing on it depends on how long anything
//! took. A group of features that a client neither has nor is said to lack is an error, and so is one that it has
//! though it is said to lack it.

use crate::driver::{Client, JAVA_CLIENT};
use crate::prepare::Places;
use crate::suites::{Case, Outcome, run_cases};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

const HEAD: &str = "# What works with which client\n\n\
Written by `headwater-conformance compatibility --write` from what the suites of the published clients found against\n\
the real binary; `cargo xtask test` compares it. Where the table says that there is no such API, the client has no way\n\
to ask; that, and what the clients themselves cannot do, is in [genuine-clients.md](genuine-clients.md). Java's client\n\
finds controllers by `pravega://`; with `pravegas://` 0.13.0 asks for them in plain text as well, which a server with TLS\n\
does not answer: use `tls://` there. Every feature by itself follows below.\n";

/// The suites that together find out about a client, by its name.
const SUITES: [(&str, &[&str]); 3] =
    [(JAVA_CLIENT, &["java"]), (Client::PYTHON, &["auth", "python"]), (Client::RUST, &["auth", "crash", "rust"])];

/// Groups of features that a client has no way to ask for. Source: what its public interface lists.
const ABSENT: [(&str, &[&str]); 3] = [
    (JAVA_CLIENT, &["index streams"]),
    (
        Client::PYTHON,
        &[
            "REST models of the original",
            "batch client",
            "discovery of controllers",
            "groups over HTTP",
            "groups shared with Headwater's own client",
            "index streams",
            "key-value tables",
            "reader group manager and subscribers",
            "revisioned streams and state synchronizers",
            "time windows",
            "whole scopes",
        ],
    ),
    (
        Client::RUST,
        &[
            "REST models of the original",
            "batch client",
            "discovery of controllers",
            "groups over HTTP",
            "groups shared with Headwater's own client",
            "reader group manager and subscribers",
            "time windows",
            "whole scopes",
        ],
    ),
];

/// What clients are expected to have, and none has. The Java client's tests notice when it gets the method.
const NOWHERE: [&str; 1] = ["cuts by distance (`getNextStreamCut`)"];

/// The head of a client's table.
const COLUMNS: &str = "| group | feature | result |\n|---|---|---|\n";
const WORKS: &str = "works";
const WORKS_NOT: &str = "**does not work**";

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
    /// Its line in the table of its client.
    fn render(&self) -> String {
        let Self { group, name, works } = self;
        let result = if *works { WORKS } else { WORKS_NOT };
        format!("| {group} | {} | {result} |\n", name.replace('|', "\\|"))
    }

    /// From its line, column by column.
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [group, name, result] = cells[..] else { return None };
        let works = match result {
            WORKS => true,
            WORKS_NOT => false,
            _ => return None,
        };
        Some(Self { group: group.to_owned(), name: name.replace("\\|", "|"), works })
    }
}

/// What one suite found about one client, or all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Its name.
    pub client: String,
    /// Which release of it.
    pub version: String,
    /// Who found it, several of them in order.
    pub suites: Vec<String>,
    /// In any order.
    pub features: Vec<Feature>,
}

impl Findings {
    fn directory(places: &Places) -> PathBuf {
        places.target.join("conformance/findings")
    }

    fn path(&self, places: &Places) -> PathBuf {
        let name = format!("{} {}", self.client, self.suites.join(" "));
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Self::directory(places).join(name + ".json")
    }

    /// Keeps them for the page, in place of those of an earlier run.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn store(&self, places: &Places) -> Result<()> {
        let features: Vec<Value> =
            self.features.iter().map(|f| json!({ "group": f.group, "name": f.name, "works": f.works })).collect();
        let text = json!({
            "client": self.client, "version": self.version, "suites": self.suites, "features": features
        });
        let text = text.to_string();
        let path = self.path(places);
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
        let suites = value.get("suites")?.as_array()?;
        let suites = suites.iter().map(|suite| Some(suite.as_str()?.to_owned())).collect::<Option<_>>()?;
        Some(Self { client: text(&value, "client")?, version: text(&value, "version")?, suites, features })
    }

    /// Those of all suites about each client, in the order of the clients' names.
    ///
    /// # Errors
    /// When two suites drove different releases of a client.
    fn together(found: Vec<Self>) -> Result<Vec<Self>> {
        let mut clients = BTreeMap::<String, Self>::new();
        for findings in found {
            match clients.get_mut(&findings.client) {
                None => _ = clients.insert(findings.client.clone(), findings),
                Some(known) => {
                    let (client, version) = (&known.client, &known.version);
                    ensure!(*version == findings.version, "{client}: {version} and {}", findings.version);
                    known.suites.extend(findings.suites);
                    known.features.extend(findings.features);
                }
            }
        }
        Ok(clients.into_values().map(Self::in_order).collect())
    }

    fn in_order(mut self) -> Self {
        self.suites.sort();
        self.features.sort();
        self
    }

    /// All that find out about it have run.
    fn is_complete(&self) -> bool {
        SUITES.iter().any(|(client, suites)| *client == self.client && *suites == self.suites)
    }

    fn groups(&self) -> BTreeSet<&str> {
        self.features.iter().map(|feature| feature.group.as_str()).collect()
    }

    /// In the table of all: how many features of a group there are, or that there are none to ask for.
    fn cell(&self, group: &str) -> Result<String> {
        let all = self.features.iter().filter(|feature| feature.group == group).count();
        let works = self.features.iter().filter(|feature| feature.group == group && feature.works).count();
        let is_absent = NOWHERE.contains(&group)
            || ABSENT.iter().any(|(client, groups)| *client == self.client && groups.contains(&group));
        match (all, is_absent) {
            (0, true) => Ok("no such API".to_owned()),
            (0, false) => bail!("{}: nothing was found about {group}, and nobody says that it has none", self.client),
            (_, true) => bail!("{}: has {group}, and is said to have none", self.client),
            (all, false) if works == all => Ok(format!("works ({all})")),
            (all, false) => Ok(format!("**{works} of {all} work**")),
        }
    }

    /// Its part of the page: a heading and a table.
    fn render(&self) -> String {
        let mut text = format!("\n## {} {}\n\n{COLUMNS}", self.client, self.version);
        for feature in &self.features {
            text += &feature.render();
        }
        text
    }

    /// What a part of the page says of the client that it is about. `part` begins with the client's name.
    fn of_part(part: &str) -> Result<Self> {
        let (heading, rest) = part.split_once('\n').context("a part has a heading")?;
        let known = SUITES.iter().find_map(|(client, _)| {
            let version = heading.strip_prefix(client)?.strip_prefix(' ')?;
            Some(((*client).to_owned(), version.to_owned()))
        });
        let (client, version) = known.with_context(|| format!("no client is called {heading:?}"))?;
        let rows = rest.strip_prefix('\n').and_then(|rest| rest.strip_prefix(COLUMNS));
        let rows = rows.with_context(|| format!("{heading} has no table"))?.trim_end().lines();
        let feature = |row| Feature::parse(row).with_context(|| format!("{heading} has the row {row:?}"));
        Ok(Self { client, version, suites: Vec::new(), features: rows.map(feature).collect::<Result<_>>()? })
    }
}

/// The whole page, of clients in the order of their names.
///
/// # Errors
/// As [`table`].
fn render(clients: &[Findings]) -> Result<String> {
    let parts = std::iter::once(HEAD.to_owned()).chain([table(clients)?]).chain(clients.iter().map(Findings::render));
    Ok(parts.collect())
}

/// What the page says of each client, row by row.
///
/// # Errors
/// When a row or heading is none that [`render`] writes.
fn parse(page: &str) -> Result<Vec<Findings>> {
    page.split("\n## ").skip(1).map(Findings::of_part).collect()
}

/// The table of all clients.
///
/// # Errors
/// When a client neither has a group of features nor is said to lack it.
fn table(clients: &[Findings]) -> Result<String> {
    let groups: BTreeSet<&str> = clients.iter().flat_map(Findings::groups).chain(NOWHERE).collect();
    let mut text = String::from("\n| |");
    for Findings { client, version, .. } in clients {
        text += &format!(" {client} {version} |");
    }
    text += &format!("\n|---|{}\n", "---|".repeat(clients.len()));
    for group in groups {
        let cells = clients.iter().map(|client| client.cell(group)).collect::<Result<Vec<_>>>()?;
        text += &format!("| {group} | {} |\n", cells.join(" | "));
    }
    Ok(text)
}

/// What cases find that run at the same time.
#[derive(Debug, Default)]
pub struct Gathered(Mutex<Vec<(Client, Feature)>>);

impl Gathered {
    /// Keeps that a feature of a client works, or does not.
    pub fn keep(&self, client: Client, group: &str, name: &str, works: bool) {
        let feature = Feature { group: group.to_owned(), name: name.to_owned(), works };
        self.0.lock().expect("keeping a feature does not panic").push((client, feature));
    }

    /// Runs `check` for one feature, and keeps how it ended.
    ///
    /// # Errors
    /// What `check` says.
    pub fn one<T>(&self, client: Client, group: &str, name: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = check();
        self.keep(client, group, name, result.is_ok());
        result
    }

    /// Stores what was found about `client` by `suite`.
    ///
    /// # Errors
    /// As [`Findings::store`].
    pub fn store(&self, places: &Places, client: Client, suite: &str) -> Result<()> {
        let found = self.0.lock().expect("keeping a feature does not panic");
        let features = found.iter().filter(|(of, _)| *of == client).map(|(_, feature)| feature.clone()).collect();
        let (client, version) = (client.name().to_owned(), client.version(places)?);
        Findings { client, version, suites: vec![suite.to_owned()], features }.store(places)
    }
}

/// Compares the committed page with what was found, or writes it.
///
/// # Errors
/// When nothing was found yet, or the findings or the page cannot be read or written. To write it, all suites must have
/// run.
pub fn run(places: &Places, write: bool) -> Result<Outcome> {
    let directory = Findings::directory(places);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("no findings in {}", directory.display()))? {
        let path = entry.context("list the findings")?.path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        found.push(Findings::parse(&text).with_context(|| format!("{} is not what a suite stores", path.display()))?);
    }
    ensure!(!found.is_empty(), "no suite of a client has run yet");
    let found = Findings::together(found)?;
    let is_complete = found.len() == SUITES.len() && found.iter().all(Findings::is_complete);
    let page = places.root.join("docs/compatibility.md");
    if write {
        ensure!(is_complete, "not all suites of all clients have run: {:?}", SUITES);
        std::fs::write(&page, render(&found)?).with_context(|| format!("write {}", page.display()))?;
        println!("wrote {} from the findings of {} clients", page.display(), found.len());
    }
    let committed = std::fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    let said = parse(&committed).with_context(|| format!("{} {REWRITE}", page.display()))?;
    let said = &said;
    let mut cases: Vec<Case<'_>> = found
        .iter()
        .map(|findings| {
            let name = format!("compatibility: the page says of the {} what was found", findings.client);
            Case::new(name, move || compare(findings, said))
        })
        .collect();
    cases.push(Case::new("compatibility: the page is what its rows add up to", || {
        ensure!(render(said)? == committed, "docs/compatibility.md {REWRITE}");
        Ok(format!("{} rows", said.iter().map(|client| client.features.len()).sum::<usize>()))
    }));
    Ok(run_cases(cases, 1))
}

/// What to do about a page that is wrong.
const REWRITE: &str = "is not what was found; `headwater-conformance compatibility --write` writes it anew";

/// A client of which no suite ran here is not judged. What one of its suites found must be said of it in the same words,
/// column by column; where all ran, nothing else may be.
fn compare(findings: &Findings, said: &[Findings]) -> Result<String> {
    let said = said.iter().find(|said| said.client == findings.client && said.version == findings.version);
    let said = said.with_context(|| format!("there is nothing about {} {}", findings.client, findings.version))?;
    let without = |these: &[Feature], those: &[Feature]| -> Vec<String> {
        these.iter().filter(|feature| !those.contains(feature)).map(Feature::render).collect()
    };
    let missing = without(&findings.features, &said.features);
    let more = if findings.is_complete() { without(&said.features, &findings.features) } else { Vec::new() };
    if missing.is_empty() && more.is_empty() {
        return Ok(format!("{} features", findings.features.len()));
    }
    bail!("docs/compatibility.md {REWRITE}\nfound:\n{}not found:\n{}", missing.concat(), more.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let feature = |group: &str, name: &str, works| Feature { group: group.into(), name: name.into(), works };
        Findings {
            client: JAVA_CLIENT.into(),
            version: "1.0".into(),
            suites: vec!["java".into()],
            features: vec![feature("a", "x|z", false), feature("b", "y", true)],
        }
    }

    #[test]
    fn findings_are_read_back_as_they_were_stored_and_rendered_in_order() {
        let places = Places { root: PathBuf::new(), target: std::env::temp_dir().join("headwater-compatibility-test") };
        findings().store(&places).expect("store");
        let text = std::fs::read_to_string(findings().path(&places)).expect("read");
        assert_eq!(Findings::parse(&text), Some(findings()));
        let table =
            "| group | feature | result |\n|---|---|---|\n| a | x\\|z | **does not work** |\n| b | y | works |\n";
        assert_eq!(findings().render(), format!("\n## {JAVA_CLIENT} 1.0\n\n{table}"));
    }

    #[test]
    fn a_feature_that_is_gone_or_ends_differently_is_a_difference() {
        let page = [findings()];
        assert!(compare(&findings(), &page).is_ok());
        let mut fewer = findings();
        fewer.features.pop();
        assert!(compare(&fewer, &page).is_err());
        let mut other = findings();
        other.features[0].works = true;
        let error = compare(&other, &page).expect_err("the page says otherwise").to_string();
        assert!(error.contains("| a | x\\|z | works |"), "{error}");
    }

    #[test]
    fn where_some_suites_of_a_client_did_not_run_only_what_was_found_is_compared() {
        let page = [findings()];
        let mut part = findings();
        part.suites = vec!["another".into()];
        part.features.pop();
        assert!(compare(&part, &page).is_ok());
        let otherwise = |change: fn(&mut Findings)| {
            let mut part = part.clone();
            change(&mut part);
            compare(&part, &page).is_err()
        };
        assert!(otherwise(|part| part.features[0].works = true));
        // Part of a row's text, or a row of another client or release, is not the row.
        assert!(otherwise(|part| part.features[0].name = "x".into()));
        assert!(otherwise(|part| part.features[0].group = String::new()));
        assert!(otherwise(|part| part.client = Client::RUST.into()));
        assert!(otherwise(|part| part.version = "1".into()));
    }

    #[test]
    fn a_page_is_read_back_row_by_row_and_anything_else_on_it_is_noticed() {
        let rust = Findings { client: Client::RUST.into(), ..findings() };
        let page = render(&[findings(), rust]).expect("a page");
        let said = parse(&page).expect("what was written");
        assert_eq!((said.len(), &said[0].features), (2, &findings().features));
        assert_eq!(render(&said).expect("the same page"), page);
        for (good, bad) in [
            ("| b | y | works |", "| b | y | works"),
            ("| b | y | works |", "| b | works |"),
            ("| b | y | works |", "| b | y | works (1) |"),
            ("| b | y | works |", "| b | y | works | |"),
            ("## Rust crate", "## Rust create"),
        ] {
            assert!(parse(&page.replace(good, bad)).is_err(), "{bad}");
        }
        for (good, bad) in [("| works (1) |", "| works (2) |"), ("| group | feature", "|group | feature")] {
            let changed = page.replacen(good, bad, 1);
            assert!(parse(&changed).is_err() || render(&parse(&changed).unwrap()).unwrap() != changed, "{bad}");
        }
    }

    #[test]
    fn a_group_is_either_found_or_said_to_be_absent() {
        let of = |client: &str, groups: &[&str]| Findings {
            client: client.into(),
            features: groups
                .iter()
                .map(|group| Feature { group: (*group).into(), name: "x".into(), works: true })
                .collect(),
            ..findings()
        };
        let both = [of(Client::PYTHON, &["a"]), of(Client::RUST, &["a", "index streams"])];
        let text = table(&both).expect("a table");
        assert!(text.contains("| a | works (1) | works (1) |\n"), "{text}");
        assert!(text.contains("| index streams | no such API | works (1) |\n"), "{text}");
        assert!(text.contains("(`getNextStreamCut`) | no such API | no such API |\n"), "{text}");
        assert!(table(&[of(Client::PYTHON, &["a", NOWHERE[0]])]).is_err(), "it is said to have none");
        assert!(table(&[of(Client::PYTHON, &[]), of(Client::RUST, &["a"])]).is_err(), "nothing is known");
        assert!(table(&[of(Client::RUST, &["time windows"])]).is_err(), "it is said to have none");
    }

    #[test]
    fn what_several_suites_found_about_a_client_is_put_together() {
        let mut more = findings();
        more.suites = vec!["auth".into()];
        more.features.truncate(1);
        let together = Findings::together(vec![findings(), more.clone()]).expect("one release");
        assert_eq!(together.len(), 1);
        assert_eq!((together[0].suites.len(), together[0].features.len()), (2, 3));
        more.version = "2.0".into();
        assert!(Findings::together(vec![findings(), more]).is_err(), "two releases");
    }
}
