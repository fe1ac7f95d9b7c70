"""The same text has the same vector: alone, in a batch, under load and after a restart, in each dtype."""

import asyncio
import random

from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Wire
from tests.dtypes import AUTO, MIN_COSINE

TEXTS, BATCH, CLIENTS = 1000, 64, 16


async def run(share: float) -> list[Figure]:
    some = texts(max(BATCH, int(TEXTS * share)))
    # tests/app/test_service.py and tests/models test the other dtypes, except after a restart.
    dtypes = MIN_COSINE if share == 1 else [AUTO]
    return [figure for dtype in dtypes for figure in await _dtype(dtype, some)]


async def _dtype(dtype: str, some: list[str]) -> list[Figure]:
    batches = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
    repeat = ask(batches[0][:32])
    with ChaosServer("--dtype", dtype) as server:
        server.wait_ready()
        wire = Wire(server.port)
        references = await ReferenceVectors.compute(wire, some, dtype)
        cosines = {"in batches of 64": [references.cosine(batch, await wire.send(ask(batch))) for batch in batches]}
        cosines["under load"] = await _under_load(wire, references, some)
        bodies = {(await wire.send(repeat)).body for _ in range(5)}
        await wire.close()
    with ChaosServer("--dtype", dtype) as server:
        server.wait_ready()
        wire = Wire(server.port)
        cosines["after a restart"] = [references.cosine([text], await wire.send(ask([text]))) for text in some]
        bodies.add((await wire.send(repeat)).body)
        await wire.close()
    return [
        *(
            Figure(
                f"{dtype}: minimum cosine of {len(some):,} texts {how} to the same texts alone",
                _shown(min(values)),
                f"≥ {references.min_cosine}",
                min(values) >= references.min_cosine,
            )
            for how, values in cosines.items()
        ),
        Figure(
            f"{dtype}: different responses to one batch, sent six times, once after a restart",
            f"{len(bodies)}",
            "1",
            len(bodies) == 1,
        ),
    ]


async def _under_load(wire: Wire, references: ReferenceVectors, some: list[str]) -> list[float]:
    """Embeds each text once, in requests of random sizes from many clients."""
    chance, waiting, cosines = random.Random(0), some.copy(), []
    chance.shuffle(waiting)

    async def client() -> None:
        while waiting:
            inputs = [waiting.pop() for _ in range(min(len(waiting), chance.randint(1, 8)))]
            cosines.append(references.cosine(inputs, await wire.send(ask(inputs))))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return cosines


def _shown(cosine: float) -> str:
    return f"1 − {max(0.0, 1 - cosine):.0e}"
