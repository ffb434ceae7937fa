"""A hub of our own on this machine, and wheels that carry a small model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vcore_model_zoo.sources import pypi_models
from vcore_model_zoo.sources.pypi_models import PackagedModel

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


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that carries a model, as the registry knows it."""

    model: PackagedModel
    content: bytes

    def write_wheel(self, folder: Path, *, content: bytes | None = None, member: str | None = None) -> Path:
        """Its wheel, or one that is wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / "vcore_test_tiny_model-1.0-py3-none-any.whl"
        info = "vcore_test_tiny_model-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member or self.model.member, self.content if content is None else content)
            archive.writestr("../escaped.txt", "what extracting everything would write elsewhere")
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: vcore-test-tiny-model\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return wheel


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    """Known to the registry as the model ``tiny``."""
    model = PackagedModel(
        distribution="vcore-test-tiny-model",
        version="1.0",
        member="tiny_model/tiny.gguf",
        num_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        wheel_bytes=2000,
    )
    monkeypatch.setitem(pypi_models.MODELS, "tiny", model)
    return Package(model, CONTENT)
