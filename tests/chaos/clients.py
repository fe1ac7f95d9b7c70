"""Badly behaved clients: they disconnect at any moment, read or write slowly, or send nothing."""

import asyncio
import random
import socket
import struct

from tests.chaos.figures import Figure
from tests.chaos.load import open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Reply, Wire, open_connection
from tests.serving import wait_for

LEAVERS, AT_ONCE = 5000, 50
SLOW = 50
ABANDONED = 20
DEADLINE, IDLE = 5.0, 3.0
FLAGS = ("--request-timeout", f"{DEADLINE:g}", "--idle-timeout", f"{IDLE:g}")
SOME = texts(100, longest=10)
LARGE = ask(texts(1000, longest=2, seed=1))
RESET = struct.pack("ii", 1, 0)


async def run(share: float) -> list[Figure]:
    leavers, slow = max(300, int(LEAVERS * share)), max(10, int(SLOW * share))
    with ChaosServer(*FLAGS) as server:
        server.wait_ready()
        wire = Wire(server.port)
        references = await ReferenceVectors.compute(wire, SOME)
        if share == 1:  # warm up, so that caches and pools are full when memory is first measured
            await _misbehave(server.port, leavers // 10, slow)
        await _settle(server)
        memory, descriptors = server.memory, server.descriptors

        done = asyncio.Event()
        other = asyncio.create_task(_send_steadily(wire, done))
        await _misbehave(server.port, leavers, slow)
        done.set()
        replies = await other
        await _settle(server)
        growth = server.memory / memory - 1
        more = server.descriptors - descriptors
        held = server.metric("l2v_requests_in_flight") - 1  # without the scrape itself
        queued = server.metric("l2v_queue_tokens")
        computed, sent = await _abandon(server)
        correct = all([references.match([text], await wire.send(ask([text]))) for text in SOME])
        await wire.close()
    good = sum(reply.status == 200 for reply in replies)
    return [
        Figure("clients that disconnected at random moments", f"{leavers:,}"),
        Figure("slow readers, slow writers, half-open connections", f"{slow} each"),
        Figure(
            "concurrent requests that succeeded",
            f"{good} of {len(replies)}, p99 {percentile([reply.seconds for reply in replies], 0.99):.2f} s",
            "all",
            good == len(replies) > 0,
        ),
        Figure("additional file descriptors afterwards", f"{more}", "≤ 2", more <= 2),
        Figure("requests in flight, tokens in the queue", f"{held:.0f}, {queued:.0f}", "0, 0", held == queued == 0),
        Figure("growth of resident memory", f"{100 * growth:+.1f} %", "≤ +5 %", growth <= 0.05, timing=share < 1),
        Figure(
            f"inputs computed of {ABANDONED} abandoned bulk requests",
            f"{computed:,.0f} of {sent:,}",
            "≤ 10 %",
            computed <= 0.1 * sent,
        ),
        Figure("vectors correct afterwards", "yes" if correct else "no", "yes", correct),
    ]


async def _misbehave(port: int, leavers: int, slow: int) -> None:
    odd = [
        *(_slow_reader(port) for _ in range(slow)),
        *(_slow_writer(port) for _ in range(slow)),
        *(_half_open(port, number) for number in range(slow)),
    ]
    await asyncio.gather(_leave(port, leavers), *odd)


async def _send_steadily(wire: Wire, done: asyncio.Event) -> list[Reply]:
    """A well-behaved client, whose requests must succeed."""
    replies: list[Reply] = []
    while not done.is_set():
        replies += await open_loop(wire, 5, 1, lambda: ask(SOME[:1]))
    return replies


async def _leave(port: int, leavers: int) -> None:
    """Clients that disconnect during a request, half of them with a reset."""
    chance, left = random.Random(0), iter(range(leavers))

    async def client() -> None:
        for number in left:
            request = ask(chance.sample(SOME, chance.choice((1, 4, 16))))
            try:
                _, writer = await open_connection(port)
                writer.write(request[: chance.randint(1, len(request))] if number % 3 == 0 else request)
                await asyncio.sleep(chance.choice((0, 0.002, 0.02, 0.1)) * chance.random())
                if number % 2:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort() if number % 2 else writer.close()
            except OSError:
                pass

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


async def _slow_reader(port: int) -> None:
    """Requests a large response and never reads it."""
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.setblocking(False)
        await asyncio.get_running_loop().sock_connect(idle, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(idle, LARGE)
        await asyncio.sleep(2 * DEADLINE)


async def _slow_writer(port: int) -> None:
    """Sends its body byte by byte, for longer than `request_timeout`."""
    await _trickle(
        port,
        b"POST /embed HTTP/1.1\r\nHost: l2v\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n",
        DEADLINE,
    )


async def _half_open(port: int, number: int) -> None:
    """Sends nothing, or a header that never ends."""
    await _trickle(port, b"POST /embed HTTP/1.1\r\nX-Slow: " if number % 2 else b"", IDLE, silent=number % 2 == 0)


async def _trickle(port: int, opening: bytes, limit: float, *, silent: bool = False) -> None:
    reader, writer = await open_connection(port)
    writer.write(opening)
    end = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(limit + 20):
            while not end.done():
                if not silent:
                    writer.write(b"a")
                await asyncio.sleep(0.2)
    except (OSError, TimeoutError):
        pass
    end.cancel()
    writer.close()


async def _settle(server: ChaosServer) -> None:
    """Waits until the server has released the resources of those clients."""
    await asyncio.to_thread(wait_for, lambda: server.metric("l2v_requests_in_flight") == 1, 60, "requests to end")
    await asyncio.sleep(IDLE + 1)


async def _abandon(server: ChaosServer) -> tuple[float, int]:
    """Abandons bulk requests as soon as they are queued. Returns (inputs computed, inputs sent)."""
    server.fail(slow=0.2)
    before = server.metric("l2v_batch_inputs_sum")
    writers = []
    for _ in range(ABANDONED):
        _, writer = await open_connection(server.port)
        writer.write(LARGE)
        writers.append(writer)
    await asyncio.to_thread(wait_for, lambda: server.metric("l2v_queue_inputs") > 0, 60, "inputs to wait")
    for writer in writers:
        writer.transport.abort()
    await asyncio.to_thread(wait_for, lambda: server.metric("l2v_queue_inputs") == 0, 60, "inputs to be dropped")
    await asyncio.to_thread(wait_for, lambda: server.metric("l2v_requests_in_flight") == 1, 60, "requests to end")
    server.fail()
    return server.metric("l2v_batch_inputs_sum") - before, ABANDONED * 1000
