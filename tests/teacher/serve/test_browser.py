"""The page in a real browser without a window: clicked, typed into, looked at.

Needs the package playwright (the extra "browser") and a Chromium of the system; CHROMIUM names another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from .conftest import Client, running

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tried with playwright, not installed")
PATIENCE_MS = 120_000  # a machine may be busy with other tests
sync_api.expect.set_options(timeout=PATIENCE_MS)
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install it, or name one in CHROMIUM"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose errors fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    made, problems = context.new_page(), []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    yield made
    context.close()
    assert problems == []


def test_continue_types_and_clicks(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/continue?index=animals")
    page.get_by_role("heading", name="What follows?").wait_for()
    page.get_by_label("Context", exact=True).type("the cat sat on the ")
    first = page.get_by_label("Continuations").get_by_role("button").first
    sync_api.expect(page.get_by_label("Continuations")).to_contain_text("after ‹the·cat·sat·on·the·›")
    sync_api.expect(page.get_by_label("Places").get_by_role("listitem").first).to_contain_text("the cat sat on the")
    before = first.get_attribute("aria-label")
    first.click()
    sync_api.expect(page.get_by_label("Context", exact=True)).to_have_value(
        f"the cat sat on the {before.split()[1][0]}"
    )
    assert "text=the+cat+sat+on+the+" in page.url
    page.go_back()  # the state before the click
    sync_api.expect(page.get_by_label("Context", exact=True)).to_have_value("the cat sat on the ")


def test_continue_by_keyboard_alone(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/continue?index=animals&text=the%20")
    page.get_by_label("Continuations").get_by_role("button").nth(1).wait_for()
    page.get_by_label("Continuations").get_by_role("button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_label("Context", exact=True)).to_have_value("the d")
    assert page.evaluate("document.activeElement.id") == "text"


def test_why_something_is_not_found(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/continue?index=animals&text={quote('The Queen ')}")
    note = page.get_by_role("note")
    sync_api.expect(note).to_contain_text("occurs nowhere")
    note.get_by_role("button").filter(has_text="lower case").first.click()
    sync_api.expect(page.get_by_label("Context", exact=True)).to_have_value("the queen")


def test_estimators_explain_orders(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/continue?index=animals&text=the%20cat")
    page.get_by_label("Probabilities").select_option("witten-bell")
    sync_api.expect(page.get_by_label("Backoff chain")).to_contain_text("keeps")
    sync_api.expect(page.get_by_role("region", name="Probabilities")).to_contain_text("witten-bell: the likeliest")
    assert "estimator=witten-bell" in page.url


def test_trace_shows_spans_and_where_they_stand(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/trace?index=animals")
    page.get_by_label("Text to trace").fill("a king said: the cat sat on the € throne of a king")
    spans = page.locator(".span")
    sync_api.expect(spans.filter(has_text="the cat sat on the ")).to_have_count(1)
    sync_api.expect(page.locator(".traced")).to_contain_text("a king said: the cat sat on the € throne of a king")
    spans.filter(has_text="the cat sat on the ").hover()
    sync_api.expect(page.locator("#tip")).to_contain_text("20 tokens, once, in ")
    spans.filter(has_text="the cat sat on the ").focus()
    page.keyboard.press("Enter")
    places = page.get_by_label("Where the span occurs")
    sync_api.expect(places.locator("mark").first).to_have_text("the cat sat on the ")
    places.get_by_role("button").first.click()
    sync_api.expect(page.locator(".document mark")).to_have_text("the cat sat on the ")
    count = spans.count()
    page.get_by_label("Shortest span").evaluate("one => { one.value = 18; one.dispatchEvent(new Event('input')) }")
    sync_api.expect(spans).not_to_have_count(count)
    page.wait_for_url("**min_length=18**")
    page.reload()
    sync_api.expect(page.get_by_label("Text to trace")).to_have_value(
        "a king said: the cat sat on the € throne of a king"
    )


def test_a_span_is_part_of_the_address(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/trace?index=animals&min_length=8&text=xx%20the%20cat%20sat%20zz&span=0")
    sync_api.expect(page.locator(".span[aria-pressed=true]")).to_have_count(1)
    sync_api.expect(page.get_by_label("Where the span occurs")).to_be_visible()


def test_novelty_is_read_by_keyboard(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/trace?index=animals&text=the%20cat%20sat%20on%20my%20hat")
    chart = page.get_by_role("img", name="Share of new n-grams against their length")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator("figure .note")).to_contain_text("n = 2: this text")
    page.get_by_role("button", name="the corpus's own").click()
    sync_api.expect(page.get_by_role("button", name="the corpus's own")).to_have_attribute("aria-pressed", "false")


def test_teach_says_who_teaches_and_why(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/teach?index=animals&text=the%20cat%20sat")
    page.locator(".taught button").nth(2).click()
    token = page.get_by_label("The token", exact=True)
    sync_api.expect(token).to_contain_text("Taught by")
    sync_api.expect(token).to_contain_text("occur")
    page.keyboard.press("ArrowRight")
    assert "at=4" in page.url
    page.get_by_label("Policy").select_option("half")
    sync_api.expect(page.locator(".figures")).to_contain_text("50.0 %")


def test_corpus_and_near_duplicates(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/corpus?index=animals")
    sync_api.expect(page.get_by_label("Leaving out")).to_contain_text("without its document")
    page.get_by_role("button", name="count near-duplicates").click()
    sync_api.expect(page.get_by_label("Near-duplicates")).to_contain_text("16 tokens")
    page.get_by_label("Repeated passages").get_by_role("button").first.click()
    page.get_by_role("heading", name="What follows?").wait_for()


def test_two_indexes_side_by_side(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/compare?index=animals&other=tales&text=a%20dog")
    sync_api.expect(page.get_by_role("region", name="animals")).to_contain_text("a·dog")
    sync_api.expect(page.get_by_role("region", name="tales")).not_to_contain_text("a·dog")
    page.get_by_label("Right").select_option("animals")
    page.wait_for_url("**other=animals**")


def test_the_menu_keeps_the_text(page: Any, server: Client) -> None:
    page.goto(f"{server.url}/#/continue?index=tales&text=the%20king")
    page.get_by_role("link", name="Trace").click()
    sync_api.expect(page.get_by_label("Text to trace")).to_have_value("the king")
    page.get_by_label("Index").select_option("animals")
    page.wait_for_url("**index=animals**")


def test_a_phone_and_the_dark(browser: Any, server: Client, tmp_path: Path) -> None:
    shots = Path(os.environ.get("CORPUS_TEACHER_SHOTS", tmp_path))
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
        page = context.new_page()
        for view, mark in (
            ("continue", ".bars"),
            ("trace", ".traced"),
            ("teach", ".taught"),
            ("corpus", ".figures"),
            ("compare", ".rows"),
        ):
            page.goto(f"{server.url}/#/{view}?index=animals&other=tales&text=the%20cat%20sat%20on%20the%20throne")
            page.reload()
            page.locator(mark).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} overflows"
            page.screenshot(path=shots / f"{view}-{scheme}.png", full_page=True)
            assert (shots / f"{view}-{scheme}.png").stat().st_size > 5000
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, shade.strip("rgb()").split(","))) < 200) == (scheme == "dark")
        page.get_by_role("button", name="Colours: as the system").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        context.close()


def test_everything_has_a_name(page: Any, server: Client) -> None:
    """Each control can be told apart by a screen reader, and the page has one main part and one first heading."""
    for view in ("continue", "trace", "teach", "corpus", "compare"):
        page.goto(f"{server.url}/#/{view}?index=animals&text=the%20cat%20sat%20on%20the%20mat")
        page.reload()
        page.locator("main .card").first.wait_for()
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('button, select, textarea, input, [role=button], a, svg[role=img]')]
            .filter(one => one.offsetParent !== null || one.tagName === 'svg')
            .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
            .map(one => one.outerHTML)"""
        )
        assert unnamed == []
        assert page.locator("h1").count() == page.locator("main").count() == 1
        assert (
            page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
            == page.locator("[id]").count()
        )


