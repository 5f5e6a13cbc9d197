//! Our client against the genuine ones: makes programs of these and hands them to `headwater bench clients`.

use crate::prepare::Places;
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the class path of the Java project, fetched like its compiler.
const CLASSPATH_GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath";

/// Measures, and prints what it found.
///
/// # Errors
/// When a program cannot be made, or has no figures.
pub fn run(places: &Places, words: &[String]) -> Result<()> {
    let java = java_program(places)?;
    let (python, own_python) = python_programs(places)?;
    let status = Command::new(places.server())
        .args(["bench", "clients", "--data-dir"])
        .arg(&places.target)
        .args(["--with", &format!("rust={}", places.genuine_rust().display())])
        .args(["--with", &format!("java={}", java.display())])
        .args(["--with", &format!("python={}", python.display())])
        .args(["--with", &format!("headwater-python={}", own_python.display())])
        .args(words)
        .status()
        .context("run headwater bench clients")?;
    ensure!(status.success(), "headwater bench clients ended with {status}");
    Ok(())
}

/// A script that runs `Load` of the Java project.
fn java_program(places: &Places) -> Result<PathBuf> {
    let target = places.target.join("java");
    let property = |name: &str, value: &Path| format!("-D{name}={}", value.display());
    let list = target.join("classpath");
    let status = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(places.java_project().join("pom.xml"))
        .arg(property("maven.repo.local", &places.target.join("maven")))
        .arg(property("conformance.target", &target))
        .args(["test-compile", CLASSPATH_GOAL, "-DincludeScope=test"])
        .arg(property("mdep.outputFile", &list))
        .status()
        .context("start mvn: is Maven installed?")?;
    ensure!(status.success(), "mvn ended with {status}");
    let fetched = std::fs::read_to_string(&list).context("read the class path")?;
    let classes = target.join("test-classes");
    let options = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error";
    let script =
        format!("#!/bin/sh\nexec java {options} -cp '{}:{fetched}' headwater.Load \"$@\"\n", classes.display());
    write_program(target.join("load"), &script)
}

/// Scripts that run `load.py` with the published package and with ours, which is built and installed.
fn python_programs(places: &Places) -> Result<(PathBuf, PathBuf)> {
    let status = Command::new("python3")
        .arg(places.root.join("crates/headwater-python/tests/run.py"))
        .arg(&places.target)
        .arg("--install")
        .status()
        .context("start python3")?;
    ensure!(status.success(), "the Python package could not be installed: {status}");
    let load = places.root.join("crates/headwater-conformance/python/load.py");
    let script = |python: &Path, client: &str| {
        let program = places.target.join("conformance").join(format!("load-{client}"));
        write_program(
            program,
            &format!("#!/bin/sh\nexec '{}' '{}' {client} \"$@\"\n", python.display(), load.display()),
        )
    };
    Ok((script(&places.python(), "genuine")?, script(&places.target.join("wheel/clean/bin/python"), "headwater")?))
}

fn write_program(program: PathBuf, script: &str) -> Result<PathBuf> {
    std::fs::write(&program, script).with_context(|| format!("write {}", program.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).context("make it a program")?;
    Ok(program)
}
