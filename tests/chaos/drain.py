"""No accepted request is lost: SIGTERM under load, at random moments, in many rounds.

A request counts as accepted if the server logs a status other than 503 for it. Each such status must be 200, and the
client must have received the complete, correct response.
"""

import asyncio
import random
import signal
import time

from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Reply, Wire, open_connection

ROUNDS, CLIENTS, AT_ONCE = 50, 8, 2
SOME = texts(200)
LARGE = texts(2000, longest=3, seed=1)
SIZES = (1, 1, 1, 8, 64)


class Round:
    """One server, its clients, and the signal.

    Attributes:
        sent: inputs by request id.
        replies: replies by request id.
        ended: exit status of the server.
        seconds: time from the signal to the exit.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.sent: dict[str, list[str]] = {}
        self.replies: dict[str, Reply] = {}
        self.ended: int | None = None
        self.seconds = 0.0

    async def run(self, server: ChaosServer, references: ReferenceVectors) -> None:
        await asyncio.to_thread(server.wait_ready)
        wire = Wire(server.port)
        if not references.vectors:
            references.vectors |= (await ReferenceVectors.compute(wire, SOME)).vectors
        clients = [asyncio.create_task(self._client(wire, fresh=number % 2 == 0)) for number in range(CLIENTS)]
        slow = asyncio.create_task(self._slow_reader(server.port))
        await asyncio.sleep(self._chance.uniform(0.5, 2))
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        self.ended = await asyncio.to_thread(server.process.wait, 60)
        self.seconds = time.monotonic() - signalled
        await asyncio.gather(*clients, slow)
        await wire.close()

    async def _client(self, wire: Wire, fresh: bool) -> None:
        """Sends requests without pause until the server refuses connections."""
        refused = 0
        while refused < 3:
            name = f"{len(self.sent)}"
            self.sent[name] = inputs = self._chance.sample(SOME, self._chance.choice(SIZES))
            self.replies[name] = reply = await wire.send(ask(inputs, name), fresh=fresh)
            refused = refused + 1 if reply.status <= 0 else 0
            if reply.status == 503:
                await asyncio.sleep(0.05)

    async def _slow_reader(self, port: int) -> None:
        """Reads its large response slowly, past the signal."""
        reader, writer = await open_connection(port)
        name = "slow"
        self.sent[name] = LARGE
        writer.write(ask(LARGE, name))
        started, body = time.monotonic(), b""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            while len(body) < length:
                body += await reader.readexactly(min(100_000, length - len(body)))
                await asyncio.sleep(0.05)
            status = int(head.split()[1])
        except (OSError, asyncio.IncompleteReadError):
            status = -1 if body else 0
        writer.close()
        done = time.monotonic()
        self.replies[name] = Reply(status, done - started, done, {}, body)

    def judge(self, references: ReferenceVectors, statuses: dict[str, int]) -> tuple[int, int]:
        """Returns the numbers of (accepted, lost) requests."""
        accepted = {name for name, status in statuses.items() if name in self.sent and status != 503}
        good = {
            name
            for name in accepted
            if (statuses[name], self.replies[name].status) == (200, 200)
            and (
                len(self.replies[name].content["embeddings"]) == len(LARGE)
                if name == "slow"
                else references.match(self.sent[name], self.replies[name])
            )
        }
        interrupted = {name for name, reply in self.replies.items() if reply.status == -1}
        return len(accepted), len((accepted - good) | interrupted)


async def run(share: float) -> list[Figure]:
    rounds = [Round(seed) for seed in range(max(1, int(ROUNDS * share)))]
    references = ReferenceVectors(0.9999)
    accepted = lost = 0
    for start in range(0, len(rounds), AT_ONCE):
        some = rounds[start : start + AT_ONCE]
        servers = [ChaosServer() for _ in some]
        try:
            for server in servers:
                server.__enter__()
            # The rounds run one after another, each under its own load, while the next server starts.
            for round_, server in zip(some, servers, strict=True):
                await round_.run(server, references)
                counts = round_.judge(references, await asyncio.to_thread(server.statuses))
                accepted, lost = accepted + counts[0], lost + counts[1]
        finally:
            for server in servers:
                server.__exit__(None, None, None)
    rejected = sum(reply.status == 503 for round_ in rounds for reply in round_.replies.values())
    endings = [round_.ended for round_ in rounds]
    slowest = max(round_.seconds for round_ in rounds)
    return [
        Figure("rounds of SIGTERM under load", f"{len(rounds)}"),
        Figure("accepted requests", f"{accepted:,}", f"> {10 * len(rounds):,}", accepted > 10 * len(rounds)),
        Figure("accepted requests without a complete, correct response", f"{lost}", "0", lost == 0),
        Figure("requests rejected with 503 while draining", f"{rejected:,}"),
        Figure("exit status", ", ".join(map(str, sorted(set(map(str, endings))))), "0", set(endings) == {0}),
        Figure("longest time from signal to exit", f"{slowest:.1f} s", "within `drain_timeout`, 30 s", slowest < 31),
    ]
