"""What concerns the whole process: stores on disk, Ctrl-C, forks, servers that are not there."""

import inspect
import os
import pathlib
import re
import signal
import tempfile
import threading
import time
import unittest

import headwater
import headwater.aio
from support import child, fresh, store


class Process(unittest.TestCase):
    def test_a_store_on_disk_keeps_what_was_flushed_and_belongs_to_one_process(self):
        with tempfile.TemporaryDirectory() as directory:
            with headwater.open(directory) as client:
                client.create_scope("tests")
                client.create_stream("tests/kept")
                with client.event_writer("tests/kept") as writer:
                    writer.write(b"kept", "k")
                refused = child("import headwater, sys; headwater.open(sys.argv[1])", directory)
                self.assertIn("NotStartedError", refused.stderr)
                self.assertIn("in use", refused.stderr)
            with headwater.open(directory) as client:
                self.assertEqual(list(client.stream_reader("tests/kept", until="tail").payloads()), [b"kept"])

    def test_ctrl_c_ends_a_wait_and_nothing_is_lost(self):
        with store() as client:
            stream = fresh()
            client.create_stream(stream)
            reader = client.stream_reader(stream)
            threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            begun = time.monotonic()
            with self.assertRaises(KeyboardInterrupt):
                next(reader)
            self.assertLess(time.monotonic() - begun, 3)
            with client.event_writer(stream) as writer:
                writer.write(b"after", "k")
            self.assertEqual(reader.next(timeout=10).data, b"after")

    def test_a_server_that_is_not_there_is_unavailable_within_the_time_given(self):
        client = headwater.connect("tcp://127.0.0.1:1", retry_for=0.3, connect_timeout=0.3)
        begun = time.monotonic()
        with self.assertRaises(headwater.UnavailableError) as raised:
            client.scopes()
        self.assertLess(time.monotonic() - begun, 10)
        self.assertEqual(raised.exception.code, "unavailable")

    def test_options_that_make_no_sense_are_refused(self):
        for options in (
            {"address": "http://x"},
            {"address": "tls://x"},
            {"address": "tls://x", "trust": b"no certificate"},
            {"address": "tcp://x", "basic": ("a", "b"), "bearer": "c"},
            {"address": "tcp://x", "basic": ("a:b", "c")},
            {"address": "tcp://x", "retry_for": -1.0},
        ):
            with self.assertRaises(headwater.InvalidError):
                headwater.connect(**options)

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_forked_child_is_told_instead_of_waiting_for_ever(self):
        code = (
            "import headwater, os, warnings; warnings.simplefilter('ignore')\n"
            "client = headwater.memory(); client.create_scope('s'); client.create_stream('s/a')\n"
            "writer = client.event_writer('s/a')\n"
            "process = os.fork()\n"
            "if process == 0:\n"
            "    for call in [client.scopes, lambda: writer.write(b'x'), lambda: writer.write_many([b'x'])]:\n"
            "        try: call()\n"
            "        except RuntimeError as error: ok = 'fork' in str(error)\n"
            "        else: os._exit(4)\n"
            "        if not ok: os._exit(3)\n"
            "    os._exit(0)\n"
            "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))\n"
        )
        ended = child(code)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_the_interpreter_ends_while_operations_are_under_way(self):
        code = (
            "import headwater, threading\n"
            "client = headwater.memory(); client.create_scope('s'); client.create_stream('s/a')\n"
            "reader = client.stream_reader('s/a')\n"
            "threading.Thread(target=lambda: next(reader), daemon=True).start()\n"
            "writer = client.event_writer('s/a'); writer.write(b'x'); print('end')\n"
        )
        ended = child(code)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "end\n", ""))

    def test_every_code_has_an_exception_of_its_own(self):
        codes = [kind.code for kind in headwater.Error.__subclasses__()]
        self.assertEqual(len(codes), len(set(codes)))
        expected = "invalid not-found already-exists conflict sealed truncated unauthenticated denied unavailable"
        self.assertLessEqual({*expected.split(), "exhausted", "unsupported", "protocol", "closed"}, set(codes))

    def test_both_packages_can_do_the_same(self):
        for name, kind in vars(headwater._blocking).items():
            if not inspect.isclass(kind) or not kind.__module__.endswith("_blocking") or name.startswith("_"):
                continue
            other = getattr(headwater.aio, name, None)
            if name == "Pending":
                continue
            self.assertIsNotNone(other, name)
            public = {word for word in dir(kind) if not word.startswith("_")}
            missing = public - {word for word in dir(other) if not word.startswith("_")} - {"submit"}
            self.assertEqual(missing, set(), name)

    def test_the_examples_of_the_manual_run(self):
        manual = pathlib.Path(os.environ["WHEEL_TESTS_MANUAL"]).read_text()
        examples = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
        self.assertGreater(len(examples), 3)
        for example in examples:
            with self.subTest(example=example), tempfile.TemporaryDirectory() as directory:
                ended = child(example, cwd=directory)
                self.assertEqual((ended.returncode, ended.stderr), (0, ""))
                # What an example says it prints, it prints.
                said = re.findall(r"#> (.*)", example)
                self.assertEqual(ended.stdout.splitlines(), said)


if __name__ == "__main__":
    unittest.main()
