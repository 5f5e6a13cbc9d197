"""What asyncio adds: awaiting, cancelling, iterating, many tasks at once."""

import asyncio
import unittest

import headwater
import headwater.aio
from support import fresh


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

    async def test_code_that_raises_what_a_future_cannot_take_fails_and_stops_nobody_else(self):
        class Odd:
            def encode(self, state):
                return next(iter(()))

        state = await self.client.state_synchronizer(await self.made(), Odd())
        odd, other = state.initialize(1), self.client.scopes()
        odd, other = await asyncio.wait_for(asyncio.gather(odd, other, return_exceptions=True), 10)
        self.assertIsInstance(odd, (TypeError, RuntimeError))
        self.assertIn("tests", other)
