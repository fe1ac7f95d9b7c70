"""What the playground shows: scores, changes by the instruction, map, tokens, rankings, overview, timings."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.e2e.playground import DOCUMENTS, EXAMPLE, INSTRUCTION, PLAIN, QUERIES, Open, Playground, similarity
from tests.serving import ServerProcess


@pytest.fixture
def page(demo: ServerProcess, open_page: Open) -> Playground:
    return open_page(demo)


def test_scores_with_and_without_the_instruction_stand_side_by_side(page: Playground, demo: ServerProcess) -> None:
    given, plain = (np.array(similarity(demo, **body)["scores"]) for body in (EXAMPLE, PLAIN))
    np.testing.assert_allclose(page.scores("#heatmap"), given, atol=1e-6)
    np.testing.assert_allclose(page.scores("#other"), plain, atol=1e-6)
    assert page["#heatmap-title"].inner_text() == "Similarity with instruction"
    assert page["#other-title"].inner_text() == "Similarity without instruction"
    boxes = "all => all.map(one => one.getBoundingClientRect())"
    left, right = page["#heatmap, #other"].evaluate_all(boxes)
    assert left["top"] == pytest.approx(right["top"], abs=2)
    assert left["right"] < right["left"]
    changes = page["#heatmap td[data-score]"].evaluate_all("cells => cells.map(cell => cell.lastChild.textContent)")
    shown = [float(change.replace("−", "-") or 0) for change in changes]
    np.testing.assert_allclose(shown, (given - plain).ravel(), atol=0.006)
    assert any(shown)
    assert page["#heatmap thead th"].all_inner_texts() == [f"D{i + 1}\n{text}" for i, text in enumerate(DOCUMENTS)]
    best = page["#heatmap tbody tr"].evaluate_all("rows => rows.map(row => row.querySelector('.best').cellIndex - 1)")
    assert best == given.argmax(axis=1).tolist()
    assert page["#status"].inner_text().startswith("4 × 5 scores in ")
    page["#query-instruction"].fill("")
    page.run()
    expect(page["#other-section"]).to_be_hidden()
    assert page["#heatmap-title"].inner_text() == "Similarity"


def test_points_move_between_their_places_with_and_without_the_instruction(
    page: Playground, demo: ServerProcess
) -> None:
    duration = "Chart.getChart('map').options.animation.duration"
    assert page.page.evaluate(duration) > 0  # on load, too
    inputs: list[Any] = [[INSTRUCTION, text] for text in QUERIES] + DOCUMENTS + QUERIES + DOCUMENTS
    vectors = np.array(demo.client.post("/embed", json={"inputs": inputs}).json()["embeddings"])
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * values[:2]
    shown = np.array([page.column(4), page.column(5)], dtype=float).T
    signs = np.sign((expected[:9] * shown).sum(axis=0))
    np.testing.assert_allclose(shown, signs * expected[:9], atol=2e-3)
    np.testing.assert_allclose(page.points(), signs * expected[:9], atol=2e-3)
    label = page["#map"].get_attribute("aria-label") or ""
    assert label.startswith("Map of 9 texts.")
    assert f"component 1, {round(100 * values[0] ** 2 / (values**2).sum())} %" in label
    page["label[for=move-without]"].click()
    np.testing.assert_allclose(page.points(), signs * expected[9:], atol=2e-3)
    drawn = "Chart.getChart('map').getDatasetMeta(0).data[0].x"
    page.page.wait_for_timeout(1000)
    start = page.page.evaluate(drawn)
    page["label[for=move-with]"].click()
    assert page.page.evaluate(duration) > 0
    page.page.wait_for_timeout(1000)
    assert page.page.evaluate(drawn) != pytest.approx(start, abs=1)
    page.page.emulate_media(reduced_motion="reduce")
    page["label[for=move-without]"].click()
    assert page.page.evaluate("Chart.getChart('map').options.animation") is False


def test_labels_of_the_map_do_not_overlap(page: Playground) -> None:
    for count in (9, 50):
        if count == 50:
            page.fill([f"text {number} of many about cats" for number in range(25)], [*QUERIES * 6, "x"], "Find:")
            page.run()
        page.page.wait_for_timeout(1000)
        labels = page.page.evaluate("Chart.getChart('map').labels")
        assert len(labels) >= 9
        for one, other in itertools.combinations(labels, 2):
            apart = [
                2 * abs(one[at] - other[at]) >= one[size] + other[size]
                for at, size in (("x", "width"), ("y", "height"))
            ]
            assert any(apart), (one, other)


def test_tokens_are_drawn_as_what_they_are(page: Playground, demo: ServerProcess) -> None:
    inputs = [[INSTRUCTION, QUERIES[0]], DOCUMENTS[0]]
    expected = demo.client.post("/tokenize", json={"inputs": inputs}).json()["tokens"]
    for row, tokens in ((1, expected[0]), (5, expected[1])):
        chips = page[f"#texts tbody tr:nth-child({row}) .token"].evaluate_all(
            "chips => chips.map(chip => [chip.textContent, chip.classList[1], 'pooled' in chip.dataset])"
        )
        roles = {"text": "pooled"}
        assert chips == [[t["text"].strip(), roles.get(t["role"], t["role"]), t["pooled"]] for t in tokens]
    assert page["#tokens-legend .token"].all_inner_texts() == ["special", "instruction, not pooled", "pooled"]
    colors = page["#tokens-legend .token"].evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colors)) == 3
    long = "a long text of many words " * 200
    page.fill([QUERIES[0]], [long, DOCUMENTS[0]])
    page.run()
    counts = similarity(demo, queries=[QUERIES[0]], documents=[long.strip(), DOCUMENTS[0]])["tokens"]
    assert page.column(3) == [str(number) for number in counts["queries"] + counts["documents"]]
    assert ["truncated" in text for text in page.column(2)] == [False, True, False]
    assert f"and {counts['documents'][0] - 80} more" in page.column(2)[1]
    assert page["#tokens-note"].inner_text().endswith("tokens, 1 text truncated")
    assert "1 text truncated" in page["#status"].inner_text()


def test_colours_have_a_fixed_scale_so_that_nonsense_looks_like_nonsense(page: Playground) -> None:
    background = "cell => cell.style.backgroundColor.match(/\\d+/g).map(Number)"
    page.fill(["xkcd blorp vunt"], ["asdf qwer zxcv", "glorp 7731 fnord"])
    page.run()
    low = [page["#heatmap td[data-score]"].nth(at).evaluate(background) for at in (0, 1)]
    assert max(score for row in page.scores() for score in row) < 0.4
    page.fill(["the same"], ["the same"])
    page.run()
    high = page["#heatmap td[data-score]"].first.evaluate(background)
    assert math.dist(*low) < math.dist(high, low[0]) / 2
    assert high == [18, 64, 127]  # the end of the scale
    assert "0 unrelated" in page["#heatmap-legend"].inner_text()


def test_a_search_ranks_documents_pasted_or_from_a_file(page: Playground, demo: ServerProcess, tmp_path: Path) -> None:
    page["label[for=mode-search]"].click()
    page.done()
    first, plain = page["#heatmap li .found"], page["#other li .found"]
    assert first.first.inner_text() == "You can change your password under Settings, Security."
    assert plain.first.inner_text() == "Delete your account under Settings, Privacy."
    assert page["#heatmap li em"].first.inner_text() == "▲1"
    documents = ["stock markets fell", "a cat sleeps", "the kitten rests", "bread is baked"]
    (tmp_path / "texts.txt").write_text("\r\n".join(documents) + "\r\n")
    page["#document-file"].set_input_files(tmp_path / "texts.txt")
    expect(page["#document-count"]).to_have_text("4 texts")
    expect(page["#stale"]).to_be_visible()
    page["#query-instruction"].fill("")
    page["#query-texts"].fill("where is the cat?")
    page["#query-texts"].press("Enter")
    page.done()
    (scores,) = similarity(demo, queries=["where is the cat?"], documents=documents)["scores"]
    assert first.all_inner_texts() == [documents[at] for at in np.argsort(scores)[::-1]]
    shown = page["#heatmap li b"].all_inner_texts()
    np.testing.assert_allclose([float(score) for score in shown], sorted(scores, reverse=True), atol=6e-4)
    page["#document-texts"].fill("")
    page["#run"].click()
    expect(page["#problem"]).to_contain_text("Enter the documents to search")
    page["label[for=mode-compare]"].click()  # each mode keeps its texts
    page.done()
    assert page["#query-texts"].input_value() == "\n".join(QUERIES)
    assert page.errors == []


def test_many_texts_have_an_overview(page: Playground, demo: ServerProcess) -> None:
    texts = [f"text number {number}" for number in range(60)]
    page.fill(texts, texts[::-1])
    page.run()
    assert page["#heatmap td[data-score]"].count() == 0
    picture = page["#heatmap canvas"]
    assert picture.evaluate("canvas => [canvas.width, canvas.height]") == [60, 60]
    expected = np.array(similarity(demo, queries=texts, documents=texts[::-1])["scores"])
    box = picture.bounding_box()
    assert box
    assert box["width"] > 300
    page.page.mouse.move(box["x"] + box["width"] * 50.5 / 60, box["y"] + box["height"] * 10.5 / 60)
    assert page["#heatmap .reading"].inner_text() == f"{expected[10, 50]:.3f} Q11 text number 10 · D51 text number 9"
    best = page["#heatmap tbody td.number"].all_inner_texts()
    np.testing.assert_allclose([float(score) for score in best], np.sort(expected.max(axis=1))[::-1], atol=6e-4)
    assert len(page.points()) == len(page.column(3)) == 120


def test_few_texts_and_no_documents(page: Playground, demo: ServerProcess) -> None:
    page["#document-instruction"].fill("has no effect without documents")
    page.fill(QUERIES, ["", "  "])
    page.run()
    np.testing.assert_allclose(page.scores(), similarity(demo, queries=QUERIES)["scores"], atol=1e-6)
    best = page["#heatmap tbody tr"].evaluate_all("rows => rows.map(row => row.querySelector('.best').cellIndex - 1)")
    assert all(row != column for row, column in enumerate(best))
    for queries in (["alone"], ["twice", "twice"]):
        page.fill(queries, [])
        page.run()
        assert page.column(4) == page.column(5) == ["0.000"] * len(queries)
        assert len(page.points()) == len(queries)
    assert page.errors == []


def test_timings_of_all_calls_are_shown(page: Playground) -> None:
    calls = page["#timings thead th.number"].all_inner_texts()
    assert calls == ["/similarity", "/similarity without", "/embed", "/embed without", "/tokenize"]
    rows = {row.split("\t")[0].strip(): row.split("\t")[1:] for row in page["#timings tbody tr"].all_inner_texts()}
    assert set(rows) == {"tokenize", "queue", "forward", "finish", "network, browser", "total"}
    for call in range(4):
        parts = [float(values[call]) for name, values in rows.items() if name != "total"]
        assert float(rows["forward"][call]) > 0
        assert sum(parts) == pytest.approx(float(rows["total"][call]), abs=0.05)
