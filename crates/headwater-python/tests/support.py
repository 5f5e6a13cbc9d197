"""What the tests share: a server process of this repository's binary, and names that nobody else uses."""

import contextlib
import itertools
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading

import headwater

_NUMBERS = itertools.count(1)


def fresh(kind="stream", scope="tests"):
    """SCOPE/NAME that no other test has."""
    return f"{scope}/{kind}-{next(_NUMBERS)}"


class Server:
    """The binary that people run, on ports of its own."""

    def __init__(self, *arguments, scheme="tcp"):
        self._arguments, self._scheme = arguments, scheme
        self._directory = tempfile.TemporaryDirectory()
        self._start()

    @property
    def directory(self):
        """Where its data is."""
        return self._directory.name

    def _start(self, controller="127.0.0.1:0"):
        binary = os.environ["WHEEL_TESTS_BINARY"]
        arguments = ["serve", "--data-dir", self._directory.name]
        arguments += ["--controller", controller, "--segment-store", "127.0.0.1:0", "--http", "127.0.0.1:0", *self._arguments]
        self._process = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = []
        for line in self._process.stdout:
            said.append(line)
            found = re.match(r"ready controller=(\S+)", line)
            if found:
                self.address = f"{self._scheme}://{found.group(1)}"
                break
        else:
            raise RuntimeError("server ended: " + "".join(said))
        # It is never blocked by what nobody reads.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def restart(self):
        """Kills it and starts it where it was."""
        self.kill()
        self._start(self.address.partition("://")[2])

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._directory.cleanup()


@contextlib.contextmanager
def store():
    """A client of a store in memory with the scope `tests`."""
    with headwater.memory() as client:
        client.create_scope("tests")
        yield client


def mark(lower, upper, offset):
    """What the server notes of a stream of one segment: writers had noted `upper` at most before this offset."""
    times, place = struct.pack(">qq", lower, upper), struct.pack(">qddq", 0, 0.0, 1.0, offset)
    return bytes([0, 0, 1, 0, 0, 0, 0, 57]) + times + bytes([1, 0, 0, 1, 0, 0, 0, 0, 24]) + place


def child(code, *arguments, **more):
    """Runs Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, **more)
