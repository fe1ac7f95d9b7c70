"""Clients come and go: they leave at any moment, read or write slowly, or stand there and say nothing."""

import asyncio
import random
import socket
import struct

from tests.chaos.figures import Figure
from tests.chaos.load import open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import Known, ask, texts
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
        known = await Known.learn(wire, SOME)
        if share == 1:  # the same once before, so that the memory compared is a process's that has seen all of it
            await _misbehave(server.port, leavers // 10, slow)
        await _settle(server)
        memory, descriptors = server.memory, server.descriptors

        done = asyncio.Event()
        beside = asyncio.create_task(_beside(wire, done))
        await _misbehave(server.port, leavers, slow)
        done.set()
        replies = await beside
        await _settle(server)
        growth = server.memory / memory - 1
        more = server.descriptors - descriptors
        held = server.metric("l2v_requests_in_flight") - 1  # the scrape itself
        queued = server.metric("l2v_queue_tokens")
        computed, asked = await _abandon(server)
        right = all([known.right([text], await wire.send(ask([text]))) for text in SOME])
        await wire.close()
    good = sum(reply.status == 200 for reply in replies)
    return [
        Figure("clients that left at random moments", f"{leavers:,}"),
        Figure("slow readers, slow writers, half-open connections", f"{slow} each"),
        Figure(
            "requests of others meanwhile, answered",
            f"{good} of {len(replies)}, p99 {percentile([reply.seconds for reply in replies], 0.99):.2f} s",
            "all",
            good == len(replies) > 0,
        ),
        Figure("descriptors more than before", f"{more}", "≤ 2", more <= 2),
        Figure("requests in the house, tokens in the queue", f"{held:.0f}, {queued:.0f}", "0, 0", held == queued == 0),
        Figure("resident memory against before", f"{100 * growth:+.1f} %", "≤ +5 %", growth <= 0.05, timing=share < 1),
        Figure(
            f"inputs computed of {ABANDONED} bulk requests abandoned at once",
            f"{computed:,.0f} of {asked:,}",
            "≤ 10 %",
            computed <= 0.1 * asked,
        ),
        Figure("vectors right afterwards", "yes" if right else "no", "yes", right),
    ]


async def _misbehave(port: int, leavers: int, slow: int) -> None:
    odd = [
        *(_slow_reader(port) for _ in range(slow)),
        *(_slow_writer(port) for _ in range(slow)),
        *(_half_open(port, number) for number in range(slow)),
    ]
    await asyncio.gather(_leave(port, leavers), *odd)


async def _beside(wire: Wire, done: asyncio.Event) -> list[Reply]:
    """A well-behaved client, whose requests go on being answered."""
    replies: list[Reply] = []
    while not done.is_set():
        replies += await open_loop(wire, 5, 1, lambda: ask(SOME[:1]))
    return replies


async def _leave(port: int, leavers: int) -> None:
    """Clients that close their connection somewhere within a request, half of them with a reset."""
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
    """Asks for a large answer and takes none of it."""
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        taker.setblocking(False)
        await asyncio.get_running_loop().sock_connect(taker, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(taker, LARGE)
        await asyncio.sleep(2 * DEADLINE)


async def _slow_writer(port: int) -> None:
    """Sends a byte of its body now and then, for longer than a request may take."""
    await _trickle(
        port,
        b"POST /embed HTTP/1.1\r\nHost: l2v\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n",
        DEADLINE,
    )


async def _half_open(port: int, number: int) -> None:
    """Says nothing at all, or a head that does not end."""
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
    """Waits until the server has let go of what those clients held."""
    await asyncio.to_thread(wait_for, lambda: server.metric("l2v_requests_in_flight") == 1, 60, "requests to end")
    await asyncio.sleep(IDLE + 1)


async def _abandon(server: ChaosServer) -> tuple[float, int]:
    """(inputs computed, inputs asked for) of bulk requests that are left as soon as they wait in the queue."""
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
