"""The page and what it is made of."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from vcore.server.playground.assets import Assets
from vcore.server.playground.routes import SECURITY_HEADERS


class Page(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


@pytest.fixture
def page(server: Any) -> Page:
    response = server.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Page(response.text)


def test_the_policy_allows_nothing_but_our_own_files(server: Any) -> None:
    for path in ("/", "/ui/static/main.js", "/ui/static/nothing.js"):
        policy = server.get(path).headers["content-security-policy"]
        directives = dict(one.strip().partition(" ")[::2] for one in policy.split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
        assert directives["frame-ancestors"] == "'none'"
        assert "unsafe" not in policy
    assert server.get("/").headers["x-content-type-options"] == "nosniff"


def test_nothing_stands_inline_and_nothing_comes_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "script":
            assert attributes["src"]
        for name in ("src", "href", "action"):
            target = attributes.get(name) or ""
            assert not re.match(r"(?:[a-z]+:|/)", target), f"{tag} {name}={target}: not ours, or not below a prefix"


def test_every_asset_that_is_named_is_served(server: Any, page: Page) -> None:
    named = {attributes.get("src") or attributes.get("href") or "" for _, attributes in page.elements}
    files = {name for name in named if name.startswith("ui/static/")}
    assert files
    for name in files:
        response = server.get(f"/{name}")
        assert response.status_code == 200
        assert response.content


def test_scripts_import_only_scripts_that_are_there_and_parse_no_markup() -> None:
    assets = Assets()
    forbidden = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "http:",
        "https:",
    )
    for name in assets.names:
        asset = assets.get(name)
        assert asset is not None
        if not name.endswith(".js"):
            continue
        text = asset.content.decode()
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert assets.get(imported) is not None, f"{name} imports {imported}"
        assert not [word for word in forbidden if word in text], name


def test_scripts_and_page_agree_on_ids(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    assets = Assets()
    used = set()
    for name in assets.names:
        asset = assets.get(name)
        assert asset is not None
        used |= set(re.findall(r'byId\("([^"]+)"\)', asset.content.decode()))
    assert used
    assert used <= set(ids)


def test_every_control_has_a_name(page: Page) -> None:
    """Labels around or beside, or a label of its own; buttons have text, which the browser test reads."""
    labelled = {attributes.get("for") for tag, attributes in page.elements if tag == "label"}
    in_label = set()
    tags = re.compile(r"<label[^>]*>.*?</label>", re.DOTALL)
    for label in tags.findall(page.text):
        in_label |= set(re.findall(r'id="([^"]+)"', label))
    for tag, attributes in page.elements:
        if tag in ("input", "textarea", "select") and attributes.get("type") != "radio":
            assert attributes["id"] in labelled | in_label, attributes
        if tag in ("canvas", "img"):
            assert "aria-label" in attributes or "alt" in attributes


def test_the_model_s_name_is_text(make_server: Any) -> None:
    text = make_server(model_names=('<script>alert("x")</script>',)).get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text


def test_what_has_not_changed_is_not_sent_again(server: Any) -> None:
    first = server.get("/ui/static/style.css")
    assert first.headers["content-type"] == "text/css; charset=utf-8"
    again = server.get("/ui/static/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = server.get("/ui/static/style.css", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["..%2froutes.py", "%2e%2e/routes.py", "style.css%00", "nothing", "routes.py"])
def test_no_other_file_is_served(server: Any, name: str) -> None:
    assert server.get(f"/ui/static/{name}").status_code == 404


def test_with_a_key_the_page_is_open_and_its_data_are_not(make_server: Any) -> None:
    server = make_server(api_keys=("k",))
    assert 'data-guarded="yes"' in server.get("/").text
    assert server.get("/ui/static/main.js").status_code == 200
    for path in ("/ui/state", "/ui/blocks"):
        assert server.get(path).status_code == 401
        assert server.get(path, headers={"Authorization": "Bearer k"}).status_code == 200


def test_the_page_is_none_of_the_api_s(server: Any) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/ui")]
    assert "/metrics" in paths
    assert SECURITY_HEADERS["Referrer-Policy"] == "no-referrer"
