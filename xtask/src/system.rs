//! What the machine must have, and installing it where nobody else does.

use std::process::{Command, Stdio};

/// Something a suite needs from the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// For the person who reads that it is missing.
    name: &'static str,
    /// Succeeds if it is there.
    probe: &'static [&'static str],
    /// What installs it.
    remedy: Remedy,
}

#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// Packages of Debian and Ubuntu.
    Packages(&'static [&'static str]),
    /// A component of the Rust toolchain.
    Component(&'static str),
}

pub(crate) const RUSTFMT: Need =
    Need { name: "rustfmt", probe: &["cargo", "fmt", "--version"], remedy: Remedy::Component("rustfmt") };
pub(crate) const CLIPPY: Need =
    Need { name: "clippy", probe: &["cargo", "clippy", "--version"], remedy: Remedy::Component("clippy") };
pub(crate) const LINKER: Need = Need {
    name: "a C compiler, linker and make",
    probe: &["sh", "-c", "cc --version && make --version"],
    remedy: Remedy::Packages(&["build-essential"]),
};
pub(crate) const PYTHON: Need = Need {
    name: "python3 with venv and pip",
    // A package of its own on Debian: `venv` is there without it and then fails half way.
    probe: &["python3", "-c", "import venv, ensurepip"],
    remedy: Remedy::Packages(&["python3", "python3-venv", "python3-pip"]),
};

pub(crate) const JAVA: Need = Need {
    name: "a JDK of 17 or later and Maven",
    // Maven brings a runtime with it, but no compiler.
    probe: &["sh", "-c", "javac --release 17 -version && mvn --version"],
    remedy: Remedy::Packages(&["default-jdk-headless", "maven"]),
};

pub(crate) const NODE: Need = Need {
    name: "Node.js with npm",
    probe: &["sh", "-c", "node --version && npm --version"],
    remedy: Remedy::Packages(&["nodejs", "npm"]),
};

pub(crate) const MOUNT: Need = Need {
    name: "mount, and the right to use it (root has it)",
    probe: &["sh", "-c", "d=$(mktemp -d) && trap 'rmdir \"$d\"' EXIT && mount -t tmpfs tmpfs \"$d\" && umount \"$d\""],
    remedy: Remedy::Packages(&["mount"]),
};

pub(crate) const STRACE: Need = Need {
    name: "strace, and the right to trace other processes",
    // A process that it did not start, as the suite's servers are: some machines forbid just that.
    probe: &["sh", "-c", "sleep 1 & strace -e trace=none -o /dev/null -p $!"],
    remedy: Remedy::Packages(&["strace"]),
};

/// Is it there? With `install`, tries to make it so first. `Err` says what is missing.
pub(crate) fn provide(need: &Need, install: bool) -> Result<(), String> {
    if succeeds(need.probe) {
        return Ok(());
    }
    let by_hand = match need.remedy {
        Remedy::Packages(packages) => format!("apt-get install {}", packages.join(" ")),
        Remedy::Component(component) => format!("rustup component add {component}"),
    };
    if !install {
        return Err(format!("{} is missing (try: {by_hand})", need.name));
    }
    println!("installing {}", need.name);
    match need.remedy {
        Remedy::Packages(packages) => {
            let _ = succeeds_loudly(&["apt-get", "update", "--quiet"]);
            let install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
            let _ = succeeds_loudly(&[&install[..], packages].concat());
        }
        Remedy::Component(component) => {
            let _ = succeeds_loudly(&["rustup", "component", "add", component]);
        }
    }
    if succeeds(need.probe) { Ok(()) } else { Err(format!("{} is missing, and {by_hand} did not help", need.name)) }
}

fn succeeds(command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn succeeds_loudly(command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let need = Need { name: "a thing", probe: &["no-such-program"], remedy: Remedy::Packages(&["thing-tools"]) };
        let reason = provide(&need, false).expect_err("it is missing");
        assert!(reason.contains("a thing") && reason.contains("apt-get install thing-tools"), "{reason}");
        let there = Need { name: "true", probe: &["true"], remedy: Remedy::Component("x") };
        assert!(provide(&there, false).is_ok());
    }
}