def test_a_token_is_asked_for(browser: Any, server: Client) -> None:
    with running(indexes=server.indexes, env={"CORPUS_TEACHER_TOKEN": "open sesame"}) as closed:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{closed.url}/#/continue?index=animals&text=the%20cat")
        page.get_by_label("Token").fill("open sesame")
        page.get_by_role("button", name="Go on").click()
        sync_api.expect(page.get_by_label("Continuations")).to_contain_text("after")
        context.close()


def test_no_view_shows_an_element_as_words(page: Any, server: Client) -> None:
    for view in ("continue", "trace", "teach", "corpus", "compare"):
        page.goto(f"{server.url}/#/{view}?index=animals&text=the%20cat%20sat%20on%20the")
        page.wait_for_load_state("networkidle")
        sync_api.expect(page.locator("main")).not_to_contain_text("[object")


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("view", ["compare", "teach", "continue"])
def test_bars_of_a_list_have_one_scale(page: Any, server: Client, view: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{server.url}/#/{view}?index=animals&text={quote('the cat sat on the ')}")
    page.locator(".aligned .track").first.wait_for()
    lists = page.locator(".aligned").all()
    for one in lists:
        edges = one.locator(".track").evaluate_all(
            """all => all.map(one => one.getBoundingClientRect())
                         .map(box => [box.left, box.right].map(Math.round).join())"""
        )
        assert len(set(edges)) == 1
    assert sum(one.locator(".track").count() for one in lists) > 2
