"""What type checkers have to know. Nobody runs it: `test_typing.py` has it checked."""

import asyncio
from typing import List, Optional, Tuple, Union

import headwater
import headwater.aio
from typing_extensions import assert_type


class Total:
    """Of a state that is shared: sums."""

    def encode(self, state: int) -> bytes:
        return str(state).encode()

    def decode(self, data: bytes) -> int:
        return int(data)

    def encode_update(self, update: float) -> bytes:
        return str(update).encode()

    def decode_update(self, data: bytes) -> float:
        return float(data)

    def apply(self, state: int, update: float) -> int:
        return state + int(update)


def with_tokens() -> None:
    issuer = headwater.OidcIssuer(
        "https://id.example", "cli", on_sign_in=lambda sign_in: print(assert_type(sign_in.code, str))
    )
    assert_type(headwater.connect("tls://store.example", oidc=issuer), headwater.Client)
    assert_type(headwater.aio.connect("tls://store.example", oidc=issuer), headwater.aio.Client)


def blocking() -> None:
    with headwater.memory() as client:
        assert_type(client, headwater.Client)
        assert_type(client.create_stream("a/b", headwater.StreamConfig(headwater.Fixed(2))), bool)
        with client.event_writer("a/b") as writer:
            writer.write(b"", "key")
            assert_type(writer.submit(bytearray(b"")).result(1.0), headwater.Written)
        reader = client.stream_reader("a/b", until="tail")
        for event in reader:
            assert_type(event, headwater.Event)
        assert_type(reader.payloads().read_many(), List[bytes])
        group = client.reader_group("a/g")
        assert_type(next(group.reader("r")), headwater.Event)
        assert_type(next(group.reader("r", checkpoints=True)), Union[headwater.Event, headwater.CheckpointReached])
        assert_type(group.reader("r").read_batch(), Optional[headwater.EventBatch])
        with client.numbered_writer("a/b", "importer") as numbered:
            assert_type(numbered.resume_after, int)
            numbered.write(1, b"", "key")
            assert_type(numbered.write_many(enumerate([b""], 2), lambda event: "key"), int)
            assert_type(numbered.submit(3, b"", "key").result().offset, Optional[int])
        for received in group.acknowledging_reader("r", dead_after=10.0):
            assert_type(received, headwater.Received)
            with received:
                assert_type(received.attempt, int)
        assert_type(group.reader("r", dead_after=10.0).time_window("a/b").lower, Optional[int])
        shared = client.table_synchronizer("a/u")
        assert_type(shared.put(lambda maps: [(b"", b"", maps.get(b"", b"") or b"")]), headwater.SharedMaps)
        for _, record in client.index_reader("a/i").records():
            assert_type(record.data, bytes)
        with client.join("a/m", "me") as membership:
            assert_type(membership.changed(1.0), List[headwater.Member])
        table = client.table("a/t")
        assert_type(table.get(b"k"), Optional[Tuple[bytes, headwater.Version]])
        for entry in table.entries():
            assert_type(entry.value, bytes)
        end = assert_type(client.next_cut(client.head_cut("a/b"), 1 << 30), headwater.StreamCut)
        assert_type(client.slices("a/b", end=end), List[headwater.Slice])
        assert_type(group.config(), headwater.ReaderGroupConfig)
        assert_type(client.successors("a/b", 0)[0].segment, headwater.SegmentRange)
        assert_type(writer.try_write(b""), bool)
        for key in client.key_value_table("a/k").keys():
            assert_type(key, headwater.EntryKey)
        state = client.state_synchronizer("a/s", Total())
        assert_type(state.update(lambda sum: [sum / 2]), int)
        # These are mistakes, and a checker that knows of none says that they are not.
        writer.write("text")  # type: ignore[arg-type]
        numbered.write(b"", "key", 4)  # type: ignore[arg-type]
        shared.remove(lambda maps: [b""])  # type: ignore[list-item]
        client.create_stream("a/b", "two")  # type: ignore[arg-type]
        event.data = b""  # type: ignore[misc]


async def awaited() -> None:
    async with await headwater.aio.memory() as client:
        assert_type(await client.scopes(), List[str])
        async with await client.event_writer("a/b") as writer:
            assert_type(await writer.store(b""), headwater.Written)
        async with client.transaction_writer("a/b").transaction() as transaction:
            await transaction.write(b"", "key")
        async for event in await client.stream_reader("a/b"):
            assert_type(event, headwater.Event)
        async with await client.numbered_writer("a/b", "importer") as numbered:
            await numbered.write(1, b"", "key")
        group = await client.reader_group("a/g")
        async for received in await group.acknowledging_reader("r"):
            assert_type(received.acknowledge(), bool)
        assert_type(await (await group.reader("r")).time_window("a/b"), headwater.TimeWindow)
        with group.watch(10.0) as watch:
            assert_type(watch, headwater.GroupWatch)
        assert_type(await (await client.index_reader("a/i")).record(0), headwater.IndexRecord)
        assert_type(await (await client.join("a/m", "me")).changed(), List[headwater.Member])
        async for entry in (await client.table("a/t")).entries():
            assert_type(entry, headwater.Entry)
        writer.flush()  # type: ignore[unused-coroutine]


asyncio.run(awaited())
