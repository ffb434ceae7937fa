"""The real model, the reference that transformers gives, and twenty real prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vcore import LLM

REAL_PROMPTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "prompts" / "vicuna_bench.jsonl"

OWN_PROMPTS = (
    "The capital of France is",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about a lighthouse keeper.",
    "def fibonacci(n):\n    ",
    "What is the difference between a virus and a bacterium?",
    "List five uses for an old newspaper.",
    "Dear Sir or Madam, I am writing to",
    "The three laws of thermodynamics are",
    "Translate into French: Where is the railway station?",
    "If a train travels 60 miles in 1.5 hours, its average speed is",
    "Once upon a time, in a village by the sea,",
    "How do vaccines work?",
    "SELECT name, age FROM people WHERE",
    "Give me a recipe for pancakes.",
    "The Roman Empire fell because",
    "What would you say to a friend who is nervous before an exam?",
    "Water boils at",
    "Describe a sunset to somebody who has never seen one.",
    "1, 1, 2, 3, 5, 8,",
    "In the year 2150, people",
)
"""For a checkout that has no collection of prompts beside it."""


@pytest.fixture(scope="session")
def real_prompts() -> list[str]:
    """Twenty prompts: from the collection beside the checkout, or our own."""
    if not REAL_PROMPTS.exists():
        return list(OWN_PROMPTS)
    lines = REAL_PROMPTS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["turns"][0] for line in lines[:20]]


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Iterator[LLM]:
    """One engine over the real model, for tests that leave it as they find it."""
    with LLM(model=str(smollm2_path), device="cpu", config={"cache": {"num_blocks": 4096}}) as llm:
        yield llm


@pytest.fixture(scope="session")
def reference(smollm2_path: Path) -> torch.nn.Module:
    """transformers' own model, read by transformers from the same GGUF file in float32."""
    from transformers import AutoModelForCausalLM

    (gguf_file,) = smollm2_path.glob("*.gguf")
    return AutoModelForCausalLM.from_pretrained(smollm2_path, gguf_file=gguf_file.name, dtype=torch.float32).eval()
