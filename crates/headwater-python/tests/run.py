"""Builds the wheel, installs it into a clean environment, and tests what is installed there.

    python3 run.py TARGET-DIRECTORY [--install]

With `--install` the package is only installed, in TARGET-DIRECTORY/wheel/clean.

The last line is for whoever counts: `N passed, N failed`. Nothing is skipped on a system that has `fork`.
"""

import faulthandler
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# The tool that PyO3's keepers build wheels with, and a type checker; kept to one version, so that a newer one breaks no test.
TOOLS = ["maturin==1.16.0", "mypy==2.4.1"]


# What a cargo that started us told of a package of its own. Build scripts look at these, and would build half the tree
# again, and the next build by hand would build it back.
TOLD = ("CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_")


def run(*command, **more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(TOLD)}
    subprocess.run([str(part) for part in command], check=True, env=environment, **more)


def python(environment):
    return environment / "bin" / "python"


def build(target):
    tools, wheels = target / "wheel" / "tools", target / "wheel" / "built"
    finished = tools / "finished"
    if not (finished.exists() and finished.read_text() == str(TOOLS)):
        run(sys.executable, "-m", "venv", "--clear", tools)
        run(python(tools), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
        finished.write_text(str(TOOLS))
    shutil.rmtree(wheels, ignore_errors=True)
    manifest = ROOT / "crates/headwater-python/Cargo.toml"
    # The binary is what the tests' servers are.
    run("cargo", "build", "--release", "--quiet", "--package", "headwater", "--target-dir", target, cwd=ROOT)
    command = [tools / "bin" / "maturin", "build", "--release", "--quiet", "--interpreter", python(tools)]
    run(*command, "--manifest-path", manifest, "--target-dir", target, "--out", wheels, cwd=ROOT)
    (wheel,) = wheels.glob("headwater-*-abi3-*.whl")
    return wheel


def main():
    if "WHEEL_TESTS_BINARY" in os.environ:
        # In the clean environment.
        # Whatever hangs says where.
        faulthandler.dump_traceback_later(150, exit=True)
        suite = unittest.defaultTestLoader.discover(str(HERE))
        outcome = unittest.TextTestRunner().run(suite)
        failed = len(outcome.failures) + len(outcome.errors) + len(outcome.unexpectedSuccesses)
        print(f"{outcome.testsRun - failed - len(outcome.skipped)} passed, {failed} failed", flush=True)
        if outcome.testsRun == 0 or outcome.skipped:
            print(f"{outcome.testsRun} tests ran and {len(outcome.skipped)} of them were skipped", file=sys.stderr)
        return 0 if outcome.wasSuccessful() and outcome.testsRun > 0 and not outcome.skipped else 1
    target = pathlib.Path(sys.argv[1]).resolve()
    wheel = build(target)
    clean = target / "wheel" / "clean"
    run(sys.executable, "-m", "venv", "--clear", clean)
    run(python(clean), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel)
    if sys.argv[2:] == ["--install"]:
        return 0
    told = {
        "WHEEL_TESTS_BINARY": str(target / "release" / "headwater"),
        "WHEEL_TESTS_MANUAL": str(ROOT / "docs/python.md"),
        "WHEEL_TESTS_TOOLS": str(python(target / "wheel" / "tools")),
    }
    # Not from this directory's parents: what is tested is what is installed.
    return subprocess.run([python(clean), "-I", __file__], env={**os.environ, **told}, cwd=target).returncode


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
