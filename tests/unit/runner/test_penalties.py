"""Penalties against their definition, counted incrementally over slots that are reused."""

from __future__ import annotations

import numpy as np
import torch

from vcore.runner.penalties import PenaltyTable

VOCAB = 12


def penalised(
    logits: np.ndarray, prompt: list[int], output: list[int], repetition: float, presence: float, frequency: float
) -> list[float]:
    result = []
    for token, logit in enumerate(logits.tolist()):
        if token in prompt or token in output:
            logit = logit / repetition if logit > 0 else logit * repetition
        result.append(logit - frequency * output.count(token) - presence * (token in output))
    return result


def test_counts_grow_with_tokens_and_slots_are_reused_clean() -> None:
    table = PenaltyTable(VOCAB, torch.device("cpu"))
    generator = np.random.default_rng(0)
    living: dict[int, tuple[list[int], list[int]]] = {}
    for _ in range(60):
        if living and generator.random() < 0.4:
            slot = int(generator.choice(list(living)))
            table.remove(slot)
            del living[slot]
        prompt = generator.integers(0, VOCAB, 4).tolist()
        output = generator.integers(0, VOCAB, int(generator.integers(0, 4))).tolist()
        slot = table.add(prompt, output)
        assert slot not in living
        living[slot] = (prompt, output)
        slots = generator.permutation(list(living))
        tokens = generator.integers(0, VOCAB, slots.size)
        table.record(torch.from_numpy(slots), torch.from_numpy(tokens))
        for slot, token in zip(slots.tolist(), tokens.tolist(), strict=True):
            living[slot][1].append(token)
    factors = generator.uniform(0.5, 2.0, (3, slots.size)).astype(np.float32)
    logits = generator.standard_normal((slots.size, VOCAB)).astype(np.float32)
    result = table.apply(torch.from_numpy(logits.copy()), torch.from_numpy(slots), *map(torch.from_numpy, factors))
    for i, slot in enumerate(slots.tolist()):
        expected = penalised(logits[i], *living[slot], *factors[:, i].tolist())
        assert np.allclose(result[i].numpy(), expected, atol=1e-5)
    assert table.num_slots < 2 * len(living) + 8


def test_masked_tokens_stay_masked() -> None:
    table = PenaltyTable(3, torch.device("cpu"))
    slot = torch.tensor([table.add([0], [1])])
    one = torch.tensor([1.5])
    result = table.apply(torch.full((1, 3), -torch.inf), slot, one, one, one)
    assert result.tolist() == [[-torch.inf] * 3]
