"""Models that requests choose by name: the base, and adapters on top of it, also loaded while the service runs."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute
from pydantic import ValidationError

from l2v.app.http.routes import tei
from l2v.app.settings import Settings
from l2v.models import Encoder, Input, load
from l2v.training.recipes import Mntp
from tests import tiny
from tests.adapters import Stack
from tests.bulk.shell import call
from tests.gated import GatedEncoder
from tests.serving import LocalServer, wait_for

KEY, JSON = "secret", {"Content-Type": "application/json"}
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def stack(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return Stack.make(base, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[LocalServer]:
    """The service with the base and both adapters."""
    with LocalServer(stack.load(), lora_modules=stack.modules) as running:
        yield running


@pytest.fixture
def changeable(stack: Stack) -> Iterator[LocalServer]:
    """The service with the adapter `law`, and others that it may load."""
    encoder = stack.load(law=stack.root / "law")
    gated = GatedEncoder(**{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__})
    gated.gate.set()
    settings: dict[str, Any] = {"lora_modules": f"law={stack.root / 'law'}", "runtime_adapters": stack.root}
    with LocalServer(gated, api_keys=KEY, **settings) as running:
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        running.gated = gated  # type: ignore[attr-defined]
        yield running
        gated.gate.set()


def vector(server: LocalServer, model: str | None, text: str = "hello") -> Any:
    return np.array(server.embed(text, model=model)["embeddings"][0])


@pytest.mark.parametrize(("name", "adapter"), [(None, None), ("demo", None), ("law", "law"), ("code", "code")])
def test_a_name_chooses_the_model_on_each_surface(
    server: LocalServer, stack: Stack, name: str | None, adapter: str | None
) -> None:
    expected = stack.merged(adapter)
    path, fields = f"/tei/{name}" if name else "/tei", {"model": name} if name else {}
    (native,) = server.embed("hello", **fields)["embeddings"]
    (openai,) = server.client.post("/v1/embeddings", json={"input": "hello", **fields}).json()["data"]
    (root,) = server.client.post(path, json={"inputs": "hello"}).json()
    (tei,) = server.client.post(f"{path}/embed", json={"inputs": "hello"}).json()
    teis_openai = server.client.post(f"{path}/v1/embeddings", json={"input": "hello", "model": "any"}).json()
    for found in (native, openai["embedding"], root, tei, teis_openai["data"][0]["embedding"] if name else root):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    scores = server.client.post("/similarity", json={"queries": "hello", "documents": "other", **fields}).json()
    assert scores["scores"][0][0] == pytest.approx(float(expected @ stack.merged(adapter, "other")), abs=1e-5)
    assert scores["model"] == server.embed("hello", **fields)["model"] == (name or "demo")
    info = server.client.get(f"{path}/info").json()
    assert info["model_id"] == (name or "demo")
    assert info["model_type"]["embedding"]["pooling"] == ("last_token" if name == "code" else "mean")
    assert server.client.get(f"{path}/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/embed", {"inputs": "a", "model": "none"}),
        ("/similarity", {"queries": "a", "model": "none"}),
        ("/v1/embeddings", {"input": "a", "model": "none"}),
        ("/tei/v1/embeddings", {"input": "a", "model": "none"}),
        ("/tei/none/embed", {"inputs": "a"}),
        ("/tei/none/v1/embeddings", {"input": "a"}),
    ],
)
def test_an_unknown_name_is_404_and_names_the_models(server: LocalServer, path: str, content: dict[str, str]) -> None:
    response = server.client.post(path, json=content)
    assert (response.status_code, "there is no such model; models: demo, law, code" in response.text) == (404, True)


def test_the_models_are_listed_with_their_sources(server: LocalServer) -> None:
    listed = server.client.get("/v1/models").json()["data"]
    assert [(each["id"], each["root"], each["parent"]) for each in listed] == [
        ("demo", "demo", None),
        ("law", "law", "demo"),
        ("code", "code", "demo"),
    ]
    assert server.client.get("/v1/models/code").json() == listed[2]
    assert server.client.get("/v1/models/none").status_code == 404
    base, law, code = server.client.get("/info").json()["models"]
    assert "adapter" not in base
    assert law["left_out"] == base["left_out"]
    assert law["sources"] == [*base["sources"], {"name": "law", "kind": "adapter", "revision": ""}]
    assert (law["adapter"]["rank"], law["adapter"]["layers"], law["adapter"]["bytes"] > 0) == (4, 14, True)
    assert (law["adapter"]["other_base"], code["adapter"]["other_base"]) == (None, None)
    assert (code["pooling"], code["max_length"], law["pooling"]) == ("last_token", 64, "mean")


def test_each_model_has_its_own_limits(server: LocalServer) -> None:
    long = {"inputs": "word " * 50, "truncate": False}
    assert server.client.post("/embed", json=long | {"model": "law"}).status_code == 200
    assert "64" in server.client.post("/embed", json=long | {"model": "code"}).json()["error"]["message"]


def test_metrics_have_the_model(server: LocalServer) -> None:
    server.embed(["a", "b"], model="code")
    server.client.post("/embed", json={"inputs": "a", "model": "none"})
    wait_for(lambda: 'l2v_requests_total{model="",route="/embed",status="404"}' in _metrics(server), what="the count")
    text = _metrics(server)
    for name in ("inputs", "tokens", "truncated_inputs"):
        assert set(re.findall(rf'^l2v_{name}_total{{model="(.*)"}}', text, re.MULTILINE)) == {"demo", "law", "code"}
    assert set(re.findall(r'^l2v_requests_total{model="(.*?)"', text, re.MULTILINE)) <= {"", "demo", "law", "code"}
    assert set(re.findall(r'^l2v_model_info{.*model="(.*?)"', text, re.MULTILINE)) == {"demo", "law", "code"}
    assert re.search(r'^l2v_device_memory_bytes{kind="adapters"} [1-9]', text, re.MULTILINE)


def _metrics(server: LocalServer) -> str:
    return server.client.get("/metrics").text


def test_the_base_answers_to_its_served_names(encoder: Encoder) -> None:
    with LocalServer(encoder, served_model_name="text-embedding-3-small,BAAI/bge-m3") as server:
        assert [each["id"] for each in server.client.get("/v1/models").json()["data"]] == [
            "text-embedding-3-small",
            "BAAI/bge-m3",
        ]
        # A service with one model answers to any name, and says which model it was.
        for name in ("BAAI/bge-m3", "unknown"):
            assert server.embed("a", model=name)["model"] == "text-embedding-3-small"
        assert server.client.post("/tei/BAAI/bge-m3/embed", json={"inputs": "a"}).status_code == 200
        assert server.client.post("/tei/unknown/embed", json={"inputs": "a"}).status_code == 404


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lora_modules": "law"}, "law must be name=source"),
        ({"lora_modules": "a/info=x"}, "a/info cannot name a model, since info is a part of the API's paths"),
        ({"lora_modules": "a/../b=x"}, r"since \.\. is a part of"),
        ({"lora_modules": "a?b=x"}, "use up to 100 letters"),
        ({"lora_modules": "demo=x"}, "demo, which is that of the base"),
        ({"lora_modules": "a=x", "served_model_name": "a"}, "a, which is that of the base"),
        ({"lora_modules": "a=x,b=x", "max_lora_modules": 1}, "2 adapters; the maximum is 1"),
        ({"served_model_name": "embed"}, "embed cannot name a model"),
        ({"runtime_adapters": "/tmp"}, "requires api_keys"),  # noqa: S108
        ({"runtime_adapters": "/nowhere", "api_keys": "k"}, "/nowhere is not a folder"),
        ({"runtime_adapters_from_hub": True}, "requires runtime_adapters"),
        ({"lora_modules": "a=x", "compile": True}, "compile cannot be combined with lora_modules"),
        ({"runtime_adapters": "/tmp", "api_keys": "k", "compile": True}, "cannot be combined with runtime_adapters"),  # noqa: S108
    ],
)
def test_settings_that_cannot_be_served_are_rejected(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(**fields)


def test_training_refuses_named_adapters() -> None:
    with pytest.raises(ValidationError, match="name the adapters that it starts from in --adapters"):
        Mntp(out="out", data="texts", lora_modules="a=x")


def test_no_path_of_tei_can_name_a_model() -> None:
    routes = [route for route in (*tei.router.routes, *tei.openai_router.routes) if isinstance(route, APIRoute)]
    for part in {part for route in routes for part in route.path.split("/")[2:]}:
        with pytest.raises(ValidationError, match="is a part of the API's paths"):
            Settings(served_model_name=f"a/{part}")


def test_an_adapter_is_loaded_and_unloaded_while_requests_run(
    changeable: LocalServer, stack: Stack, pool: ThreadPoolExecutor
) -> None:
    client, gated = changeable.client, changeable.gated  # type: ignore[attr-defined]
    response = client.post(LOAD, json={"lora_name": "added", "lora_path": "code"})
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'added' added successfully.")
    np.testing.assert_allclose(vector(changeable, "added"), stack.merged("code"), atol=1e-5)
    held = gated.adapters.nbytes
    # A request that has begun keeps its adapter, though the name is gone at once and soon names another.
    running, unloading = _hold(changeable, pool, "added"), _post(changeable, pool, UNLOAD, lora_name="added")
    wait_for(lambda: client.get("/v1/models/added").status_code == 404, what="the name to be gone")
    assert client.post("/embed", json={"inputs": "a", "model": "added"}).status_code == 404
    replacing = _post(changeable, pool, LOAD, lora_name="added", lora_path="law")
    wait_for(lambda: "added" in gated.adapters.modules or replacing.done(), what="the next adapter")
    assert not unloading.done()
    gated.gate.set()
    np.testing.assert_allclose(running.result(60).json()["embeddings"][0], stack.merged("code"), atol=1e-5)
    assert (unloading.result(60).status_code, replacing.result(60).status_code) == (200, 200)
    np.testing.assert_allclose(vector(changeable, "added"), stack.merged("law"), atol=1e-5)
    assert gated.adapters.nbytes == 2 * gated.adapters.modules["law"].nbytes != held
    assert client.post(UNLOAD, json={"lora_name": "law"}).status_code == 200  # also one of the settings
    assert client.post(UNLOAD, json={"lora_name": "demo"}).status_code == 404


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def _post(server: LocalServer, pool: ThreadPoolExecutor, path: str, **content: Any) -> "Future[httpx.Response]":
    return pool.submit(server.client.post, path, json=content)


def _hold(server: LocalServer, pool: ThreadPoolExecutor, model: str) -> "Future[httpx.Response]":
    """Closes the gate and occupies the engine with a request."""
    gated = server.gated  # type: ignore[attr-defined]
    before = len(gated.started)
    gated.gate.clear()
    held = _post(server, pool, "/embed", inputs="hello", model=model)
    wait_for(lambda: len(gated.started) > before, what="a batch at the gate")
    return held


def test_a_bad_adapter_is_rejected_and_nothing_changes(changeable: LocalServer, stack: Stack, tmp_path: Path) -> None:
    client = changeable.client
    other = tiny.make_base(tmp_path / "base", hidden_size=64)
    tiny.make_adapter(stack.root / "misfit", other, name=str(stack.base))
    tiny.make_adapter(tmp_path / "outside", stack.base)
    (stack.root / "link").symlink_to(tmp_path / "outside")
    (stack.root / "linked").mkdir()
    (stack.root / "linked" / "adapter_config.json").symlink_to(tmp_path / "outside" / "adapter_config.json")
    (stack.root / "deep" / "1_Pooling").mkdir(parents=True)
    (stack.root / "deep" / "1_Pooling" / "config.json").symlink_to(tmp_path / "outside" / "adapter_config.json")
    (stack.root / "empty").mkdir()
    before = client.get("/info").json(), vector(changeable, "law").tolist()
    for name, path, reason in (
        ("law", "code", "the model law is already loaded"),
        ("demo", "code", "the model demo is already loaded"),
        ("embed", "code", "embed cannot name a model"),
        ("new", "misfit", "misfit"),
        ("new", "empty", "empty is not"),
        ("new", "none", "not a folder below runtime_adapters"),
        ("new", ".", "not a folder below runtime_adapters"),
        ("new", "..", "not a folder below runtime_adapters"),
        ("new", f"../{tmp_path.name}/outside", "not a folder below runtime_adapters"),
        ("new", str(tmp_path / "outside"), "not a folder below runtime_adapters"),
        ("new", "link", "not a folder below runtime_adapters"),
        ("new", "linked", "the file adapter_config.json in this folder is a link that leads out of runtime_adapters"),
        ("new", "deep", "the file config.json in this folder is a link that leads out of runtime_adapters"),
        ("new", "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp", "not a folder below runtime_adapters"),
        ("new", "a\0b", "not a folder below runtime_adapters"),
    ):
        response = client.post(LOAD, json={"lora_name": name, "lora_path": path})
        assert (response.status_code, reason in response.text) == (400, True), response.text
        assert str(stack.root) not in response.text
    for name in ('"\\ud800"', json.dumps("n" * 1_000_000)):
        response = client.post(LOAD, content=f'{{"lora_name": {name}, "lora_path": "code"}}', headers=JSON)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "lora_name")
        assert len(response.content) < 1000
    assert (client.get("/info").json(), vector(changeable, "law").tolist()) == before


def test_adapters_are_limited_in_number_and_bytes(stack: Stack) -> None:
    encoder = stack.load(law=stack.root / "law")
    size = encoder.adapters.nbytes
    common: dict[str, Any] = {"api_keys": KEY, "runtime_adapters": stack.root, "max_lora_modules": 2}
    with LocalServer(encoder, lora_modules=f"law={stack.root / 'law'}", max_lora_bytes=2 * size, **common) as server:
        client = server.client
        client.headers["Authorization"] = f"Bearer {KEY}"
        for number in range(5):  # the names differ, but the labels of metrics don't grow without limit
            name = f"tenant-{number}"
            assert client.post(LOAD, json={"lora_name": name, "lora_path": "law"}).status_code == 200
            assert "max_lora_modules" in client.post(LOAD, json={"lora_name": "more", "lora_path": "code"}).text
            server.embed("a", model=name)
            assert client.post(UNLOAD, json={"lora_name": name}).status_code == 200
        labels = set(re.findall(r'^l2v_inputs_total{model="(.*)"}', _metrics(server), re.MULTILINE))
        assert labels == {"demo", "law", "tenant-0", "other"}
        server.service.settings.__dict__["max_lora_bytes"] = size
        assert f"{size:,} are taken" in client.post(LOAD, json={"lora_name": "more", "lora_path": "law"}).text


def test_changing_adapters_requires_the_setting_and_a_key(server: LocalServer, changeable: LocalServer) -> None:
    for path in (LOAD, UNLOAD):
        content = {"lora_name": "new", "lora_path": "code"}
        assert server.client.post(path, json=content).status_code == 404
        assert httpx.post(f"{changeable.url}{path}", json=content).status_code == 401
    # With the setting, names are checked even while the base is the only model.
    assert changeable.client.post(UNLOAD, json={"lora_name": "law"}).status_code == 200
    assert changeable.client.post("/embed", json={"inputs": "a", "model": "law"}).status_code == 404


def test_an_adapter_of_the_hub_needs_permission(hub: Path) -> None:
    source = "princeton-nlp/Sheared-LLaMA-1.3B"
    adapter = "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp"
    encoder = load(source, dtype="float32")
    settings: dict[str, Any] = {"model": source, "api_keys": KEY, "runtime_adapters": hub}
    with LocalServer(encoder, runtime_adapters_from_hub=True, **settings) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        assert server.client.post(LOAD, json={"lora_name": "mntp", "lora_path": adapter}).status_code == 200
        (revision,) = {path.name for path in (hub / f"models--{adapter.replace('/', '--')}" / "snapshots").iterdir()}
        added = server.client.get("/info").json()["models"][1]
        assert added["sources"][1] == {"name": adapter, "kind": "adapter", "revision": revision}
        assert server.client.get("/v1/models/mntp").json()["root"] == adapter


def test_an_adapter_that_computes_nan_fails_its_requests_alone(stack: Stack) -> None:
    encoder = stack.load()
    with LocalServer(encoder, lora_modules=stack.modules) as server:
        before = vector(server, "code")
        broken = encoder.adapters.modules["law"].id
        for factors in encoder.adapters._snapshot.loaded[broken].weights.values():
            factors.a.fill_(float("nan"))
        names = ["law", "code", "demo"] * 8
        with ThreadPoolExecutor(8) as pool:
            sent = [
                pool.submit(server.client.post, "/embed", json={"inputs": "hello", "model": name}) for name in names
            ]
        outcomes = {(name, each.result().status_code) for name, each in zip(names, sent, strict=True)}
        assert outcomes == {("law", 500), ("code", 200), ("demo", 200)}
        np.testing.assert_allclose(vector(server, "code"), before, atol=1e-6)


def test_commands_choose_a_model(
    server: LocalServer, stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (texts := tmp_path / "texts.txt").write_text("hello\n")
    local = ["--model", stack.base, "--dtype", "float32", "--lora-modules", stack.modules]
    for number, where in enumerate((local, ["--url", server.url])):
        for name in ("law", None):
            chosen = ["--model-name", name] if name else []
            out = tmp_path / f"{number}{name}.npy"
            assert call(capsys, "embed", texts, out, *where, *chosen).status == 0
            np.testing.assert_allclose(np.load(out)[0], stack.merged(name), atol=1e-5)
        scored = call(capsys, "similarity", "hello", "other", *where, "--model-name", "code", "--json")
        expected = float(stack.merged("code") @ stack.merged("code", "other"))
        assert json.loads(scored.out)[0]["score"] == pytest.approx(expected, abs=1e-5)
        wrong = call(capsys, "embed", texts, tmp_path / "none.npy", *where, "--model-name", "none")
        assert (wrong.status != 0, "law, code" in wrong.err) == (True, True), wrong.err
    wrong = call(capsys, "export", tmp_path / "merged", *local)
    assert (wrong.status, "choose it with --model-name" in wrong.err) == (2, True)
    assert call(capsys, "export", tmp_path / "merged", *local, "--model-name", "law").status == 0
    merged = load(str(tmp_path / "merged"), dtype="float32")
    (found,) = merged.encode([Input("hello")])
    np.testing.assert_allclose(found / np.linalg.norm(found), stack.merged("law"), atol=1e-5)
