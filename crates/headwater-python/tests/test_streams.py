"""Streams, events, transactions, bytes, groups and tables: the same against a store in memory and against a server."""

import dataclasses
import os
import pickle
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import headwater
from support import Server, child, fresh, mark


class Operations:
    """Each test runs against every store that a subclass makes."""

    client: headwater.Client

    def made(self, segments=1):
        stream = fresh()
        self.assertTrue(self.client.create_stream(stream, segments))
        return stream

    def test_scopes_and_streams_are_made_listed_and_deleted(self):
        client = self.client
        self.assertTrue(client.create_scope("other"))
        self.assertFalse(client.create_scope("other"))
        self.assertIn("other", client.scopes())
        config = headwater.StreamConfig(headwater.ByEventRate(100, 3, 2), headwater.RetainTime(60, 120), ("red", "blue"))
        self.assertTrue(client.create_stream("other/a", config))
        self.assertEqual(client.stream_config("other/a"), config)
        self.assertEqual(client.streams("other", tag="red"), ["a"])
        self.assertEqual(client.streams("other", tag="green"), [])
        other = headwater.StreamConfig(headwater.Fixed(2), headwater.RetainSize(1 << 20, 1 << 30))
        client.update_stream("other/a", other)
        self.assertEqual(client.stream_config("other/a"), other)
        with self.assertRaises(headwater.ConflictError):
            client.delete_scope("other")
        with self.assertRaises(headwater.ConflictError) as raised:
            client.delete_stream("other/a")
        self.assertEqual(raised.exception.code, "conflict")
        self.assertTrue(client.delete_stream("other/a", seal=True))
        self.assertFalse(client.delete_stream("other/a", seal=True))
        self.assertTrue(client.delete_scope("other"))
        self.assertFalse(client.scope_exists("other"))

    def test_every_event_is_read_once_and_in_order_per_key(self):
        stream = self.made(3)
        with self.client.event_writer(stream) as writer:
            for number in range(5000):
                writer.write(b"%d %d" % (number % 7, number), str(number % 7))
        found = {}
        for event in self.client.stream_reader(stream, until="tail"):
            key, number = event.data.split()
            found.setdefault(key, []).append(int(number))
        self.assertEqual(found, {b"%d" % key: list(range(key, 5000, 7)) for key in range(7)})

    def test_events_of_all_sizes_come_back_as_they_were_written(self):
        stream = self.made()
        events = [b"x", bytearray(b"ab"), memoryview(b"abc"), os.urandom(100_000), os.urandom(9 << 20)]
        with self.client.event_writer(stream) as writer:
            self.assertEqual(writer.write_many(events, "key"), len(events))
        read = list(self.client.stream_reader(stream, until="tail").payloads())
        self.assertEqual(read, [bytes(event) for event in events])

    def test_an_event_is_told_where_it_is_and_fetched_from_there(self):
        stream = self.made()
        with self.client.event_writer(stream) as writer:
            self.assertEqual(writer.submit(b"one", "k").result(10), headwater.Written(0, 0, 11))
            self.assertEqual(writer.submit(b"two", "k").result(10).offset, 11)
        event = list(self.client.stream_reader(stream, until="tail"))[1]
        self.assertEqual((bytes(event), event.offset, event.segment, event.stream), (b"two", 11, 0, stream))
        pointer = pickle.loads(pickle.dumps(event.pointer))
        self.assertEqual(self.client.fetch_event(pointer), b"two")
        self.assertEqual(headwater.EventPointer.parse(str(pointer)), event.pointer)

    def test_a_cut_is_where_reading_goes_on_and_what_truncation_leaves(self):
        stream = self.made()
        with self.client.event_writer(stream) as writer:
            writer.write_many([b"%d" % number for number in range(10)], "k")
        reader = self.client.stream_reader(stream)
        self.assertEqual([next(reader).data for _ in range(4)], [b"0", b"1", b"2", b"3"])
        cut = headwater.StreamCut.parse(str(reader.cut()))
        self.assertEqual(cut, pickle.loads(pickle.dumps(cut)))
        rest = self.client.stream_reader(stream, cut, until="tail").payloads()
        self.assertEqual(b"".join(rest), b"456789")
        self.client.truncate_stream(cut)
        self.assertEqual(self.client.head_cut(stream), cut)
        with self.assertRaises(headwater.TruncatedError):
            next(self.client.stream_reader(stream, headwater.StreamCut.of(stream, {0: 0})))

    def test_a_reader_at_the_tail_waits_no_longer_than_it_is_told_to_and_loses_nothing(self):
        stream = self.made()
        reader = self.client.stream_reader(stream, "tail")
        begun = time.monotonic()
        with self.assertRaises(TimeoutError):
            reader.next(timeout=0.2)
        self.assertLess(time.monotonic() - begun, 5)
        with self.client.event_writer(stream) as writer:
            writer.write(b"late", "k")
        self.assertEqual(reader.next(timeout=10).data, b"late")
        self.client.seal_stream(stream)
        self.assertEqual(reader.read_many(timeout=10), [])
        with self.assertRaises(StopIteration):
            reader.next(timeout=10)

    def test_a_wait_that_was_given_up_takes_nothing(self):
        stream = self.made()
        reader = self.client.stream_reader(stream)
        with self.assertRaises(TimeoutError):
            reader.next(timeout=0.05)
        with self.client.event_writer(stream) as writer:
            writer.write(b"taken", "k")
        time.sleep(0.2)
        self.assertEqual(reader.cut().offsets, {0: 0})
        self.assertEqual(reader.next(timeout=10).data, b"taken")
        self.assertEqual(reader.cut().offsets, {0: 13})

    def test_closing_a_reader_ends_a_wait_of_another_thread(self):
        stream, group = self.made(), fresh("group")
        self.client.create_reader_group(group, stream)
        reader = self.client.reader_group(group).reader("r")
        told = []

        def wait():
            try:
                reader.next(timeout=30)
            except headwater.ClosedError as error:
                told.append(error.code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        reader.close()
        waiting.join(10)
        self.assertEqual(told, ["closed"])
        reader.close()

    def test_streams_are_scaled_and_read_through(self):
        stream = self.made()
        with self.client.event_writer(stream) as writer:
            writer.write_many([b"a%d" % number for number in range(50)], "k")
            writer.flush()
            self.client.scale_stream(stream, [0], [(0.0, 0.5), (0.5, 1.0)])
            writer.write_many([b"b%d" % number for number in range(50)], "k")
        self.assertEqual([(one.low, one.high) for one in self.client.segments(stream)], [(0.0, 0.5), (0.5, 1.0)])
        self.assertTrue(self.client.segment_info(stream, 0).sealed)
        read = list(self.client.stream_reader(stream, until="tail").payloads())
        self.assertEqual(read, [b"a%d" % number for number in range(50)] + [b"b%d" % number for number in range(50)])

    def test_slices_hold_everything_and_are_read_side_by_side(self):
        stream = self.made(3)
        with self.client.event_writer(stream) as writer:
            writer.write_many([b"%d" % number for number in range(300)], lambda event: event.decode())
        slices = self.client.slices(stream)
        found = [event.data for one in slices for event in self.client.read_slice(one)]
        self.assertEqual(sorted(found, key=int), [b"%d" % number for number in range(300)])

    def test_cuts_part_a_stream_into_what_is_read_side_by_side(self):
        stream = self.made(2)
        numbers = range(400)
        with self.client.event_writer(stream) as writer:
            writer.write_many((b"%d" % number for number in numbers[:200]), lambda event: event.decode())
            writer.flush()
            self.client.scale_stream(stream, [0, 1], [(0.0, 0.3), (0.3, 1.0)])
            writer.write_many((b"%d" % number for number in numbers[200:]), lambda event: event.decode())
        at, parts = self.client.head_cut(stream), []
        while True:
            then = self.client.next_cut(at, 1000)
            if then == at:
                break
            slices = self.client.slices(stream, start=at, end=then)
            parts.append([event.data for one in slices for event in self.client.read_slice(one)])
            at = then
        self.assertEqual(at, self.client.tail_cut(stream))
        self.assertGreater(len(parts), 1)
        self.assertEqual(sorted((data for part in parts for data in part), key=int), [b"%d" % number for number in numbers])
        self.assertEqual([one.start == one.end for one in self.client.slices(stream, start=at)], [True, True])
        with self.assertRaises(headwater.InvalidError):
            self.client.slices(stream, start=at, end=self.client.head_cut(stream))
        with self.assertRaises(headwater.InvalidError):
            self.client.next_cut(at, -1)

    def test_a_callback_that_raises_ends_writing_with_its_own_exception(self):
        stream = self.made()

        def key(event):
            if event == b"3":
                raise KeyError("mine")
            return "k"

        with self.client.event_writer(stream) as writer:
            with self.assertRaises(KeyError):
                writer.write_many([b"%d" % number for number in range(9)], key)
            with self.assertRaises(TypeError):
                writer.write("text")
            with self.assertRaises(headwater.InvalidError):
                writer.write(b"")
        read = list(self.client.stream_reader(stream, until="tail").payloads())
        self.assertEqual(read, [b"0", b"1", b"2"])

    def test_a_small_window_holds_writers_back_and_loses_nothing(self):
        stream = self.made()
        with self.client.event_writer(stream, window_bytes=1 << 16, batch_bytes=1 << 12) as writer:
            for number in range(2000):
                writer.write(b"%4d" % number + bytes(996), "k")
                self.assertLessEqual(writer.bytes_under_way, 1 << 17)
        read = self.client.stream_reader(stream, until="tail").payloads()
        self.assertEqual([int(event[:4]) for event in read], list(range(2000)))

    def test_a_sealed_stream_refuses_writers(self):
        stream = self.made()
        writer = self.client.event_writer(stream)
        writer.write(b"a", "k")
        writer.flush()
        self.client.seal_stream(stream)
        with self.assertRaises(headwater.SealedError):
            writer.write(b"b", "k")
            writer.flush()

    def test_a_transaction_commits_at_the_end_of_its_block_and_aborts_when_it_raises(self):
        stream = self.made()
        transactions = self.client.transaction_writer(stream)
        with transactions.transaction() as committed:
            committed.write(b"kept", "k")
        with self.assertRaises(ZeroDivisionError):
            with transactions.transaction() as aborted:
                aborted.write(b"dropped", "k")
                1 / 0
        with self.assertRaises(headwater.ClosedError):
            aborted.write(b"late", "k")
        third = transactions.begin()
        self.assertEqual(self.client.transaction_state(stream, third.id), "open")
        third.write(b"third", "k")
        third.flush()
        again = transactions.resume(third.id)
        again.commit()
        self.assertEqual(list(self.client.stream_reader(stream, until="tail").payloads()), [b"kept", b"third"])
        self.assertEqual(self.client.transaction_state(stream, committed.id), "committed")
        self.assertIn(self.client.transaction_state(stream, aborted.id), ("aborting", "aborted"))
        self.assertIn((committed.id, True), self.client.completed_transactions(stream))

    def test_bytes_are_written_sought_truncated_and_end_with_a_seal(self):
        stream = self.made()
        with self.client.byte_writer(stream) as writer:
            self.assertEqual(writer.write(b"0123456789"), 10)
            self.assertEqual(writer.write(b""), 0)
        self.assertEqual(writer.tail(), 10)
        reader = self.client.byte_reader(stream)
        self.assertEqual(reader.read(4), b"0123")
        self.assertEqual(reader.tell(), 4)
        self.assertEqual(reader.seek(-2, 2), 8)
        self.assertEqual(reader.read(), b"89")
        with self.assertRaises(TimeoutError):
            reader.read(timeout=0.1)
        writer.truncate(5)
        self.assertEqual(reader.head(), 5)
        reader.seek(0)
        with self.assertRaises(headwater.TruncatedError):
            reader.read()
        reader.seek(5)
        self.assertEqual(reader.read(), b"56789")
        writer.seal()
        self.assertEqual(reader.read(), b"")

    def test_readers_of_a_group_share_events_and_leave_what_they_did_not_hand_out(self):
        stream, group = self.made(2), fresh("group")
        with self.client.event_writer(stream) as writer:
            writer.write_many([b"%d" % number for number in range(200)], lambda event: event.decode())
        config = headwater.ReaderGroupConfig({stream: None}, refresh=0.1, automatic_checkpoint=0.2)
        self.assertTrue(self.client.create_reader_group(group, config))
        self.assertFalse(self.client.create_reader_group(group, config))
        members = self.client.reader_group(group)
        found = []
        with members.reader("first", at_once=True) as first:
            for _ in range(30):
                found.append(first.next(timeout=10).data)
            self.assertEqual(members.online_readers(), {"first"})
            position = headwater.Position.decode(bytes(first.position()))
            self.assertEqual(position, first.position())
        self.assertEqual(members.online_readers(), set())
        with members.reader("second", at_once=True) as second:
            while len(found) < 200:
                found.extend(event.data for event in second.read_many(timeout=10))
        self.assertEqual(sorted(map(int, found)), list(range(200)))
        self.assertTrue(self.client.delete_reader_group(group))

    def test_batches_of_a_group_have_every_event_once_with_its_place(self):
        stream, group = self.made(), fresh("group")
        written = [b"%d" % number * (1 + number % 7) for number in range(3000)]
        writer = self.client.event_writer(stream)
        writer.write_many(written, "k")
        writer.flush()
        self.client.create_reader_group(group, stream)
        with self.client.reader_group(group).reader("r", at_once=True) as reader:
            found, end = [], 0
            while len(found) < len(written):
                batch = reader.read_batch(limit=500, timeout=10)
                self.assertEqual((batch.stream, batch.segment, batch.offset), (stream, 0, end))
                payloads, events = list(batch), batch.events()
                self.assertEqual([event.data for event in events], payloads)
                self.assertLessEqual(len(batch), 500)
                self.assertEqual(len(batch), len(payloads))
                self.assertEqual(self.client.fetch_event(events[-1].pointer), payloads[-1])
                end = events[-1].offset + 8 + len(payloads[-1])
                found.extend(payloads)
            self.assertEqual(found, written)
            with self.assertRaises(TimeoutError):
                reader.read_batch(timeout=0.2)
            # One that is taken while nobody is there comes first, and with those behind it.
            wait = threading.Thread(target=lambda: found.append(reader.next(timeout=30)))
            wait.start()
            writer.write(b"x", "k")
            writer.flush()
            wait.join(30)
            self.assertEqual(found[-1].data, b"x")
            writer.write_many([b"y", b"z"], "k")
            writer.flush()
            last = []
            while len(last) < 2:
                last.extend(reader.read_batch(timeout=10))
            self.assertEqual(last, [b"y", b"z"])
            self.client.seal_stream(stream)
            self.assertIsNone(reader.read_batch(timeout=30))
        with self.assertRaises(headwater.ClosedError):
            reader.read_batch()

    def test_a_checkpoint_is_where_a_group_begins_anew(self):
        stream, group = self.made(), fresh("group")
        writer = self.client.event_writer(stream)
        writer.write_many([b"%d" % number for number in range(10)], "k")
        writer.flush()
        config = headwater.ReaderGroupConfig({stream: None}, refresh=0.05, automatic_checkpoint=None)
        self.client.create_reader_group(group, config)
        members = self.client.reader_group(group)
        reader = members.reader("r", checkpoints=True)
        self.assertEqual([reader.next(timeout=10).data for _ in range(4)], [b"0", b"1", b"2", b"3"])
        under_way = members.initiate_checkpoint("mine")
        done = []
        waiting = threading.Thread(target=lambda: done.append(under_way.wait()))
        waiting.start()
        seen, deadline = [], time.monotonic() + 30
        while waiting.is_alive() and time.monotonic() < deadline:
            try:
                seen.append(reader.next(timeout=0.1))
            except TimeoutError:
                pass
        waiting.join(10)
        checkpoint = headwater.Checkpoint.decode(bytes(done[0]))
        self.assertEqual(checkpoint.name, "mine")
        # There may have been nothing left before the readers stopped for it.
        writer.write(b"10", "k")
        writer.flush()
        reached = seen.index(headwater.CheckpointReached("mine"))
        behind = [event.data for event in seen[reached + 1 :]]
        members.reset_to(checkpoint)
        with self.assertRaises(headwater.ClosedError):
            while True:
                reader.next(timeout=10)
        with members.reader("again") as again:
            first = again.next(timeout=10).data
        self.assertEqual(first, b"%d" % (4 + reached))
        self.assertEqual(behind[:1], [first][: len(behind)])

    def test_tables_change_under_conditions_all_or_nothing(self):
        table = self.client.table(fresh("table"))
        first = table.put(b"a", b"1", condition=headwater.ABSENT)
        with self.assertRaises(headwater.ConflictError):
            table.put(b"a", b"2", condition=headwater.ABSENT)
        second = table.put(b"a", b"2", condition=first)
        self.assertGreater(second, first)
        with self.assertRaises(headwater.ConflictError):
            table.update([(b"b", b"1", None), (b"a", b"3", first)])
        self.assertEqual(table.get_all([b"a", b"b"]), [(b"2", second), None])
        table.update([(b"%d" % number, b"v", None) for number in range(50)])
        self.assertEqual(len(list(table.entries())), 51)
        self.assertEqual(table.info().entries, 51)
        changes = table.changes()
        self.assertTrue(changes.is_end)
        table.put(b"late", b"v")
        self.assertEqual([key for key, _, _ in table.changes(changes.next).entries], [b"late"])
        table.remove(b"a", condition=second)
        self.assertIsNone(table.get(b"a"))

    def test_key_value_tables_have_keys_of_two_parts_and_are_gone_through_in_order(self):
        name = fresh("kvt")
        self.assertTrue(
            self.client.create_key_value_table(name, partitions=2, primary_key_bytes=2, secondary_key_bytes=1)
        )
        self.assertIn(name.split("/")[1], self.client.key_value_tables("tests"))
        table = self.client.key_value_table(name)
        self.assertEqual(table.config.secondary_key_bytes, 1)
        table.update([((b"aa", b"2"), b"two", None), ((b"aa", b"1"), b"one", headwater.ABSENT)])
        table.put((b"bb", b"1"), b"three")
        self.assertEqual([entry.value for entry in table.entries()], [b"one", b"two", b"three"])
        self.assertEqual([entry.secondary for entry in table.entries(primary=b"aa", first=b"2")], [b"2"])
        keys = [(b"aa", b"1"), (b"aa", b"2"), (b"bb", b"1")]
        self.assertEqual([(one.key, one.secondary) for one in table.keys()], keys)
        self.assertEqual([one.version for one in table.keys(primary=b"bb")], [table.get((b"bb", b"1"))[1]])
        self.assertEqual(table.get((b"bb", b"1"))[0], b"three")
        with self.assertRaises(headwater.InvalidError):
            table.put(b"aaa", b"v")
        self.assertEqual(table.count(), 3)
        self.assertTrue(self.client.delete_key_value_table(name))

    def test_entries_are_written_by_agreement(self):
        stream = self.client.revisioned_stream(self.made())
        begin = stream.latest()
        one = stream.write_at(begin, b"one")
        self.assertIsNone(stream.write_at(begin, b"other"))
        stream.write(b"two")
        self.assertEqual([entry for _, entry in stream.read()], [b"one", b"two"])
        self.assertEqual([entry for _, entry in stream.read(one)], [b"two"])
        self.assertTrue(stream.replace_mark(None, one))
        self.assertEqual(stream.mark(), one)
        stream.truncate(one)
        self.assertEqual(stream.oldest(), one)

    def test_a_shared_state_is_changed_by_all_and_survives_a_codec_that_raises(self):
        stream = self.made()
        mine = self.client.state_synchronizer(stream, Counters())
        theirs = self.client.state_synchronizer(stream, Counters())
        self.assertIsNone(mine.fetch())
        self.assertTrue(mine.initialize({}))
        self.assertFalse(theirs.initialize({"never": 1}))
        self.assertEqual(mine.update(lambda state: [("a", 1), ("b", 2)]), {"a": 1, "b": 2})
        # Its copy is old: it is asked again.
        asked = []
        theirs.update(lambda state: asked.append(dict(state)) or [("a", 10)])
        self.assertEqual(asked, [{}, {"a": 1, "b": 2}])
        with self.assertRaises(ZeroDivisionError):
            mine.update(lambda state: 1 / 0)
        with self.assertRaises(ValueError):
            mine.update(lambda state: [("unwritable", 0)])
        with self.assertRaisesRegex(RuntimeError, "a callback cannot wait"):
            mine.update(lambda state: mine.state)
        self.assertEqual(mine.fetch(), {"a": 11, "b": 2})
        mine.compact()
        self.assertEqual(self.client.state_synchronizer(stream, Counters()).fetch(), {"a": 11, "b": 2})

    def test_a_writer_of_numbered_events_goes_on_where_another_of_its_name_stopped(self):
        stream = self.made(3)
        events = [(number, b"%d" % number) for number in range(1, 301)]
        key = lambda event: str(int(event) % 17)  # noqa: E731
        with self.client.numbered_writer(stream, "importer") as writer:
            self.assertEqual((writer.stream, writer.resume_after), (stream, 0))
            self.assertFalse(writer.is_stored(1, "1"))
            self.assertEqual(writer.write_many(events[:200], key), 200)
        # It is as if the process had died: the other begins anew, and long before.
        again = self.client.numbered_writer(stream, "importer")
        self.assertTrue(100 < again.resume_after <= 200, again.resume_after)
        self.assertTrue(again.is_stored(200, key(b"200")))
        self.assertFalse(again.is_stored(201, key(b"201")))
        self.assertIsNone(again.submit(1, b"1", key(b"1")).result(10).offset)
        for number, event in events[1:250]:
            again.write(number, event, key(event))
        self.assertEqual(again.write_many(events[250:299], key), 49)
        self.assertIsNotNone(again.submit(300, b"300", key(b"300")).result(10).offset)
        again.write_all(301, [b"301", b"318"], "12")
        again.flush()
        self.assertEqual(again.bytes_under_way, 0)
        found = {}
        for event in self.client.stream_reader(stream, until="tail").payloads():
            found.setdefault(int(event) % 17, []).append(int(event))
        expected = {of: [n for n in [*range(1, 302), 318] if n % 17 == of] for of in range(17)}
        self.assertEqual(found, expected)
        other = self.client.numbered_writer(stream, "another")
        self.assertEqual((other.resume_after, other.is_stored(1, "1")), (0, False))

    def test_numbers_of_events_grow_and_are_none_that_the_store_cannot_keep(self):
        stream = self.made()
        writer = self.client.numbered_writer(stream, "importer")
        writer.write(5, b"five", "k")
        for number in (0, 4, 5, -1, 1 << 62, 1 << 70):
            with self.assertRaises(headwater.InvalidError):
                writer.write(number, b"x", "k")
        with self.assertRaises(TypeError):
            writer.write("6", b"x", "k")
        with self.assertRaises(TypeError):
            writer.write_many([(6, b"x")], lambda event: 7)
        with self.assertRaises(headwater.InvalidError):
            writer.write(6, b"", "k")
        # None of these was handed over.
        writer.write(6, b"six", "k")
        writer.flush()
        self.assertEqual(list(self.client.stream_reader(stream, until="tail").payloads()), [b"five", b"six"])
        with self.assertRaises(headwater.InvalidError):
            self.client.numbered_writer(stream, "")
        self.client.seal_stream(stream)
        with self.assertRaises(headwater.SealedError):
            writer.write(7, b"seven", "k")
            writer.flush()
        # It stays so: nothing is to come behind what is missing.
        with self.assertRaises(headwater.SealedError):
            writer.flush()

    def members(self, stream):
        """A group of readers of this stream, who say often where they are."""
        group = fresh("group")
        config = headwater.ReaderGroupConfig({stream: None}, refresh=0.05, automatic_checkpoint=None)
        self.client.create_reader_group(group, config)
        return self.client.reader_group(group)

    def written(self, count, segments=1):
        """A stream with so many numbers."""
        stream = self.made(segments)
        with self.client.event_writer(stream) as writer:
            writer.write_many([b"%d" % number for number in range(count)], lambda event: event.decode())
        return stream

    def test_a_group_goes_on_before_the_first_event_that_is_not_acknowledged(self):
        stream = self.written(10)
        members = self.members(stream)
        with members.acknowledging_reader("first", redeliver_after=60) as reader:
            received = [reader.next(timeout=10) for _ in range(10)]
            self.assertEqual([(int(it.data), it.attempt) for it in received], [(n, 1) for n in range(10)])
            self.assertEqual((reader.id, reader.unacknowledged), ("first", 10))
            one = received[1]
            self.assertEqual((one.stream, one.segment, one.offset, len(one), bytes(one)), (stream, 0, 9, 1, b"1"))
            self.assertEqual(self.client.fetch_event(one.pointer), b"1")
            self.assertEqual([received[at].acknowledge() for at in (4, 2, 0, 7, 3)], [True] * 5)
            self.assertFalse(received[4].acknowledge())
            before = reader.position()
            # What is given back comes again at once; its block acknowledges it, or gives it back.
            self.assertTrue(received[1].give_back())
            with self.assertRaises(ZeroDivisionError):
                with reader.next(timeout=10) as again:
                    self.assertEqual((again.data, again.attempt), (b"1", 2))
                    1 / 0
            with reader.next(timeout=10) as again:
                self.assertEqual((again.data, again.attempt), (b"1", 3))
            self.assertEqual(reader.unacknowledged, 4)
            self.assertNotEqual(reader.position(), before)
        self.assertFalse(received[5].acknowledge(), "others have it now")
        with members.acknowledging_reader("second", redeliver_after=0.2) as reader:
            attempts = {}
            while len(attempts) < 5 or min(attempts.values()) < 2:
                received = reader.next(timeout=10)
                attempts[int(received.data)] = received.attempt
            self.assertEqual(sorted(attempts), [5, 6, 7, 8, 9])
            while reader.unacknowledged:
                reader.next(timeout=10).acknowledge()
        self.assertEqual(members.unread_bytes(), 0)

    def test_as_many_events_are_out_as_there_may_be_and_threads_acknowledge_them(self):
        stream = self.written(200, 2)
        members = self.members(stream)
        reader = members.acknowledging_reader("r", unacknowledged_max=2)
        first, second = reader.next(timeout=10), reader.next(timeout=10)
        with self.assertRaises(TimeoutError):
            reader.next(timeout=0.3)
        self.assertTrue(first.acknowledge() and second.acknowledge())
        found = [int(first.data), int(second.data)]
        self.client.seal_stream(stream)

        def handle(received):
            found.append(int(received.data))
            received.acknowledge()

        with ThreadPoolExecutor(4) as pool, reader:
            # It ends when all is acknowledged.
            for received in reader:
                pool.submit(handle, received)
                self.assertLessEqual(reader.unacknowledged, 2)
        self.assertEqual(sorted(found), list(range(200)))

    def test_closing_a_reader_that_acknowledges_ends_a_wait_of_another_thread(self):
        reader = self.members(self.made()).acknowledging_reader("r")
        told = []

        def wait():
            try:
                reader.next(timeout=30)
            except headwater.ClosedError as error:
                told.append(error.code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        reader.position()
        reader.close()
        waiting.join(10)
        self.assertEqual(told, ["closed"])
        reader.close()
        with self.assertRaises(headwater.ClosedError):
            reader.position()

    def online(self, members, expected):
        deadline = time.monotonic() + 30
        while members.online_readers() != expected:
            self.assertLess(time.monotonic(), deadline, members.online_readers())
            time.sleep(0.05)

    def test_readers_that_beat_are_found_out_when_they_stop(self):
        stream = self.written(50, 2)
        members = self.members(stream)
        mortal = members.reader("mortal", at_once=True, dead_after=1.0)
        found = {mortal.next(timeout=10).data}
        silent = members.acknowledging_reader("silent")
        # Nobody has it any more: it stops to beat, as if the process had ended.
        del mortal
        with members.acknowledging_reader("heir", dead_after=1.0) as heir:
            self.online(members, {"silent", "heir"})
            silent.close()
            while len(found) < 50:
                with heir.next(timeout=10) as received:
                    found.add(received.data)
        mortal = members.reader("mortal", dead_after=1.0)
        with members.watch(1.0) as watch:
            self.assertEqual(members.online_readers(), {"mortal"})
            del mortal
            self.online(members, set())
        watch.close()
        with self.assertRaises(headwater.InvalidError):
            members.reader("r", dead_after=-1.0)

    def test_what_time_it_is_where_a_group_reads(self):
        stream = self.made()
        scope, _, name = stream.partition("/")
        marks = self.client.revisioned_stream(f"{scope}/_MARK{name}")
        members = self.members(stream)
        with members.reader("r", at_once=True) as reader:
            self.assertEqual(reader.time_window(stream), headwater.TimeWindow(None, None))
            for lower, upper, offset in ((100, 120, 27), (200, 220, 63)):
                marks.write(mark(lower, upper, offset))
            self.assertEqual(reader.time_window(stream), (None, 120))
            # Also while somebody waits with it.
            waiting = threading.Thread(target=lambda: reader.next(timeout=30))
            waiting.start()
            time.sleep(0.2)
            begun = time.monotonic()
            self.assertEqual(reader.time_window(stream).upper, 120)
            self.assertLess(time.monotonic() - begun, 5)
            writer = self.client.event_writer(stream)
            writer.write_many([b"x"] * 4, "k")
            writer.flush()
            waiting.join(30)
            deadline = time.monotonic() + 30
            while reader.time_window(stream) != (100, 220):
                self.assertLess(time.monotonic(), deadline, reader.time_window(stream))
                try:
                    reader.next(timeout=0.05)
                except TimeoutError:
                    pass
            # One that was taken in nobody's presence is yet to come, whatever the group has passed.
            writer.write(b"x", "k")
            writer.flush()
            reader._native.fill().wait(10)
            self.assertEqual(reader.time_window(stream), (None, None))
            reader.next(timeout=10)
            self.assertEqual(reader.time_window(stream).lower, 100)
            with self.assertRaises(headwater.InvalidError):
                reader.time_window("tests/none")
        with self.assertRaises(headwater.ClosedError):
            reader.time_window(stream)

    def test_values_that_are_shared_in_a_table_are_changed_by_all(self):
        name = fresh("shared")
        mine, theirs = self.client.table_synchronizer(name), self.client.table_synchronizer(name)
        self.assertEqual((mine.table, len(mine.maps)), (name, 0))
        put = [(b"fruit", b"apple", b"1"), (b"fruit", b"pear", b"2"), (b"", b"", b"3")]
        self.assertEqual(len(mine.put(lambda maps: put)), 3)
        maps = theirs.fetch()
        self.assertEqual(maps.map(b"fruit"), {b"apple": b"1", b"pear": b"2"})
        self.assertEqual((maps.outer_keys(), maps.get(b"", b""), maps.get(b"fruit", b"plum")), ([b"", b"fruit"], b"3", None))
        self.assertEqual(maps.map(b"none"), {})
        # Its copy is old: it is asked again.
        asked = []

        def more(maps):
            value = maps.get(b"fruit", b"apple")
            asked.append(value)
            return [(b"fruit", b"apple", value + b"0")]

        theirs.put(more)
        mine.put(more)
        self.assertEqual(asked, [b"1", b"1", b"10"])
        self.assertEqual(mine.maps.get(b"fruit", b"apple"), b"100")
        self.assertEqual(mine.put(lambda maps: []).get(b"fruit", b"apple"), b"100")
        self.assertIsNone(theirs.remove(lambda maps: [(b"fruit", b"pear")]).get(b"fruit", b"pear"))
        self.assertEqual(len(mine.fetch()), 2)
        # What somebody's own code raises changes nothing.
        with self.assertRaises(ZeroDivisionError):
            mine.put(lambda maps: 1 / 0)
        with self.assertRaises(ValueError):
            mine.put(lambda maps: [(b"too", b"few")])
        with self.assertRaises(TypeError):
            mine.remove(lambda maps: [(b"fruit", "apple")])
        with self.assertRaisesRegex(RuntimeError, "a callback cannot wait"):
            mine.put(lambda maps: mine.maps)
        with self.assertRaises(headwater.InvalidError):
            mine.put(lambda maps: [(b"k" * 9000, b"", b"")])
        self.assertEqual(len(mine.fetch()), 2)

    def test_labelled_records_are_found_without_reading_all(self):
        stream = self.made()
        writer = self.client.index_writer(stream, 128)
        reader = self.client.index_reader(stream)
        self.assertEqual((writer.stream, reader.stream, reader.record_bytes), (stream, stream, 128))
        self.assertIsNone(reader.search("time", 0))
        made = [headwater.IndexRecord({"time": 10 * number, "big": (1 << 64) - 1}, b"%d" % number) for number in range(50)]
        self.assertEqual([writer.append(made[:20]), writer.append(made[20:])], [0, 20 * 128])
        self.assertEqual([reader.search("time", value) for value in (0, 1, 300, 491)], [0, 128, 30 * 128, None])
        self.assertEqual(reader.record(30 * 128), made[30])
        writer.truncate(10 * 128)
        self.assertEqual(reader.bounds(), (10 * 128, 50 * 128))
        self.assertEqual(list(reader.records()), [(number * 128, made[number]) for number in range(10, 50)])
        self.assertEqual(reader.records(49 * 128).read_many(), [(49 * 128, made[49])])
        for kind, wrong in (
            (headwater.InvalidError, lambda: writer.append([({"time": 1, "big": (1 << 64) - 1}, b"fell")])),
            (headwater.InvalidError, lambda: writer.append([({"time": 1 << 64, "big": 0}, b"")])),
            (headwater.InvalidError, lambda: writer.append([({"other": 1}, b"")])),
            (headwater.InvalidError, lambda: writer.append([])),
            (headwater.InvalidError, lambda: reader.search("other", 1)),
            (headwater.InvalidError, lambda: reader.record(10 * 128 + 1)),
            (headwater.InvalidError, lambda: reader.record(-1)),
            (headwater.TruncatedError, lambda: reader.record(0)),
            (headwater.TruncatedError, lambda: reader.records(0)),
            (headwater.InvalidError, lambda: self.client.index_writer(stream, 256)),
            (headwater.InvalidError, lambda: self.client.index_reader(self.made())),
        ):
            with self.assertRaises(kind):
                wrong()
        # Another writer has appended: one is told so, and follows.
        other = self.client.index_writer(stream, 128)
        other.append([made[49]])
        with self.assertRaises(headwater.ConflictError):
            writer.append([made[49]])
        self.assertEqual(writer.append([made[49]]), 51 * 128)

    def test_members_see_who_comes_leaves_and_stops(self):
        stream = self.made()
        one = self.client.join(stream, "one", every=0.05)
        self.assertEqual((one.name, one.members()), ("one", [headwater.Member("one", True)]))

        def until(*expected):
            deadline = time.monotonic() + 30
            while one.members() != list(expected):
                self.assertLess(time.monotonic(), deadline, one.members())
                try:
                    one.changed(timeout=1)
                except TimeoutError:
                    pass

        with self.client.join(stream, "two", every=0.05) as two:
            until(("one", True), ("two", True))
            self.assertIn(("two", True), two.members())
        until(("one", True))
        two = self.client.join(stream, "two", every=0.05)
        until(("one", True), ("two", True))
        del two
        until(("one", True), ("two", False))
        until(("one", True))
        with self.assertRaises(TimeoutError):
            # Changes that nobody has asked for come first.
            while True:
                one.changed(timeout=0.5)
        told = []

        def wait():
            try:
                one.changed(timeout=30)
            except headwater.ClosedError as error:
                told.append(error.code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        # Also while somebody waits.
        self.assertEqual(one.members(), [("one", True)])
        one.leave()
        waiting.join(10)
        self.assertEqual(told, ["closed"])
        one.leave()
        with self.assertRaises(headwater.ClosedError):
            one.members()
        with self.assertRaises(headwater.InvalidError):
            self.client.join(stream, "", every=1)
        with self.assertRaises(headwater.InvalidError):
            self.client.join(stream, "three", every=0)

    def test_a_store_says_which_groups_there_are_and_how_they_read(self):
        stream, group = self.made(2), fresh("group")
        scope, _, name = group.partition("/")
        cut = self.client.tail_cut(stream)
        made = headwater.ReaderGroupConfig(
            {stream: cut}, (cut,), automatic_checkpoint=None, refresh=0.05, checkpoints_max=2, retention="cut"
        )
        self.assertTrue(self.client.create_reader_group(group, made))
        self.assertIn(name, self.client.reader_groups(scope))
        members = self.client.reader_group(group)
        self.assertEqual(members.config(), made)
        self.assertEqual(self.client.subscribers(stream), [group])
        # What it says can be changed and given back.
        members.reset(dataclasses.replace(members.config(), refresh=1.0, automatic_checkpoint=2.0, ends=()))
        self.assertEqual((members.config().refresh, members.config().automatic_checkpoint), (1.0, 2.0))
        self.client.delete_reader_group(group)
        self.assertEqual(self.client.subscribers(stream), [])
        self.assertNotIn(name, self.client.reader_groups(scope))

    def test_what_follows_on_a_segment_is_told(self):
        stream = self.made(2)
        self.assertEqual(self.client.successors(stream, 0), [])
        self.client.scale_stream(stream, [0, 1], [(0.0, 0.3), (0.3, 1.0)])
        first, second = self.client.segments(stream)
        told = [[(one.segment, set(one.predecessors)) for one in self.client.successors(stream, before)] for before in (0, 1)]
        self.assertEqual(told, [[(first, {0}), (second, {0, 1})], [(second, {0, 1})]])

    def test_a_writer_that_left_is_told_of_once_it_has_noted_a_time(self):
        stream = self.made()
        writer, numbered = self.client.event_writer(stream), self.client.numbered_writer(stream, "importer")
        transactions = self.client.transaction_writer(stream, writer="batch")
        for one in (writer, numbered):
            self.assertFalse(one.note_end())
            one.note_time(1000)
            self.assertTrue(one.note_end())
        self.assertFalse(transactions.note_end())
        self.assertFalse(self.client.remove_writer(stream, "batch"))
        transaction = transactions.begin()
        transaction.write(b"x", "k")
        transaction.commit(time=1000)
        self.assertTrue(transactions.note_end())
        self.assertTrue(self.client.remove_writer(stream, "batch"))

    def test_a_writer_need_not_wait(self):
        stream = self.made()
        writer = self.client.event_writer(stream, window_bytes=1 << 16)
        self.assertTrue(writer.try_write(b"x" * 50_000, "k"))
        while writer.try_write(b"x" * 50_000, "k"):
            pass
        writer.flush(timeout=30)
        self.assertTrue(writer.try_write(b"x"))
        writer.flush()

    def test_what_does_not_exist_is_not_found(self):
        for ask in (
            lambda: self.client.stream_config("tests/none"),
            lambda: self.client.event_writer("tests/none"),
            lambda: self.client.stream_reader("tests/none"),
            lambda: self.client.numbered_writer("tests/none", "importer"),
            lambda: self.client.reader_group("tests/none"),
            lambda: self.client.index_writer("tests/none"),
            lambda: self.client.index_reader("tests/none"),
            lambda: self.client.join("tests/none", "me"),
            lambda: self.client.key_value_table("tests/none"),
        ):
            with self.assertRaises(headwater.NotFoundError) as raised:
                ask()
            self.assertEqual(raised.exception.code, "not-found")
        with self.assertRaises(headwater.InvalidError):
            self.client.create_stream("no-scope")

    def test_threads_share_a_writer_and_wait_without_stopping_each_other(self):
        stream = self.made()
        writer = self.client.event_writer(stream)
        waiting = self.client.stream_reader(stream, "tail")
        found = []
        reader = threading.Thread(target=lambda: found.extend(waiting.next(timeout=30).data for _ in range(400)))
        reader.start()
        writers = [
            threading.Thread(target=lambda: [writer.write(b"x", "k") for _ in range(100)]) for _ in range(4)
        ]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        writer.flush()
        reader.join(30)
        self.assertEqual(len(found), 400)


class Counters:
    """A state for tests: numbers by name."""

    def encode(self, state):
        return repr(sorted(state.items())).encode()

    def decode(self, data):
        import ast

        return dict(ast.literal_eval(data.decode()))

    def encode_update(self, update):
        if update[0] == "unwritable":
            raise ValueError("mine")
        return repr(update).encode()

    def decode_update(self, data):
        import ast

        return ast.literal_eval(data.decode())

    def apply(self, state, update):
        name, by = update
        return {**state, name: state.get(name, 0) + by}


class AgainstMemory(Operations, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = headwater.memory()
        cls.client.create_scope("tests")

    @classmethod
    def tearDownClass(cls):
        cls.client.close()


class AgainstServer(Operations, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = headwater.connect(cls.server.address)
        cls.client.create_scope("tests")

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.stop()

    def test_a_writer_goes_on_when_the_server_was_killed_and_comes_back(self):
        stream = self.made()
        writer = self.client.event_writer(stream)
        writer.write_many([b"%d" % number for number in range(100)], "k")
        writer.flush(timeout=30)
        self.server.kill()
        writer.write_many([b"%d" % number for number in range(100, 200)], "k")
        with self.assertRaises(TimeoutError):
            writer.flush(timeout=0.2)
        self.server.restart()
        writer.flush()
        read = self.client.stream_reader(stream, until="tail").payloads()
        self.assertEqual([int(event) for event in read], list(range(200)))

    def test_what_fails_behind_a_flush_that_gave_up_is_told_by_the_next(self):
        stream = self.made()
        client = headwater.connect(self.server.address, retry_for=2)
        writer = client.event_writer(stream)
        writer.write(b"one", "k")
        writer.flush(timeout=30)
        self.server.kill()
        writer.write(b"two", "k")
        with self.assertRaises(TimeoutError):
            writer.flush(timeout=0.2)
        time.sleep(4)
        with self.assertRaises(headwater.Error):
            writer.flush()
        self.server.restart()

    def test_a_process_that_is_killed_and_started_again_neither_loses_nor_doubles_events(self):
        code = (
            "import headwater, os, signal, sys\n"
            "address, stream, dies_at = sys.argv[1:]\n"
            "writer = headwater.connect(address).numbered_writer(stream, 'importer', batch_bytes=1 << 10)\n"
            "for number in range(writer.resume_after + 1, 6001):\n"
            "    if number == int(dies_at):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    writer.write(number, b'%d' % number, str(number % 13))\n"
            "writer.flush()\n"
        )
        stream = self.made(2)
        for dies_at, ended in ((2000, -9), (4000, -9), (0, 0)):
            said = child(code, self.server.address, stream, str(dies_at))
            self.assertEqual((said.returncode, said.stderr), (ended, ""))
        found = {}
        for event in self.client.stream_reader(stream, until="tail").payloads():
            found.setdefault(int(event) % 13, []).append(int(event))
        self.assertEqual(found, {of: [n for n in range(1, 6001) if n % 13 == of] for of in range(13)})

    def test_a_reader_whose_process_is_killed_is_found_out_by_the_others(self):
        stream = self.written(20)
        members = self.members(stream)
        code = (
            "import headwater, os, signal, sys\n"
            "group = headwater.connect(sys.argv[1]).reader_group(sys.argv[2])\n"
            "reader = group.acknowledging_reader('mortal', dead_after=1)\n"
            "reader.next(timeout=30)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = child(code, self.server.address, f"{members.scope}/{members.name}")
        self.assertEqual((ended.returncode, ended.stderr), (-9, ""))
        self.assertEqual(members.online_readers(), {"mortal"})
        with members.reader("heir", at_once=True, dead_after=1) as heir:
            # It had acknowledged nothing.
            self.assertEqual([int(heir.next(timeout=30).data) for _ in range(20)], list(range(20)))
        self.assertEqual(members.online_readers(), set())
