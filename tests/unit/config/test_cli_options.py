"""The options that commands share become a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcore.config import EngineConfig
from vcore.config.cli_options import config_from_cli
from vcore.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_gives_the_defaults() -> None:
    assert config_from_cli(None) == (EngineConfig(), None)


def test_set_and_model_win_over_the_file(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "a.yaml").write_text("cache: {block_size: 8}\nmodel: {path: x, offline: true}\n", encoding="utf-8")
    config, base_dir = config_from_cli(Path("conf/a.yaml"), ["cache.block_size=16", "cache.block_size=4"], [], "y")
    assert (config.cache.block_size, config.model.path, config.model.offline) == (4, "y", True)
    assert base_dir == here / "conf"


def test_plugins_are_added_to_those_of_the_file(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "a.yaml").write_text("plugins: {load: [./mine.py], disable: [x]}\n", encoding="utf-8")
    config, _ = config_from_cli(Path("conf/a.yaml"), [], ["./mine.py", "package.module", "no:lru", "other.py"])
    assert config.plugins.load == (
        str(here / "conf" / "mine.py"),
        str(here / "mine.py"),
        "package.module",
        str(here / "other.py"),
    )
    assert config.plugins.disable == ("x", "lru")


def test_a_model_in_the_working_directory_is_that_one_and_not_the_files(here: Path) -> None:
    for folder in (here / "conf" / "m", here / "m"):
        folder.mkdir(parents=True)
    (here / "conf" / "a.yaml").write_text("model: {path: m}\n", encoding="utf-8")
    assert config_from_cli(Path("conf/a.yaml"))[0].model.path == str(here / "conf" / "m")
    assert config_from_cli(Path("conf/a.yaml"), [], [], "m")[0].model.path == str(here / "m")
    assert config_from_cli(Path("conf/a.yaml"), ["model.path=m"])[0].model.path == str(here / "m")
    assert config_from_cli(None, [], [], "hf://m")[0].model.path == "hf://m"


@pytest.mark.parametrize("name", ["~no-such-user/x", "a" * 5000, "a\0b"])
def test_names_that_no_file_can_have_stay_as_they_are(name: str) -> None:
    config, _ = config_from_cli(None, [], [f"./{name}.py"], name)
    assert config.model.path == name
    assert config.plugins.load == (str(Path.cwd() / f"{name}.py"),)
    with pytest.raises(ConfigError, match=r"no such file|cannot be read"):
        config_from_cli(Path(f"{name}.yaml"))


def test_contradictions_and_empty_plugins_are_refused() -> None:
    with pytest.raises(ConfigError, match="the model is given twice"):
        config_from_cli(None, ["model.path=a"], [], "b")
    assert config_from_cli(None, ["model.path=a"], [], "a")[0].model.path == "a"
    for empty in ("", "no:"):
        with pytest.raises(ConfigError, match="-p: found"):
            config_from_cli(None, [], [empty])


def test_errors_say_that_it_was_set() -> None:
    with pytest.raises(ConfigError, match=r"^--set: cache\.block_sise: unknown key; did you mean 'cache\.block_size'"):
        config_from_cli(None, ["cache.block_sise=3"])
