"""What asyncio adds: awaiting, cancelling, iterating, many tasks at once."""

import asyncio
import unittest

import headwater
import headwater.aio
from support import fresh, mark


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = await headwater.aio.memory()
        await self.client.create_scope("tests")

    async def asyncTearDown(self):
        await self.client.close()

    async def made(self, segments=1):
        stream = fresh()
        await self.client.create_stream(stream, segments)
        return stream

    async def test_events_are_written_and_read_by_async_for(self):
        stream = await self.made()
        async with await self.client.event_writer(stream) as writer:
            await writer.write(b"0", "k")
            self.assertEqual(await writer.write_many([b"%d" % number for number in range(1, 3000)], "k"), 2999)
            self.assertEqual((await writer.store(b"3000", "k")).segment, 0)
        read = [int(event.data) async for event in await self.client.stream_reader(stream, until="tail")]
        self.assertEqual(read, list(range(3001)))

    async def test_a_window_that_is_full_is_awaited(self):
        stream = await self.made()
        async with await self.client.event_writer(stream, window_bytes=1 << 16) as writer:
            await asyncio.gather(*(writer.write(bytes(1000), "k") for _ in range(1000)))
        reader = (await self.client.stream_reader(stream, until="tail")).payloads()
        self.assertEqual(len([event async for event in reader]), 1000)

    async def test_a_cancelled_wait_loses_no_event(self):
        stream = await self.made()
        writer = await self.client.event_writer(stream)
        reader = await self.client.stream_reader(stream)
        found = []
        for number in range(50):
            task = asyncio.create_task(reader.next())
            await asyncio.sleep(0.001)
            await writer.write(b"%d" % number, "k")
            if number % 2:
                await asyncio.sleep(0.002)
            if task.cancel():
                try:
                    found.append((await task).data)
                except asyncio.CancelledError:
                    pass
            else:
                found.append(task.result().data)
        await writer.flush()
        while len(found) < 50:
            found.append((await asyncio.wait_for(reader.next(), 10)).data)
        self.assertEqual(found, [b"%d" % number for number in range(50)])

    async def test_many_operations_are_under_way_at_once_and_fail_each_for_itself(self):
        names = [fresh() for _ in range(60)]
        made = await asyncio.gather(*(self.client.create_stream(name) for name in names))
        self.assertEqual(made, [True] * 60)
        asked = [*names[:3], "tests/none"]
        outcomes = await asyncio.gather(*map(self.client.stream_config, asked), return_exceptions=True)
        self.assertEqual([type(one).__name__ for one in outcomes], ["StreamConfig"] * 3 + ["NotFoundError"])

    async def test_the_loop_goes_on_while_something_is_awaited(self):
        reader = await self.client.stream_reader(await self.made())
        waiting = asyncio.create_task(reader.next())
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.005)
            ticks += 1
        self.assertEqual((ticks, waiting.done()), (20, False))
        waiting.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waiting

    async def test_where_a_reader_is_can_be_asked_while_it_waits(self):
        stream, group = await self.made(), fresh("group")
        await self.client.create_reader_group(group, stream)
        async with await (await self.client.reader_group(group)).reader("r") as member:
            alone = await self.client.stream_reader(stream)
            waiting = [asyncio.ensure_future(reader.next()) for reader in (alone, alone, member)]
            await asyncio.sleep(0.1)
            begun = asyncio.get_running_loop().time()
            for _ in range(20):
                self.assertEqual(alone.cut().offsets, {0: 0})
                member.position()
            self.assertLess(asyncio.get_running_loop().time() - begun, 5)
            self.assertEqual([it.done() for it in waiting], [False] * 3)
            async with await self.client.event_writer(stream) as writer:
                await writer.write_many([b"one", b"two"], "k")
            found = await asyncio.wait_for(asyncio.gather(*waiting), 10)
            self.assertEqual(sorted(it.data for it in found), [b"one", b"one", b"two"])
            self.assertEqual(alone.cut().offsets, {0: 22})

    async def test_transactions_commit_and_abort_with_their_block(self):
        stream = await self.made()
        transactions = self.client.transaction_writer(stream)
        async with transactions.transaction() as transaction:
            await transaction.write(b"kept", "k")
        with self.assertRaises(ZeroDivisionError):
            async with transactions.transaction() as transaction:
                await transaction.write(b"dropped", "k")
                1 / 0
        reader = (await self.client.stream_reader(stream, until="tail")).payloads()
        self.assertEqual([event async for event in reader], [b"kept"])

    async def test_groups_tables_bytes_and_states_are_awaited_alike(self):
        stream, group = await self.made(), fresh("group")
        async with await self.client.event_writer(stream) as writer:
            await writer.write_many([b"a", b"b"], "k")
        await self.client.create_reader_group(group, stream)
        async with await (await self.client.reader_group(group)).reader("r") as reader:
            self.assertEqual((await asyncio.wait_for(reader.next(), 10)).data, b"a")
            self.assertEqual((await reader.read_many())[0].data, b"b")
            async with await self.client.event_writer(stream) as writer:
                soon = asyncio.ensure_future(reader.read_batch())
                await asyncio.sleep(0.05)
                await writer.write(b"c", "k")
            self.assertEqual(list(await asyncio.wait_for(soon, 10)), [b"c"])
        table = await self.client.table(fresh("table"))
        version = await table.put(b"k", b"v")
        self.assertEqual(await table.get(b"k"), (b"v", version))
        self.assertEqual([entry.key async for entry in table.entries()], [b"k"])
        stream = await self.made()
        async with await self.client.byte_writer(stream) as bytes_writer:
            await bytes_writer.write(b"data")
        self.assertEqual(await (await self.client.byte_reader(stream)).read(), b"data")
        entries = await self.client.revisioned_stream(await self.made())
        await entries.write(b"entry")
        self.assertEqual([entry async for _, entry in await entries.read()], [b"entry"])

    async def test_what_a_group_and_a_table_are_is_awaited(self):
        stream, group = await self.made(), fresh("group")
        await self.client.create_reader_group(group, headwater.ReaderGroupConfig({stream: None}, retention="cut"))
        config = await (await self.client.reader_group(group)).config()
        self.assertEqual(config, headwater.ReaderGroupConfig({stream: None}, retention="cut"))
        self.assertEqual(await self.client.subscribers(stream), [group])
        writer = await self.client.event_writer(stream)
        self.assertTrue(writer.try_write(b"x", "k"))
        await writer.flush()
        self.assertFalse(await writer.note_end())
        table = fresh("table")
        await self.client.create_key_value_table(table, primary_key_bytes=1)
        opened = await self.client.key_value_table(table)
        await opened.put(b"k", b"v")
        self.assertEqual([one.key async for one in opened.keys()], [b"k"])

    async def test_a_part_of_a_stream_is_awaited(self):
        stream = await self.made()
        async with await self.client.event_writer(stream) as writer:
            await writer.write_many([b"one", b"two"], "k")
        head = await self.client.head_cut(stream)
        end = await self.client.next_cut(head, 1)
        (part,) = await self.client.slices(stream, start=head, end=end)
        self.assertIn(b"one", [event.data async for event in self.client.read_slice(part)])

    async def test_numbered_events_are_stored_once(self):
        stream = await self.made()
        events = [(number, b"%d" % number) for number in range(1, 3001)]
        async with await self.client.numbered_writer(stream, "importer", window_bytes=1 << 14) as writer:
            self.assertEqual(await writer.write_many(events[:2000], lambda event: event.decode()), 2000)
        again = await self.client.numbered_writer(stream, "importer")
        self.assertEqual((again.stream, again.resume_after, again.bytes_under_way), (stream, 2000, 0))
        self.assertTrue(again.is_stored(2000, "2000"))
        self.assertIsNone((await again.store(1999, b"1999", "1999")).offset)
        await again.write(2000, b"2000", "2000")
        await again.write_many(events[2000:2998], "k")
        await again.write_all(2999, [b"2999", b"3000"], "k")
        await again.flush()
        with self.assertRaises(headwater.InvalidError):
            await again.write(2999, b"x", "k")
        reader = (await self.client.stream_reader(stream, until="tail")).payloads()
        self.assertEqual([int(event) async for event in reader], list(range(1, 3001)))

    async def group_of(self, stream):
        group = fresh("group")
        config = headwater.ReaderGroupConfig({stream: None}, refresh=0.05, automatic_checkpoint=None)
        await self.client.create_reader_group(group, config)
        return await self.client.reader_group(group)

    async def test_tasks_acknowledge_events_in_any_order(self):
        stream = await self.made(2)
        async with await self.client.event_writer(stream) as writer:
            await writer.write_many([b"%d" % number for number in range(200)], lambda event: event.decode())
        await self.client.seal_stream(stream)
        group, found, tasks = await self.group_of(stream), [], set()

        async def handle(received):
            await asyncio.sleep(0.001 * (int(received.data) % 7))
            with received:
                found.append(int(received.data))

        async with await group.acknowledging_reader("r", unacknowledged_max=20) as reader:
            # It waits for acknowledgements, and ends with the last.
            async for received in reader:
                task = asyncio.ensure_future(handle(received))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                self.assertLessEqual(reader.unacknowledged, 20)
            self.assertEqual(reader.unacknowledged, 0)
        self.assertEqual(sorted(found), list(range(200)))
        self.assertEqual((await group.unread_bytes(), await group.online_readers()), (0, set()))

    async def test_a_cancelled_wait_for_what_is_acknowledged_loses_no_event(self):
        stream = await self.made()
        writer = await self.client.event_writer(stream)
        async with await (await self.group_of(stream)).acknowledging_reader("r", redeliver_after=60) as reader:
            found = []
            for number in range(30):
                task = asyncio.create_task(reader.next())
                await asyncio.sleep(0.001)
                await writer.write(b"%d" % number, "k")
                if number % 2:
                    await asyncio.sleep(0.002)
                task.cancel()
                try:
                    found.append(await task)
                except asyncio.CancelledError:
                    pass
            await writer.flush()
            while len(found) < 30:
                found.append(await asyncio.wait_for(reader.next(), 10))
            self.assertEqual([(int(it.data), it.attempt) for it in found], [(number, 1) for number in range(30)])
            self.assertEqual([it.acknowledge() for it in found], [True] * 30)

    async def test_a_reader_that_stopped_is_found_out(self):
        stream = await self.made()
        async with await self.client.event_writer(stream) as writer:
            await writer.write_many([b"a", b"b"], "k")
        group = await self.group_of(stream)
        mortal = await group.acknowledging_reader("mortal", dead_after=1)
        self.assertEqual((await asyncio.wait_for(mortal.next(), 10)).data, b"a")
        del mortal
        async with await group.reader("heir", at_once=True, dead_after=1) as heir:
            self.assertEqual((await asyncio.wait_for(heir.next(), 30)).data, b"a")
        mortal = await group.reader("mortal", dead_after=1)
        with group.watch(1):
            del mortal
            deadline = asyncio.get_running_loop().time() + 30
            while await group.online_readers():
                self.assertLess(asyncio.get_running_loop().time(), deadline)
                await asyncio.sleep(0.05)

    async def test_the_time_of_a_group_is_asked_while_its_reader_waits(self):
        stream = await self.made()
        scope, _, name = stream.partition("/")
        async with await (await self.group_of(stream)).reader("r", at_once=True) as reader:
            waiting = asyncio.ensure_future(reader.next())
            await asyncio.sleep(0.1)
            self.assertEqual(await asyncio.wait_for(reader.time_window(stream), 10), (None, None))
            marks = await self.client.revisioned_stream(f"{scope}/_MARK{name}")
            await marks.write(mark(100, 120, 27))
            window = await asyncio.wait_for(reader.time_window(stream), 10)
            self.assertEqual(window, headwater.TimeWindow(None, 120))
            self.assertFalse(waiting.done())
            async with await self.client.event_writer(stream) as writer:
                await writer.write(b"x", "k")
            self.assertEqual((await asyncio.wait_for(waiting, 10)).data, b"x")

    async def test_shared_values_records_and_members_are_awaited_alike(self):
        shared = await self.client.table_synchronizer(fresh("shared"))
        await shared.put(lambda maps: [(b"a", b"b", b"c")])
        self.assertEqual((await shared.fetch()).get(b"a", b"b"), b"c")
        self.assertEqual(len(await shared.remove(lambda maps: [(b"a", b"b")])), 0)
        self.assertEqual(shared.maps.outer_keys(), [])
        with self.assertRaises(ZeroDivisionError):
            await shared.put(lambda maps: 1 / 0)
        stream = await self.made()
        writer = await self.client.index_writer(stream, 128)
        records = [headwater.IndexRecord({"time": number}, b"%d" % number) for number in range(9)]
        self.assertEqual(await writer.append(records), 0)
        reader = await self.client.index_reader(stream)
        self.assertEqual((await reader.search("time", 4), await reader.bounds()), (4 * 128, (0, 9 * 128)))
        self.assertEqual(await reader.record(4 * 128), records[4])
        await writer.truncate(128)
        self.assertEqual([record async for _, record in await reader.records()], records[1:])
        stream = await self.made()
        async with await self.client.join(stream, "one", every=0.02) as one:
            changing = asyncio.ensure_future(one.changed())
            await asyncio.sleep(0.1)
            self.assertEqual(one.members(), [("one", True)])
            two = await self.client.join(stream, "two", every=0.02)
            members = await asyncio.wait_for(changing, 10)
            while len(members) < 2:
                members = await asyncio.wait_for(one.changed(), 10)
            self.assertEqual(members, [headwater.Member("one", True), headwater.Member("two", True)])
            await two.leave()

    async def test_code_that_raises_what_a_future_cannot_take_fails_and_stops_nobody_else(self):
        class Odd:
            def encode(self, state):
                return next(iter(()))

        state = await self.client.state_synchronizer(await self.made(), Odd())
        odd, other = state.initialize(1), self.client.scopes()
        odd, other = await asyncio.wait_for(asyncio.gather(odd, other, return_exceptions=True), 10)
        self.assertIsInstance(odd, (TypeError, RuntimeError))
        self.assertIn("tests", other)
