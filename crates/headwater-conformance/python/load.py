"""Writes and reads as fast as a Python client can: the part of both Python clients in `headwater bench clients`.

    python load.py genuine|headwater load --controller HOST:PORT --scope S --stream S --size N --seconds N
        --in-flight N --rate N --read-mib N

Prints one line of JSON with the figures that every client's program prints. What a client does not tell is 0: the
published client has no acknowledgement of single events but where it is awaited.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time

import drivers

READINGS = 5
# Events handed over between two looks at the clock.
STEP = 256
BATCH = 1000


class Genuine:
    """The published client, by the fastest of its ways."""

    def __init__(self, arguments):
        import pravega_client

        self._client = pravega_client.StreamManager("tcp://" + arguments.controller, False, False)
        self._client.create_scope(arguments.scope)
        self._arguments = arguments

    def create(self, stream):
        self._client.create_stream(self._arguments.scope, stream, 1)
        self._writer = self._client.create_writer(self._arguments.scope, stream, self._arguments.in_flight)

    def write(self, event, count):
        write = self._writer.write_event_bytes
        for _ in range(count):
            write(event, "key")

    def flush(self):
        self._writer.flush()

    async def paced(self):
        async def store(event):
            # It takes text only.
            await self._writer.write_event_async(event.decode(), "key")

        return store

    async def read(self, group, stream, count):
        group = self._client.create_reader_group(group, self._arguments.scope, stream)
        reader = group.create_reader("reader")
        read, since = 0, None
        while read < count:
            slice = await reader.get_segment_slice_async()
            if slice is None:
                continue
            since = since or time.perf_counter()
            for event in slice:
                read += len(event.data()) == self._arguments.size
            if read < count:
                await drivers.breathe()
                reader.release_segment(slice)
        rate = read / (time.perf_counter() - since)
        await drivers.breathe()
        reader.release_segment(slice)
        await drivers.leave(reader)
        return rate


class Headwater:
    """Our own."""

    def __init__(self, arguments):
        import headwater

        self._address, self._arguments = "tcp://" + arguments.controller, arguments
        self._client = headwater.connect(self._address)
        self._client.create_scope(arguments.scope)

    def create(self, stream):
        self._stream = f"{self._arguments.scope}/{stream}"
        if not self._client.create_stream(self._stream, 1):
            sys.exit(f"{self._stream} exists")
        window = self._arguments.in_flight * self._arguments.size
        self._writer = self._client.event_writer(self._stream, window_bytes=max(window, 1 << 20))

    def write(self, event, count):
        write = self._writer.write
        for _ in range(count):
            write(event, "key")

    def flush(self):
        self._writer.flush()

    async def paced(self):
        import headwater.aio

        writer = await headwater.aio.connect(self._address).event_writer(self._stream)

        async def store(event):
            await writer.store(event, "key")

        return store

    async def read(self, group, stream, count):
        name = f"{self._arguments.scope}/{group}"
        self._client.create_reader_group(name, f"{self._arguments.scope}/{stream}")
        read, since = 0, None
        with self._client.reader_group(name).reader("reader", at_once=True) as reader:
            while read < count:
                batch = reader.read_batch(BATCH)
                since = since or time.perf_counter()
                for event in batch:
                    read += len(event) == self._arguments.size
            return read / (time.perf_counter() - since)


async def at_a_rate(client, arguments, event):
    """How many events were written, each when it was due, and how long each took from then on."""
    store, taken, under_way = await client.paced(), [], set()

    async def one(due):
        await store(event)
        taken.append(time.perf_counter() - due)

    count, started = int(arguments.rate * arguments.seconds), time.perf_counter()
    for number in range(count):
        due = started + number / arguments.rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        if any(task.done() and task.exception() for task in under_way):
            # Gather tells how.
            break
        task = asyncio.ensure_future(one(due))
        under_way.add(task)
        task.add_done_callback(lambda task: task.cancelled() or task.exception() or under_way.discard(task))
    await asyncio.gather(*under_way)
    return count, sorted(taken)


def as_fast_as_it_can(client, seconds, event):
    """How many events were written, and per second until the last was stored."""
    client.write(event, STEP)
    client.flush()
    written, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        client.write(event, STEP)
        written += STEP
    client.flush()
    return written + STEP, written / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["genuine", "headwater"])
    parser.add_argument("command", choices=["load"])
    for name in ["controller", "scope", "stream"]:
        parser.add_argument("--" + name, required=True)
    for name in ["size", "in-flight", "rate", "read-mib"]:
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    client = {"genuine": Genuine, "headwater": Headwater}[arguments.client](arguments)
    # Random, so that nothing compresses it much, and text for those who want that.
    event = os.urandom(arguments.size).hex().encode()[: arguments.size]
    client.create(arguments.stream)
    paced, taken = asyncio.run(at_a_rate(client, arguments, event))
    written, rate = as_fast_as_it_can(client, arguments.seconds, event)
    client.create(arguments.stream + "-read")
    count = -(-(arguments.read_mib << 20) // arguments.size)
    client.write(event, count)
    client.flush()
    readings = []
    for number in range(READINGS):
        readings.append(asyncio.run(client.read(f"{arguments.stream}-read-{number}", arguments.stream + "-read", count)))
    figures = {
        "written": written + paced,
        "write_events_per_second": rate,
        "write_p50_us": 0.0,
        "write_p99_us": 0.0,
        "rate_p50_us": taken[len(taken) // 2] * 1e6,
        "rate_p99_us": taken[len(taken) * 99 // 100] * 1e6,
        "read": count,
        "read_events_per_second": statistics.median(readings),
        "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
