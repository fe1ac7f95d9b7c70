"""The playground when something fails: errors, overload, cancelling, and a key."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from l2v.models import Encoder
from tests.e2e.playground import QUERIES, Open
from tests.e2e.test_playground import interpreter, shell
from tests.gated import GatedEncoder
from tests.serving import LocalServer, wait_for


def test_an_error_names_its_line_and_links_to_it(encoder: Encoder, open_page: Open) -> None:
    with LocalServer(encoder, max_characters=100) as server:
        page = open_page(server)
        page.fill(["short", "", "x" * 101, "short again"], ["also short"])
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("Queries, line 3: text has 101 characters; the maximum is 100 (max_characters)")
        expect(problem).to_contain_text("422 · invalid · queries[1].text")
        assert problem.get_attribute("role") == "alert"
        expect(page["#query-texts"]).to_have_attribute("aria-invalid", "true")
        problem.get_by_role("button", name="Show in the form").click()
        expect(page["#query-texts"]).to_be_focused()
        assert page.page.evaluate("getSelection().toString()") == "x" * 101
        page.page.keyboard.type("corrected")
        page.page.keyboard.press("Control+Enter")
        page.done()
        expect(problem).to_be_empty()
        expect(page["#query-texts"]).not_to_have_attribute("aria-invalid", "true")
        page["#document-instruction"].fill("y" * 101)
        page["#run"].click()
        expect(problem).to_contain_text("Instruction of the documents: instruction has 101 characters")
        expect(page["#document-instruction"]).to_have_attribute("aria-invalid", "true")


def test_a_form_without_queries_is_reported_without_a_request(server: LocalServer, open_page: Open) -> None:
    page = open_page(server)
    sent = len([url for url in page.requests if url.endswith("/similarity")])
    page.fill(["", "   "], ["a document"])
    page["#run"].click()
    expect(page["#problem"]).to_contain_text("Enter at least one query")
    expect(page["#query-texts"]).to_be_focused()
    assert len([url for url in page.requests if url.endswith("/similarity")]) == sent


def test_an_unreachable_service_is_reported(server: LocalServer, open_page: Open) -> None:
    page = open_page(server)
    page.page.route("**/similarity", lambda route: route.abort())
    page["#run"].click()
    expect(page["#problem"]).to_contain_text("cannot be reached")
    page.page.unroute("**/similarity")
    page.run()
    expect(page["#problem"]).to_be_empty()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def fill_queue(gated: GatedEncoder, server: LocalServer, pool: ThreadPoolExecutor) -> list[Any]:
    """Closes the gate, then sends one request to occupy the engine and another to fill the queue."""
    before = len(gated.started)
    gated.gate.clear()
    held = [pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": "first"}, timeout=60)]
    wait_for(lambda: len(gated.started) > before, what="a batch at the gate")
    held.append(pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": "second"}, timeout=60))
    wait_for(lambda: server.service.engine.queue_tokens > 0, what="a request in the queue")
    return held


def test_overload_is_reported_and_retried_after_the_countdown(
    gated: GatedEncoder, pool: ThreadPoolExecutor, open_page: Open
) -> None:
    with LocalServer(gated, max_queue_tokens=4) as server:
        page = open_page(server)
        held = fill_queue(gated, server, pool)
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("The service is busy")
        expect(problem).to_contain_text("429 · overloaded")
        expect(problem).to_contain_text(re.compile(r"Trying again in \d+ seconds?\."))
        assert problem.get_by_role("timer").get_attribute("aria-live") == "off"
        gated.gate.set()
        page.done()
        expect(problem).to_be_empty()
        assert len(page.scores()) == len(QUERIES)
        assert [request.result().status_code for request in held] == [200, 200]


def test_overload_can_be_retried_at_once_or_not_at_all(
    gated: GatedEncoder, pool: ThreadPoolExecutor, open_page: Open
) -> None:
    with LocalServer(gated, max_queue_tokens=4) as server:
        page = open_page(server)
        # The countdown must not end during the test.
        page.page.route("**/similarity", lambda route: _with_retry_after(route, "600"))
        held = fill_queue(gated, server, pool)
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("Trying again in 600 seconds.")
        problem.get_by_role("button", name="Stop trying").click()
        expect(problem).to_be_empty()
        expect(page["#run"]).to_be_focused()
        page["#run"].click()
        expect(problem).to_contain_text("The service is busy")
        gated.gate.set()
        assert [request.result().status_code for request in held] == [200, 200]
        problem.get_by_role("button", name="Try again now").click()
        page.done()
        expect(problem).to_be_empty()
        expect(page["#run"]).to_be_focused()


def _with_retry_after(route: Any, seconds: str) -> None:
    response = route.fetch()
    route.fulfill(response=response, headers=response.headers | {"retry-after": seconds})


def test_a_running_request_is_not_sent_twice_and_can_be_cancelled(gated: GatedEncoder, open_page: Open) -> None:
    with LocalServer(gated) as server:
        page = open_page(server)
        sent = len([url for url in page.requests if url.endswith("/similarity")])
        gated.gate.clear()
        page["#run"].click()
        expect(page["#results"]).to_have_attribute("aria-busy", "true")
        expect(page["#run"]).to_be_disabled()
        page.page.keyboard.press("Control+Enter")
        page["#cancel"].click()
        expect(page["#status"]).to_have_text("Cancelled.")
        expect(page["#results"]).to_have_attribute("aria-busy", "false")
        expect(page["#run"]).to_be_enabled()
        assert len([url for url in page.requests if url.endswith("/similarity")]) == sent + 1
        wait_for(lambda: server.service.in_flight == 0, what="the permit to be released")
        gated.gate.set()


def test_the_page_prompts_for_a_required_key_and_uses_it(encoder: Encoder, open_page: Open) -> None:
    with LocalServer(encoder, api_keys="open-sesame") as server:
        page = open_page(server, runs=False)
        expect(page["#key-row"]).to_be_visible()  # because /info returned 401
        page["#run"].click()
        expect(page["#problem"]).to_contain_text("requires an API key")
        expect(page["#key"]).to_be_focused()
        page.page.keyboard.type("wrong")
        page.page.keyboard.press("Enter")
        expect(page["#problem"]).to_contain_text("401 · unauthorized")
        page["#key"].fill("open-sesame")
        page.page.keyboard.press("Enter")
        page.done()
        assert len(page.scores()) == len(QUERIES)
        expect(page["#model li"].nth(1)).to_have_text("float32")
        # Neither a snippet nor any storage holds the key.
        expect(page["#similarity"]).to_contain_text("Authorization: Bearer $L2V_API_KEY")
        assert "open-sesame" not in page["body"].inner_text()
        stored = page.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert QUERIES[0] in stored
        assert "open-sesame" not in stored
        scores = shell(page["#similarity"].inner_text(), L2V_API_KEY="open-sesame")["scores"]
        np.testing.assert_allclose(scores, page.scores(), atol=1e-6)
        page["label[for=language-python]"].click()
        scores = interpreter(page["#similarity"].inner_text(), L2V_API_KEY="open-sesame")
        np.testing.assert_allclose(scores, page.scores(), atol=1e-6)
