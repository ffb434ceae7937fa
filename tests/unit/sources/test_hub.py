"""The hub source against a hub of our own: what it fetches, how it goes on, what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vcore_model_zoo.sources import options as options_module
from vcore_model_zoo.sources.hub import HubSource
from vcore_model_zoo.sources.hub_errors import translate
from vcore_model_zoo.sources.options import HubOptions

from vcore.errors import DownloadError, ModelNotFoundError
from vcore.interfaces.sources import ModelSourceContext

NAME = "maker/small-model"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """huggingface_hub waits between its own retries; and no token of this machine's user may take part."""
    import time

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub-cache"


def source(hub: Any, cache: Path, *, offline: bool = False, progress: Any = None, **options: Any) -> HubSource:
    given = HubOptions(**{"endpoint": hub.endpoint, "cache_dir": cache, **options})
    context = ModelSourceContext(cache_dir=cache / "unused", offline=offline, progress=progress)
    return HubSource(options=given, context=context)


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_and_small_files_are_fetched_and_nothing_else(hub: Any, cache: Path) -> None:
    folder = source(hub, cache).fetch(NAME)
    wanted = ["config.json", "tokenizer.json", "model.safetensors", "additional_chat_templates/tool_use.jinja"]
    assert found(folder) == {name: hub.files[name] for name in wanted}


def test_progress_is_told_in_bytes(hub: Any, cache: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    source(hub, cache, progress=lambda *values: told.append(values)).fetch(NAME)
    assert {text for text, _, _ in told} == {f"Downloading {NAME}"}
    assert max(done for _, done, _ in told) >= len(hub.files["model.safetensors"])


def test_what_is_there_is_not_fetched_again(hub: Any, cache: Path) -> None:
    first = source(hub, cache).fetch(NAME)
    hub.requests.clear()
    assert source(hub, cache).fetch(NAME) == first
    assert hub.downloads("model.safetensors") == []


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.cut_after = 50_000
    folder = source(hub, cache).fetch(NAME)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.downloads("model.safetensors") == [None, "bytes=50000-", "bytes=100000-"]


def test_a_connection_that_always_breaks(hub: Any, cache: Path) -> None:
    hub.cut_after = 50_000  # less than what is written at a time
    with pytest.raises(DownloadError, match=r"received 50000 bytes.*files that have arrived are kept"):
        source(hub, cache).fetch(NAME)
    hub.cut_after = None
    assert source(hub, cache).fetch(NAME).is_dir()


def test_an_interrupted_run_is_completed_by_the_next(hub: Any, cache: Path) -> None:
    def interrupt(text: str, done: int, total: int | None) -> None:
        if hub.downloads("model.safetensors"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source(hub, cache, progress=interrupt).fetch(NAME)
    with pytest.raises(DownloadError, match="not in the cache whole"):
        source(hub, cache, offline=True).fetch(NAME)
    hub.requests.clear()
    folder = source(hub, cache).fetch(NAME)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.downloads("config.json") == []


def test_an_incomplete_copy_is_not_used_offline(hub: Any, cache: Path) -> None:
    del hub.files["model.safetensors"]
    hub.files["model-00001-of-00002.safetensors"] = b"one"
    hub.files["model-00002-of-00002.safetensors"] = b"two"
    folder = source(hub, cache).fetch(NAME)
    assert source(hub, cache, offline=True).fetch(NAME) == folder
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DownloadError, match="not in the cache whole"):
        source(hub, cache, offline=True).fetch(NAME)


def test_offline_asks_nobody(hub: Any, cache: Path) -> None:
    with pytest.raises(DownloadError, match=rf"not in the cache whole.*offline.*vcore pull {NAME}"):
        source(hub, cache, offline=True).fetch(NAME)
    folder = source(hub, cache).fetch(NAME)
    hub.requests.clear()
    assert source(hub, cache, offline=True).fetch(NAME) == folder
    assert hub.requests == []


def test_the_cached_copy_serves_while_the_hub_fails(hub: Any, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = source(hub, cache).fetch(NAME)
    hub.refusal = (503, "")
    assert source(hub, cache).fetch(NAME) == folder
    assert "using the cached copy" in caplog.text


def test_a_token_is_sent(hub: Any, cache: Path) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelNotFoundError, match=rf"no model '{NAME}', or it is private.*A token \(hf auth login\)"):
        source(hub, cache).fetch(NAME)
    assert source(hub, cache, token="hf_secret").fetch(NAME).is_dir()


def test_a_token_is_never_shown(hub: Any, cache: Path) -> None:
    hub.refusal = (401, "")
    options = HubOptions(token="hf_secret", endpoint=hub.endpoint)
    assert "hf_secret" not in repr(options)
    with pytest.raises((DownloadError, ModelNotFoundError)) as caught:
        source(hub, cache, token="hf_secret").fetch(NAME)
    assert "hf_secret" not in str(caught.value)


def test_a_revision(hub: Any, cache: Path) -> None:
    assert source(hub, cache, revision="main").fetch(NAME).is_dir()
    with pytest.raises(ModelNotFoundError, match=r"no revision 'v9'"):
        source(hub, cache, revision="v9").fetch(NAME)


@pytest.mark.parametrize("pattern", ["small-Q4_0.gguf", "*Q4_0.gguf"])
def test_a_gguf_file_if_asked_for(hub: Any, cache: Path, pattern: str) -> None:
    hub.files |= {"small-Q4_0.gguf": b"q4", "small-Q8_0.gguf": b"q8"}
    file = source(hub, cache, gguf_file=pattern).fetch(NAME)
    assert (file.name, file.read_bytes()) == ("small-Q4_0.gguf", b"q4")
    assert hub.downloads("model.safetensors") == []
    assert source(hub, cache, gguf_file=pattern, offline=True).fetch(NAME) == file


def test_a_gguf_pattern_must_match_one_file(hub: Any, cache: Path) -> None:
    hub.files |= {"small-Q4_0.gguf": b"q4", "small-Q8_0.gguf": b"q8"}
    with pytest.raises(ModelNotFoundError, match=r"matches 2 files.*small-Q4_0\.gguf, small-Q8_0\.gguf"):
        source(hub, cache, gguf_file="*.gguf").fetch(NAME)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "pickled weights"),
        ({"a-Q8_0.gguf": b""}, r"1 \.gguf files: a-Q8_0\.gguf.*option gguf_file"),
        ({"README.md": b""}, r"no weights.*found README\.md"),
    ],
)
def test_repositories_without_safetensors(hub: Any, cache: Path, files: dict[str, bytes], expected: str) -> None:
    hub.files = files
    with pytest.raises(ModelNotFoundError, match=expected):
        source(hub, cache).fetch(NAME)


