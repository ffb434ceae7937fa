"""The page in a real browser, headless, over an engine that plays a script."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import uvicorn

from vcore.config import ServerSettings
from vcore.engine.records import StepRecord
from vcore.kv_cache.block_map import BlockMap
from vcore.plugins.resolved import ResolvedPlugin, ResolvedSet
from vcore.scheduler import SchedulerStats
from vcore.server import create_app
from vcore.testing.scripted_engine import ScriptedEngine

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = """<script>document.title='owned'</script><img src=x onerror="document.title='owned'"> & `code`
```py
x < 1
```
"""
NUM_BLOCKS = 100_000
STATES = bytes(block % 4 for block in range(NUM_BLOCKS))


class BrowserEngine(ScriptedEngine):
    """Has many blocks, so that the map is worth looking at."""

    async def block_map(self) -> BlockMap:
        return BlockMap(num_blocks=NUM_BLOCKS, block_size=16, used=1, free=2, cached=1, states=STATES)


class Served:
    """A server in a thread, on any free port."""

    def __init__(self, script: Callable[..., str] = lambda request: "hello there", port: int = 0, **settings: Any):
        self.engine = BrowserEngine(script, max_model_len=4096)
        self.engine.scheduler_stats = SchedulerStats(
            running=3,
            waiting=7,
            used_blocks=50_000,
            free_blocks=49_999,
            cached_blocks=25_000,
            prefix_query_tokens=1000,
            prefix_hit_tokens=250,
            preemptions=2,
        )
        self.engine.plugins = ResolvedSet(
            (ResolvedPlugin(kind="model", name="llama", distribution="theirs", version="1.2", origin="entry point"),)
        )
        app = create_app(self.engine, ServerSettings(**settings))
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=2))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        self._ready.set()
        await serving

    def __enter__(self) -> Served:
        self._thread.start()
        self._ready.wait()
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def run(self, change: Callable[[], None]) -> None:
        """Change something in the server's thread."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (change(), done.set()))
        done.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages; afterwards nothing in them must have failed, and nothing must have come from elsewhere."""
    contexts, faults, asked = [], [], []

    def make(url: str, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert faults == []
    assert {url.split("/")[2].split(":")[0] for url in asked} <= {"127.0.0.1"}


def step(end: float) -> StepRecord:
    stats = ScriptedEngine().scheduler_stats
    return StepRecord(
        index=1,
        start=end,
        end=end,
        num_prompt_tokens=0,
        num_decodes=5,
        num_requests=5,
        num_output_tokens=600,
        stats=stats,
    )


def ask(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_a_conversation_streams_and_is_told_with_its_numbers(open_page: Any) -> None:
    with Served(lambda request: f"answer {len(request.prompt_token_ids)}") as served:
        page = open_page(served.url)
        page.get_by_text("Settings").click()
        page.get_by_label("System prompt").fill("Be brief.")
        page.get_by_label("Temperature").fill("0.3")
        page.get_by_label("Seed").fill("7")
        ask(page, "hi")
        answer = page.locator(".turn.assistant").last
        expect(answer).to_contain_text("answer")
        expect(answer.locator(".meta")).to_contain_text("tokens · ")
        expect(answer.locator(".meta")).to_contain_text("tokens/s")
        expect(answer.locator(".meta")).to_contain_text("2 cached")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        ask(page, "and again")
        expect(page.locator(".turn.assistant")).to_have_count(2)
        expect(page.get_by_role("button", name="Again")).to_have_count(1)
        request = served.engine.served[-1]
        prompt = bytes(request.prompt_token_ids).decode()
        assert prompt.startswith("<system>Be brief.<user>hi<assistant>answer ")
        assert prompt.endswith("<user>and again<assistant>")
        params = request.params
        assert (params.temperature, params.seed, params.top_p, params.repetition_penalty) == (0.3, 7, 0.95, 1.1)
        page.get_by_role("button", name="New chat").click()
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.get_by_text("Ask the model something.")).to_be_visible()


def test_again_asks_for_another_answer_to_the_same_conversation(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        ask(page, "hi")
        page.get_by_role("button", name="Again").click()
        expect(page.get_by_role("button", name="Again")).to_be_visible()
        expect(page.locator(".turn.assistant")).to_have_count(1)
        prompts = [bytes(request.prompt_token_ids) for request in served.engine.served]
        assert prompts == [prompts[0]] * 2


def test_what_a_model_or_a_user_says_is_text(open_page: Any) -> None:
    with Served(lambda request: HOSTILE) as served:
        page = open_page(served.url)
        ask(page, HOSTILE)
        answer = page.locator(".turn.assistant .text")
        expect(page.get_by_role("button", name="Again")).to_be_visible()
        expect(answer).to_contain_text("<script>document.title='owned'</script><img src=x")
        expect(answer.locator("pre code")).to_have_text("x < 1\n")
        expect(answer.locator(":scope > code")).to_have_text("code")
        assert page.locator(".turn script, .turn img").count() == 0
        expect(page.locator(".turn.user .text")).to_contain_text("<img src=x onerror=")
        assert "owned" not in page.title()


def test_stopping_aborts_the_request(open_page: Any) -> None:
    with Served(lambda request: "x" * 400) as served:
        page = open_page(served.url)
        served.run(served.engine.may_step.clear)
        stop = page.get_by_role("button", name="Stop")
        for number, halt in enumerate((stop.click, lambda: page.keyboard.press("Escape")), start=1):
            ask(page, "hi")
            expect(stop).to_be_visible()
            halt()
            expect(page.get_by_role("button", name="Send")).to_be_visible()
            expect(page.locator(".turn.assistant .meta").last).to_contain_text("stopped by you")
            page.wait_for_function("() => fetch('ui/state').then(r => r.json()).then(s => s.requests.open === 0)")
            assert len(served.engine.aborted) == number


class FewSteps(asyncio.Event):
    """Lets an engine take three steps, and no more."""

    left = 3

    async def wait(self) -> Literal[True]:
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()
        return True


def test_a_chat_that_is_cleared_in_mid_answer_is_empty(open_page: Any) -> None:
    with Served(lambda request: "x" * 100) as served:
        page = open_page(served.url)
        served.engine.may_step = FewSteps()
        ask(page, "hi")
        expect(page.locator(".turn.assistant .text")).to_contain_text("xxx")
        page.get_by_role("button", name="New chat").click()
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        served.engine.may_step = FewSteps()
        ask(page, "new")
        expect(page.locator(".turn.assistant .text")).to_contain_text("xxx")
        assert bytes(served.engine.served[-1].prompt_token_ids) == b"<user>new<assistant>"


def test_a_completion_has_no_template_and_shows_its_prompt(open_page: Any) -> None:
    with Served(lambda request: " in a time") as served:
        page = open_page(served.url)
        page.get_by_text("Settings").click()
        page.get_by_label("Completion").check()
        expect(page.get_by_label("System prompt")).to_be_hidden()
        ask(page, "Once upon")
        expect(page.locator(".turn.assistant .text")).to_have_text("Once upon in a time")
        assert bytes(served.engine.served[0].prompt_token_ids) == b"Once upon"


def test_errors_are_told_and_the_chat_goes_on(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        served.engine.failures = {1: "the sample broke"}
        ask(page, "hi")
        expect(page.locator(".turn .error")).to_contain_text("the sample broke")
        served.engine.failures = {}
        page.get_by_role("button", name="Again").click()
        expect(page.locator(".turn.assistant .text")).to_have_text("hello there")
        page.get_by_text("Settings").click()
        page.get_by_label("Top-k").fill("-5")
        ask(page, "never sent")
        expect(page.locator(".turn.user")).to_have_count(1)


def test_the_engine_is_shown_live(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        expect(page.locator("#running")).to_have_text("3")
        expect(page.locator("#waiting")).to_have_text("7")
        expect(page.locator("#hit-text")).to_have_text("25.0 % of 1,000 tokens")
        expect(page.locator("#blocks-used")).to_have_text("50,000")
        expect(page.locator("#blocks-cached")).to_have_text("25,000")
        expect(page.locator("#blocks-free")).to_have_text("24,999")
        expect(page.locator("#plugins")).to_contain_text("theirs 1.2")
        expect(page.locator("#facts")).to_contain_text("4,096 tokens")
        height = page.locator("#blocks").evaluate("canvas => canvas.clientHeight")
        assert 0 < height <= 240
        colours = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, 1).data).size"
        assert page.locator("#blocks").evaluate(colours) > 2
        now = float(served.loop.time())
        served.run(lambda: [one.on_step(step(now + ahead)) for ahead in range(3) for one in served.engine.listeners])
        page.wait_for_function("() => parseFloat(document.getElementById('output-rate').textContent) > 0")
        served.engine.scheduler_stats = ScriptedEngine().scheduler_stats
        expect(page.locator("#running")).to_have_text("0")


def test_states_of_the_engine_are_told(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        expect(page.locator("#health-text")).to_have_text("ready")
        expect(page.locator("#banner")).to_be_hidden()
        served.engine.status.reason = "killed by signal 9"
        for state in ("restarting", "dead"):
            served.engine.status.state = state
            expect(page.locator("#health-text")).to_have_text(state)
            expect(page.locator("#banner")).to_contain_text("killed by signal 9")
        served.engine.status.state = "ready"
        expect(page.locator("#banner")).to_be_hidden()


def test_it_finds_its_server_again(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        expect(page.locator("#health-text")).to_have_text("ready")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    with Served(port=served.port):
        expect(page.locator("#health-text")).to_have_text("ready", timeout=20_000)
        expect(page.locator("#banner")).to_be_hidden()


def test_a_key_is_asked_for_and_nothing_is_shown_before(open_page: Any) -> None:
    with Served(api_keys=("right",)) as served:
        page = open_page(served.url)
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        expect(page.locator("#health-text")).to_have_text("needs a key")
        expect(page.locator("#plugins tr")).to_have_count(0)
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not accept this key")
        page.get_by_label("Key", exact=True).fill("right")
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#plugins tr")).to_have_count(1)
        ask(page, "hi")
        expect(page.locator(".turn.assistant .text")).to_have_text("hello there")
        page.reload()
        expect(page.locator("#plugins tr")).to_have_count(1)
        expect(dialog).to_be_hidden()


CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.disabled) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def test_it_can_be_read_in_any_light_and_at_any_width(open_page: Any) -> None:
    with Served(lambda request: "words " * 40 + "w" * 300 + " `code`") as served:
        page = open_page(served.url)
        ask(page, "u" * 300)
        expect(page.get_by_role("button", name="Again")).to_be_visible()
        page.get_by_text("Settings").click()
        served.engine.status.state, served.engine.status.reason = "dead", "killed"
        expect(page.locator("#banner")).to_be_visible()
        for width, views in ((1280, ["both"]), (360, ["Engine", "Chat"])):
            page.set_viewport_size({"width": width, "height": 740})
            for view in views:
                if view != "both":
                    page.get_by_role("button", name=view, exact=True).click()
                assert page.evaluate("document.documentElement.scrollWidth") <= width, view
                for scheme in ("dark", "light"):
                    page.emulate_media(color_scheme=scheme)
                    assert page.evaluate(CONTRASTS) == [], (width, view, scheme)


def test_the_keyboard_reaches_everything(open_page: Any) -> None:
    with Served() as served:
        page = open_page(served.url)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the message")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Message", exact=True)).to_be_focused()
        page.keyboard.type("hi")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("there")
        page.keyboard.press("Enter")
        expect(page.locator(".turn.user .text")).to_have_text("hi\nthere")
        expect(page.locator(".turn.assistant .text")).to_have_text("hello there")
        nameless = "() => [...document.querySelectorAll('button')].filter(b => !b.textContent.trim()).length"
        assert page.evaluate(nameless) == 0
