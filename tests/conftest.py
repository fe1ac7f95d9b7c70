"""Shared fixtures: an offline Hub cache with the parity stacks, tiny models, and servers on free ports."""

import os
import tempfile
from pathlib import Path

# Set these before the import of transformers and huggingface_hub, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = tempfile.mkdtemp(prefix="l2v-hub-")
for name in [name for name in os.environ if name.startswith("L2V_")]:
    del os.environ[name]
# One core for each parallel test and the processes that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import signal
import sys
from collections.abc import Iterator

import pytest
import transformers

from l2v.models import Encoder, load
from tests import tiny
from tests.gated import GatedEncoder
from tests.parity.hub import make_hub_cache
from tests.serving import LocalServer, ServerProcess

PARITY = Path(__file__).parent / "parity"
STACKS = {
    "llama3-instruct": ("meta-llama/Meta-Llama-3-8B-Instruct", "Meta-Llama-3-8B-Instruct"),
    "mistral-instruct": ("mistralai/Mistral-7B-Instruct-v0.2", "Mistral-7B-Instruct-v2"),
    "sheared-llama": ("princeton-nlp/Sheared-LLaMA-1.3B", "Sheared-LLaMA"),
    "gemma": ("google/gemma-2b", "Gemma-2b"),
    "qwen2-instruct": ("Qwen/Qwen2-1.5B-Instruct", "Qwen2-1.5B-Instruct"),
}

# Background jobs of a shell ignore SIGINT, and child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="where encoders run: cpu (default) or cuda, see tests/gpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slowest tests, those of training, first, so that the workers finish at the same time."""
    items.sort(key=lambda item: item.path.parent.name != "training")


@pytest.fixture(scope="session", autouse=True)
def hub() -> Iterator[Path]:
    """A Hub cache with the parity stacks under the names of the published models."""
    cache = Path(os.environ["HF_HUB_CACHE"])
    for stack, (base, family) in STACKS.items():
        folder = PARITY / "stacks" / stack
        mntp = f"McGill-NLP/LLM2Vec-{family}-mntp"
        repositories = {base: "base", mntp: "mntp", f"{mntp}-supervised": "contrastive"}
        repositories[f"{mntp}-unsup-simcse"] = "contrastive"  # as good for tests that serve both
        make_hub_cache(cache, {name: folder / part for name, part in repositories.items()})
    # The adapters that the docs use as an example.
    own = PARITY / "stacks" / "llama3-instruct"
    make_hub_cache(cache, {"my/mntp-adapter": own / "mntp", "my/contrastive-adapter@v2": own / "contrastive"})
    yield cache
    shutil.rmtree(cache)
    assert not {"app", "models", "training"} & sys.modules.keys()  # each module must be imported under one name only


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """The device of `--device`."""
    return str(pytestconfig.getoption("--device") or "cpu")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return tiny.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for the tiny Llama."""
    return tiny.make_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture(scope="session")
def encoder(adapter: Path, device: str) -> Encoder:
    """The tiny Llama with its adapter, in float32."""
    return load(str(adapter), dtype="float32", device=device)


@pytest.fixture(scope="session")
def plain(adapter: Path, device: str) -> Encoder:
    """The same encoder without prepacked weights, which can be exported."""
    return load(str(adapter), dtype="float32", device=device, prepack=False)


@pytest.fixture
def gated(encoder: Encoder) -> Iterator[GatedEncoder]:
    made = GatedEncoder(**{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__})
    made.gate.set()
    yield made
    made.gate.set()


@pytest.fixture(scope="session")
def server(encoder: Encoder) -> Iterator[LocalServer]:
    """The service with the tiny encoder, on a real socket in this process."""
    with LocalServer(encoder) as running:
        yield running


@pytest.fixture(scope="session")
def demo() -> Iterator[ServerProcess]:
    """`l2v serve` with the built-in model, in its own process."""
    with ServerProcess() as process:
        process.wait_ready()
        yield process
