"""Same text, same vector: alone, in a batch, under load, after a restart, in each dtype."""

import asyncio
import random

from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import Known, ask, texts
from tests.chaos.wire import Wire
from tests.dtypes import AUTO, LEAST

TEXTS, BATCH, CLIENTS = 1000, 64, 16


async def run(share: float) -> list[Figure]:
    some = texts(max(BATCH, int(TEXTS * share)))
    # tests/app/test_service.py and tests/models have the others, but for the restart.
    dtypes = LEAST if share == 1 else [AUTO]
    return [figure for dtype in dtypes for figure in await _dtype(dtype, some)]


async def _dtype(dtype: str, some: list[str]) -> list[Figure]:
    batches = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
    repeat = ask(batches[0][:32])
    with ChaosServer("--dtype", dtype) as server:
        server.wait_ready()
        wire = Wire(server.port)
        known = await Known.learn(wire, some, dtype)
        cosines = {"in batches of 64": [known.least_cosine(batch, await wire.send(ask(batch))) for batch in batches]}
        cosines["under load"] = await _under_load(wire, known, some)
        bodies = {(await wire.send(repeat)).body for _ in range(5)}
        await wire.close()
    with ChaosServer("--dtype", dtype) as server:
        server.wait_ready()
        wire = Wire(server.port)
        cosines["alone after a restart"] = [known.least_cosine([text], await wire.send(ask([text]))) for text in some]
        bodies.add((await wire.send(repeat)).body)
        await wire.close()
    return [
        *(
            Figure(
                f"{dtype}, {len(some):,} texts {how} against alone: least cosine",
                _shown(min(values)),
                f"≥ {known.least}",
                min(values) >= known.least,
            )
            for how, values in cosines.items()
        ),
        Figure(
            f"{dtype}, the same batch six times, once after a restart: different answers",
            f"{len(bodies)}",
            "1, equal to the bit",
            len(bodies) == 1,
        ),
    ]


async def _under_load(wire: Wire, known: Known, some: list[str]) -> list[float]:
    """Each text once, in requests of random sizes of many clients at once."""
    chance, waiting, cosines = random.Random(0), some.copy(), []
    chance.shuffle(waiting)

    async def client() -> None:
        while waiting:
            inputs = [waiting.pop() for _ in range(min(len(waiting), chance.randint(1, 8)))]
            cosines.append(known.least_cosine(inputs, await wire.send(ask(inputs))))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return cosines


def _shown(cosine: float) -> str:
    return f"1 − {max(0.0, 1 - cosine):.0e}"
