"""Entry points in which an editable install's metadata and its pyproject.toml differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vcore.config import PluginsConfig
from vcore.errors import PluginNotFoundError
from vcore.plugins import discover
from vcore.plugins.stale_metadata import StaleEntryPoint, stale_entry_points
from vcore.testing import write_distribution

PROJECT = '[project]\nname = "Acme.Zoo"\n'
Install = Callable[..., Path]


@pytest.fixture
def install(site: Path, tmp_path: Path) -> Install:
    """Installs a distribution editably from a folder with `pyproject`; returns the folder."""

    def run(
        pyproject: str | None,
        entry_points: dict[str, str] | None = None,
        *,
        name: str = "acme-zoo",
        direct_url: str | None = None,
        group: str = "vcore",
    ) -> Path:
        folder = tmp_path / "my source"
        folder.mkdir(exist_ok=True)
        if pyproject is not None:
            (folder / "pyproject.toml").write_text(pyproject, encoding="utf-8")
        write_distribution(site, name, entry_points=entry_points, group=group)
        url = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
        [info] = site.glob(f"{name.replace('-', '_')}-*.dist-info")
        (info / "direct_url.json").write_text(url if direct_url is None else direct_url, encoding="utf-8")
        return folder

    return run


def acme() -> list[StaleEntryPoint]:
    return [stale for stale in stale_entry_points() if stale.distribution == "acme-zoo"]


def test_what_is_missing_changed_and_gone_is_named_with_the_command(install: Install) -> None:
    points = '[project.entry-points.vcore]\nsame = "acme.same"\nfresh = "acme.fresh"\nmoved = "acme.new"\n'
    folder = install(PROJECT + points, {"same": "acme.same", "moved": "acme.old", "dropped": "acme.dropped"})
    assert [(stale.name, stale.value, stale.is_gone) for stale in acme()] == [
        ("fresh", "acme.fresh", False),
        ("moved", "acme.new", False),
        ("dropped", "acme.dropped", True),
    ]
    fresh, _, dropped = map(str, acme())
    remedy = f"run `pip install --no-deps --editable '{folder}'`"
    assert (
        fresh == f"acme-zoo: the entry point fresh = 'acme.fresh' in {folder}/pyproject.toml is not installed; {remedy}"
    )
    assert "is installed, and is no longer in" in dropped


def test_metadata_that_is_up_to_date_is_not_stale(install: Install) -> None:
    install(PROJECT + '[project.entry-points.vcore]\nsame = " acme.same "\n', {"same": "acme.same"})
    assert acme() == []


def test_the_first_entry_point_of_a_distribution_is_missed_too(install: Install) -> None:
    install(PROJECT + '[project.entry-points.vcore]\nfresh = "acme.fresh"\n', {"other": "x"}, group="pytest11")
    assert [stale.name for stale in acme()] == ["fresh"]


def test_a_project_without_entry_points_by_now_has_lost_its_own(install: Install) -> None:
    install(PROJECT, {"dropped": "acme.dropped"})
    assert [(stale.name, stale.is_gone) for stale in acme()] == [("dropped", True)]


@pytest.mark.parametrize(
    "pyproject",
    [
        None,
        "",
        "[project",
        "project = 3",
        "[project]\nname = 3",
        '[project]\nname = "another"\n[project.entry-points.vcore]\nfresh = "x"',
        '[project]\nname = "acme-zoo"\ndynamic = ["entry-points"]\n',
        '[project]\nname = "acme-zoo"\nentry-points = "none"',
        '[project]\nname = "acme-zoo"\n[project.entry-points]\nvcore = ["x"]',
        '[project]\nname = "acme-zoo"\n[project.entry-points.vcore]\nfresh = 3',
        '[project]\nname = "acme-zoo"\n[project.entry-points.vcore]\nfresh = "x"\n' + "#" * (1 << 20),
        '[tool.poetry.plugins.vcore]\nfresh = "acme.fresh"',
    ],
)
def test_what_cannot_be_read_is_passed_over(install: Install, pyproject: str | None) -> None:
    install(pyproject, {"same": "acme.same"})
    assert acme() == []


@pytest.mark.parametrize(
    "direct_url",
    [
        "",
        "[]",
        "{}",
        '{"url": "file:///src", "dir_info": {}}',
        '{"url": "file:///src", "dir_info": null}',
        '{"url": "https://example.org/acme", "dir_info": {"editable": true}}',
        '{"url": 3, "dir_info": {"editable": true}}',
        '{"url": "file:///no/such/folder", "dir_info": {"editable": true}}',
    ],
)
def test_only_folders_on_this_machine_are_looked_at(install: Install, direct_url: str) -> None:
    install(PROJECT + '[project.entry-points.vcore]\nfresh = "x"\n', {"same": "x"}, direct_url=direct_url)
    assert acme() == []


def test_a_file_in_latin_1_is_passed_over(install: Install) -> None:
    folder = install(PROJECT, {"same": "acme.same"})
    (folder / "pyproject.toml").write_bytes(b'[project]\nname = "acme-zoo"  # \xe9\n')
    assert acme() == []


def test_an_unknown_name_is_an_occasion_to_hint_at_it(install: Install) -> None:
    install(PROJECT + '[project.entry-points.vcore]\nfresh = "acme.fresh"\n', {"other": "x"}, group="pytest11")
    catalog = discover(PluginsConfig())
    with pytest.raises(PluginNotFoundError, match=r"entry point fresh = 'acme\.fresh'.*run `pip install"):
        catalog.find("eviction_policy", "fresh")
    with pytest.raises(PluginNotFoundError) as caught:
        catalog.find_by_key("model", "FreshForCausalLM")  # what asks so has other ways to go on
    assert "pip install --no-deps" not in str(caught.value)