@pytest.mark.parametrize(
    ("refusal", "error", "expected"),
    [
        ((404, "RepoNotFound"), ModelNotFoundError, r"no model 'maker/small-model'.*Check the name"),
        ((403, "GatedRepo"), DownloadError, r"gated.*accept its terms"),
        ((403, ""), DownloadError, r"refuses access.*HTTP 403"),
        ((500, ""), DownloadError, r"HTTP 500.*Try again later"),
    ],
)
def test_refusals(hub: Any, cache: Path, refusal: tuple[int, str], error: type[Exception], expected: str) -> None:
    hub.refusal = refusal
    with pytest.raises(error, match=expected):
        source(hub, cache).fetch(NAME)


def test_no_network(hub: Any, cache: Path) -> None:
    with pytest.raises(DownloadError, match=r"could not be fetched from http://127\.0\.0\.1:9.*Check the network"):
        source(hub, cache, endpoint="http://127.0.0.1:9").fetch(NAME)


def test_a_name_that_is_none(hub: Any, cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"expected OWNER/NAME"):
        source(hub, cache).fetch("a/b/c")


def test_it_takes_no_archive(hub: Any, cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="leave --from out"):
        source(hub, cache).fetch(NAME, from_file=Path("x.whl"))


def test_an_error_without_words_is_translated_too() -> None:
    assert "RuntimeError" in str(translate(NAME, RuntimeError(), options_module.HubOptions()))
