//! The genuine Java client, driven by JUnit tests of its own (`java/`) in one JVM against one server, a second one with
//! TLS, and two more with TLS that ask who calls: one knows users, one believes an OpenID Connect issuer.
//! Some of its readers share groups with those of our own command line.
//!
//! Maven fetches the client, compiles and runs. Its repository is below the target directory and is not asked again
//! once everything was there. The tests append one line per feature to a file; a test that wants the server killed and
//! started again makes the file `restart` beside it and waits until that is gone.

use super::{Outcome, auth, in_scratch};
use crate::compatibility::{Feature, Findings};
use crate::driver::JAVA_CLIENT;
use crate::prepare::Places;
use crate::server::{Addresses, Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// All tests together take a fraction of it; fetching for the first time is allowed for.
const LIMIT: Duration = Duration::from_secs(420);

/// Of the server that asks who calls: name, password and what is granted to them.
const USERS: &[(&str, &str, &[&str])] = &[
    ("user", "password", &["prn::/,READ_UPDATE", "prn::/scope:AuthTest-*,READ_UPDATE"]),
    ("reader", "reads", &["prn::/scope:AuthTest-*,READ"]),
    ("stranger", "elsewhere", &["prn::/scope:elsewhere*,READ_UPDATE"]),
];

/// Runs all tests, or those that `only` names as Maven's `-Dtest` does.
///
/// # Errors
/// When Maven or the server cannot be started, or the tests cannot be compiled.
pub fn run(places: &Places, only: &[String]) -> Result<Outcome> {
    in_scratch(places, "java", |scratch| {
        let mut launch = Launch::new(places.server(), scratch);
        // It comes back under the same addresses when a test wants it restarted.
        launch.addresses = Addresses::free()?;
        // Tests wait for retention to run, and this is the shortest time from one run to the next.
        launch.extra = vec!["--retention-minutes".to_owned(), "1".to_owned()];
        let server = launch.start()?;
        let directory = |name: &str| {
            let directory = scratch.join(name);
            std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
            Ok::<_, anyhow::Error>(directory)
        };
        let mut launch_tls = Launch::new(places.server(), &directory("tls")?);
        launch_tls.extra = vec!["--tls".to_owned(), "self-signed".to_owned()];
        let with_tls = launch_tls.start()?;
        let of_users = directory("auth")?;
        let users = of_users.join("users");
        for (name, password, grants) in USERS {
            auth::add_user(places, &users, name, password, grants)?;
        }
        let with_auth = auth::guarded(places, &of_users, &users)?.start()?;
        let (issuer, address) = auth::start_issuer(places, None)?;
        let with_issuer = auth::believing(places, &directory("issuer")?, &address)?.start()?;
        let trusted = [("tls", &with_tls), ("auth", &with_auth), ("bearer", &with_issuer)];
        let mut tests = Tests::start(places, scratch, &server, trusted, &address, only)?;
        let server = tests.attend(&launch, server)?;
        tests.remember_that_all_is_fetched()?;
        let mut outcome = tests.outcome;
        println!("java: {} resident after it", mebibytes(server.resident_bytes()?));
        server.stop()?;
        with_tls.stop()?;
        with_auth.stop()?;
        with_issuer.stop()?;
        issuer.finish(LIMIT)?;
        if only.is_empty() {
            let version = tests.version.take().context("the tests did not say which client they drive")?;
            let (client, suites) = (JAVA_CLIENT.to_owned(), vec!["java".to_owned()]);
            Findings { client, version, suites, features: std::mem::take(&mut tests.features) }.store(places)?;
        }
        if outcome == Outcome::default() {
            println!("FAILED  java: no test was run\n{}", tests.log_tail());
            outcome.failed = 1;
        }
        Ok(outcome)
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Maven at work. Dropping it kills it; the JVM with the tests ends when its standard input does.
struct Tests {
    maven: Child,
    log: PathBuf,
    results: PathBuf,
    restart: PathBuf,
    /// Contents of the project file for which everything was fetched, and where that is noted.
    fetched: (PathBuf, String),
    /// Bytes of the results that were looked at.
    seen: usize,
    version: Option<String>,
    features: Vec<Feature>,
    outcome: Outcome,
}

impl Drop for Tests {
    fn drop(&mut self) {
        let _ = self.maven.kill();
        let _ = self.maven.wait();
    }
}

impl Tests {
    /// `trusted` are servers with certificates of their own, by the names that the tests have for them, and `issuer` is
    /// the address of the one that `bearer` believes.
    fn start(
        places: &Places,
        scratch: &Path,
        server: &Server,
        trusted: [(&str, &Server); 3],
        issuer: &str,
        only: &[String],
    ) -> Result<Self> {
        let project = places.java_project();
        let wanted = std::fs::read_to_string(project.join("pom.xml")).context("read the project of the Java tests")?;
        let repository = places.target.join("maven");
        let fetched = repository.join("headwater-finished");
        let offline = std::fs::read_to_string(&fetched).is_ok_and(|text| text == wanted);
        let log = scratch.join("maven.log");
        let results = scratch.join("results.jsonl");
        let output = File::create(&log).context("make Maven's log")?;
        let mut maven = Command::new("mvn");
        maven.args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"]).arg(project.join("pom.xml"));
        if offline {
            maven.arg("--offline");
        }
        let property = |name: &str, value: &Path| format!("-D{name}={}", value.display());
        maven.arg(property("maven.repo.local", &repository));
        maven.arg(property("conformance.target", &places.target.join("java")));
        maven.arg(property("headwater.results", &results));
        maven.arg(property("headwater.restart", &scratch.join("restart")));
        maven.arg(property("headwater.log", &scratch.join("client.log")));
        maven.arg(property("headwater.binary", &places.server()));
        maven.arg(format!("-Dheadwater.controller={}", server.ready.controller));
        maven.arg(format!("-Dheadwater.http=http://{}", server.ready.http));
        for (name, server) in trusted {
            maven.arg(format!("-Dheadwater.{name}.controller={}", server.ready.controller));
            maven.arg(format!("-Dheadwater.{name}.trust={}/tls/ca.pem", server.ready.data));
        }
        maven.arg(format!("-Dheadwater.issuer={issuer}"));
        if !only.is_empty() {
            maven.arg(format!("-Dtest={}", only.join(",")));
        }
        let maven = maven
            .arg("test")
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share Maven's log")?)
            .stderr(output)
            .spawn()
            .context("start mvn: is Maven installed?")?;
        let restart = scratch.join("restart");
        Ok(Self {
            maven,
            log,
            results,
            restart,
            fetched: (fetched, wanted),
            seen: 0,
            version: None,
            features: Vec::new(),
            outcome: Outcome::default(),
        })
    }

    /// Prints results as they come and restarts the server when asked to, until Maven ends.
    fn attend(&mut self, launch: &Launch, mut server: Server) -> Result<Server> {
        let started = Instant::now();
        loop {
            let ended = self.maven.try_wait().context("look at Maven")?;
            self.look()?;
            if let Some(status) = ended {
                // A failed test makes Maven fail as well; without any result something else did.
                ensure!(status.success() || self.outcome.failed > 0, "Maven ended with {status}\n{}", self.log_tail());
                return Ok(server);
            }
            server.alive()?;
            if self.restart.exists() {
                server.kill()?;
                server = launch.start().context("start the server again")?;
                std::fs::remove_file(&self.restart).context("say that the server is back")?;
            }
            ensure!(started.elapsed() < LIMIT, "the Java tests did not end within {LIMIT:?}\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn look(&mut self) -> Result<()> {
        let text = std::fs::read_to_string(&self.results).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[self.seen..whole].lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("the tests wrote {line}"))?;
            self.judge(&value)?;
        }
        self.seen = whole;
        Ok(())
    }

    fn judge(&mut self, value: &Value) -> Result<()> {
        let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        if value.get("client").is_some() {
            println!("java: client {}, wire version {}", field("client"), field("wire"));
            self.version = Some(field("client").to_owned());
            return Ok(());
        }
        let (group, name, seconds) = (field("group"), field("feature"), field("seconds"));
        let works = match field("result") {
            "passed" => true,
            "failed" | "skipped" => false,
            other => bail!("the tests wrote the result {other:?}"),
        };
        if works {
            println!("ok      {seconds:>6} s  java {group}: {name}");
        } else {
            println!("FAILED  {seconds:>6} s  java {group}: {name}\n{}", field("why"));
        }
        self.outcome = self.outcome.and(Outcome::of(works));
        self.features.push(Feature { group: group.to_owned(), name: name.to_owned(), works });
        Ok(())
    }

    /// The end of what Maven said.
    fn log_tail(&self) -> String {
        const LINES: usize = 40;
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("  maven: {line}\n")).collect()
    }

    /// Maven need not be told to look anywhere else the next time.
    fn remember_that_all_is_fetched(&self) -> Result<()> {
        let (path, wanted) = &self.fetched;
        std::fs::write(path, wanted).with_context(|| format!("write {}", path.display()))
    }
}
