"""The types that the package tells checkers of are those of what runs."""

import os
import pathlib
import subprocess
import sysconfig
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def checked(*arguments):
    """What a tool of the checker says of the package that is installed here."""
    tools = [os.environ["WHEEL_TESTS_TOOLS"], "-m", *arguments]
    there = {**os.environ, "PYTHONPATH": sysconfig.get_path("platlib"), "MYPY_CACHE_DIR": os.devnull}
    return subprocess.run(tools, env=there, capture_output=True, text=True, timeout=120)


class Typing(unittest.TestCase):
    def test_stubs_say_of_every_class_and_function_what_is_there(self):
        # What only the package itself uses has no stub; and it does not matter which classes are laid out in which way.
        ended = checked("mypy.stubtest", "headwater", "--concise", "--ignore-missing-stub", "--ignore-disjoint-bases")
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_everything_public_has_a_type(self):
        ended = checked("mypy.stubtest", "headwater", "--concise", "--ignore-disjoint-bases")
        # The native part's own names are the package's business.
        public = [line for line in ended.stdout.splitlines() if not line.startswith("headwater._native.")]
        self.assertEqual(public, [], ended.stderr)

    def test_a_strict_checker_agrees_with_a_program_and_finds_its_mistakes(self):
        ended = checked("mypy", "--strict", str(HERE / "typed.py"))
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
