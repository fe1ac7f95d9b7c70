"""Retakes the pictures of the playground in README and docs: `python -m tests.e2e.playground_screenshots`."""

from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.e2e.playground import FLAGS, Playground, chromium
from tests.serving import ServerProcess

ASSETS = Path(__file__).parents[2] / "docs" / "assets"


def main() -> None:
    with ServerProcess() as server, sync_playwright() as playwright:
        server.wait_ready()
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name, mode, last in (("playground", "compare", "#texts"), ("playground-search", "search", "#heatmap")):
            scheme = "dark" if mode == "search" else "light"
            context = browser.new_context(viewport={"width": 1280, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
            page = Playground(context, server)
            page[f"label[for=mode-{mode}]"].click()
            page.done()
            page.run()  # the first run warms up
            page["#run"].blur()
            page.page.mouse.move(0, 0)
            page.page.wait_for_timeout(1200)  # the points move
            bottom = page[last].evaluate("element => element.closest('.card').getBoundingClientRect().bottom + scrollY")
            clip = {"x": 0, "y": 0, "width": 1280, "height": bottom + 16}
            page.page.screenshot(path=ASSETS / f"{name}.png", full_page=True, clip=clip)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    main()
