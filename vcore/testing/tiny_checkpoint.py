"""`TinyCheckpoint`: a small random model of transformers, saved as its users would find it, and what it computes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

from vcore.interfaces.hf_config import HFConfig

__all__ = ["TinyCheckpoint"]


class TinyCheckpoint:
    """A folder with ``config.json`` and safetensors files, and the reference that wrote it.

    The names of tensors are those in the files, which transformers may spell otherwise in memory.
    """

    def __init__(
        self,
        config: Any,  # a transformers configuration; the library has no types
        folder: Path,
        *,
        architecture: str | None = None,
        weight_scale: float = 0.3,
        seed: int = 0,
    ) -> None:
        """Make the model and save it.

        Args:
            config: a `transformers.PretrainedConfig`.
            folder: where to write; made if it is not there.
            architecture: what config.json shall name instead of what transformers writes.
            weight_scale: standard deviation of all weights, around the mean that transformers initialises them to
                (norms around one, say): large enough that every weight matters to the logits.
            seed: of the weights.
        """
        torch.manual_seed(seed)
        self.reference = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        """The transformers model, float32, on the CPU."""
        with torch.no_grad():
            for weight in self.reference.parameters():
                weight.copy_(torch.randn_like(weight) * weight_scale + (weight.mean() if weight.ndim == 1 else 0.0))
            stored = self.reference.state_dict()
            for name, buffer in self.reference.named_buffers():
                if name in stored and buffer.is_floating_point():
                    buffer.copy_(torch.randn_like(buffer) * weight_scale)
        self.reference.generation_config = GenerationConfig()  # no end-of-sequence tokens
        self.folder = folder
        self.reference.save_pretrained(folder)
        if architecture is not None:
            written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(json.dumps(written | {"architectures": [architecture]}))
        self.config = HFConfig(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        """What config.json says."""
        self.tensors: dict[str, torch.Tensor] = {}
        """What the files hold, by name."""
        for file in sorted(folder.glob("*.safetensors")):
            self.tensors |= load_file(file)

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        """Random token ids."""
        generator = torch.Generator().manual_seed(seed)
        text = self.config.get("text_config", self.config)
        return torch.randint(0, text.vocab_size, (length,), generator=generator).tolist()

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """The reference's logits of one whole prompt: float32 [num_tokens, vocab_size]."""
        logits: torch.Tensor = self.reference(torch.tensor([list(token_ids)])).logits[0]
        return logits

    @torch.inference_mode()
    def hidden_states(self, token_ids: Sequence[int]) -> torch.Tensor:
        """What the reference's trunk returns for one whole prompt: float32 [num_tokens, hidden_size]."""
        states: torch.Tensor = self.reference.base_model(torch.tensor([list(token_ids)])).last_hidden_state[0]
        return states

    def greedy_tokens(self, token_ids: Sequence[int], count: int) -> list[int]:
        """What the reference's ``generate`` adds to a prompt.

        It computes the whole text for each token: how its cache treats windows and rescaled positions differs between
        releases of transformers.
        """
        output = self.reference.generate(
            torch.tensor([list(token_ids)]),
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
            do_sample=False,
            use_cache=False,
            max_new_tokens=count,
            pad_token_id=0,
        )
        generated: list[int] = output[0, len(token_ids) :].tolist()
        return generated
