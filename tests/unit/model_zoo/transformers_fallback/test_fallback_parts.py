"""What the fallback refuses by looking at a config, a mask or modules, and how it finds a decoder and a head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import and_masks, causal_mask_function, or_masks
from vcore_model_zoo.transformers_fallback.describe import describe
from vcore_model_zoo.transformers_fallback.hf_class import causal_lm_class, check_length, transformers_config
from vcore_model_zoo.transformers_fallback.logits_head import LogitsHead, decoder_path
from vcore_model_zoo.transformers_fallback.model import TransformersModel
from vcore_model_zoo.transformers_fallback.paged_attention import STEP
from vcore_model_zoo.transformers_fallback.probe import AttentionProbe, probe_attention, window_of_mask

from vcore.engine.outline import RecordingAttention
from vcore.errors import ConfigError, UnsupportedModelError
from vcore.interfaces.hf_config import HFConfig
from vcore.interfaces.model import BuildContext

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}


def config_of(model_type: str, **changes: Any) -> HFConfig:
    made = AutoConfig.for_model(model_type, **SIZES)
    name = AutoModelForCausalLM._model_mapping[type(made)].__name__
    return HFConfig(made.to_dict() | {"architectures": [name]} | changes)


# Configs


@pytest.mark.parametrize("model_type", [None, 3, "abacus"])
def test_a_model_type_that_transformers_does_not_have_is_told(model_type: object) -> None:
    with pytest.raises(UnsupportedModelError, match=f"found model_type {model_type!r}, which transformers 5"):
        transformers_config(HFConfig({"model_type": model_type}))


def test_values_that_transformers_refuses_are_told() -> None:
    with pytest.raises(UnsupportedModelError, match=r"refuses the values: .*hidden_size"):
        transformers_config(config_of("gpt_neox", hidden_size="large"))


def test_the_config_is_not_changed() -> None:
    given = config_of("gpt_neox")
    before = repr(given)
    transformers_config(given)
    assert repr(given) == before


def test_code_of_the_checkpoint_is_not_run() -> None:
    """`auto_map` names some; without a model_type that transformers has, that is the end of it."""
    with pytest.raises(UnsupportedModelError, match="code that comes with a checkpoint is not run"):
        transformers_config(HFConfig({"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (config_of("gpt_neox", architectures=["GPTNeoXForTokenClassification"]), "for model_type 'gpt_neox' is GPTNeo"),
        (
            HFConfig({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}),
            "has no causal language model",
        ),
        (HFConfig({"model_type": "whisper"}), "WhisperForCausalLM cannot run over a paged cache: it has an encoder"),
        (HFConfig({"model_type": "gemma3"}), r"it takes more than text \(vision_config\)"),
        (config_of("mamba"), "it keeps a state beside, or instead of"),
    ],
)
def test_classes_that_are_no_plain_language_models_are_refused(config: HFConfig, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        causal_lm_class(config, transformers_config(config))


def test_a_config_without_architectures_goes_by_its_model_type() -> None:
    config = HFConfig({key: value for key, value in config_of("phi").items() if key != "architectures"})
    assert causal_lm_class(config, transformers_config(config)).__name__ == "PhiForCausalLM"


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 64),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}, 16),
        ({"rope_type": "yarn", "factor": 4.0}, None),
        (None, None),
    ],
)
def test_lengths_at_which_angles_depend_on_the_batch_are_refused(
    scaling: dict[str, Any] | None, limit: int | None
) -> None:
    config = AutoConfig.for_model("starcoder2", **SIZES, max_position_embeddings=64)
    nested = {"full_attention": scaling} if limit == 16 else scaling
    if scaling is not None:
        config.rope_parameters = nested
        if limit == 16:
            config.original_max_position_embeddings = 16
    check_length(config, limit or 10_000)
    if limit is not None:
        with pytest.raises(ConfigError, match=f"Set model.max_model_len to {limit} or less"):
            check_length(config, limit + 1)


def test_keys_that_the_engine_reads_are_completed_from_the_class() -> None:
    sparse = HFConfig({"model_type": "phi", "architectures": ["PhiForCausalLM"]})
    completed = TransformersModel.complete_config(sparse)
    assert (completed.vocab_size, completed.max_position_embeddings) == (51200, 2048)
    assert TransformersModel.complete_config(completed) is completed


def test_ranks_cannot_share_it() -> None:
    context = BuildContext(
        config=config_of("phi"),
        dtype=torch.float32,
        device=torch.device("meta"),
        attention=RecordingAttention(),
        max_model_len=8,
        tp_size=2,
    )
    with pytest.raises(ConfigError, match="tensor_parallel_size is 2, but transformers' modules are not split"):
        TransformersModel(options=None, context=context)


# Masks


def window(size: int) -> Callable[..., Any]:
    return and_masks(causal_mask_function, lambda batch, head, query, key: key > query - size)


def chunk(size: int) -> Callable[..., Any]:
    return and_masks(causal_mask_function, lambda batch, head, query, key: key // size == query // size)


@pytest.mark.parametrize("size", [1, 2, 4096, 131_072])
def test_the_window_of_a_mask_is_found(size: int) -> None:
    assert window_of_mask(window(size)) == size


def test_a_causal_mask_has_no_window() -> None:
    assert window_of_mask(causal_mask_function) is None


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (or_masks(causal_mask_function, lambda batch, head, query, key: key >= 0), "is not causal"),
        (chunk(8192), "depends on where a token stands"),
        (and_masks(causal_mask_function, lambda batch, head, query, key: (key < 4) | (key > query - 9)), "has gaps"),
    ],
)
def test_other_masks_are_told_apart(mask: Callable[..., Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        window_of_mask(mask)


# Layers


def ask(probe: AttentionProbe, index: object = 0, **arguments: Any) -> torch.Tensor:
    """One call of attention: 4 heads of queries and 2 of keys, 6 features, values of 10."""
    module = nn.Module()
    module.layer_idx = index  # type: ignore[assignment]
    query, key, value = torch.empty(1, 4, 3, 6), torch.empty(1, 2, 3, 6), torch.empty(1, 2, 3, 10)
    mask = arguments.pop("attention_mask", None)
    return probe_attention(module, query, key, value, mask, **{STEP: probe, **arguments})[0]


def test_a_layer_is_what_its_call_says() -> None:
    probe = AttentionProbe("Tiny")
    out = ask(probe, scaling=0.5, softcap=30.0, sliding_window=7, dropout=0.0, position_ids=torch.empty(1, 3))
    assert out.shape == (1, 3, 4, 10)
    spec = probe.layers[0]
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (4, 2, 10)  # the larger of both, to pad the other to
    assert (spec.scale, spec.soft_cap, spec.sliding_window) == (0.5, 30.0, 7)
    ask(probe, 1)
    assert probe.layers[1].scale == 6**-0.5
    assert probe.layers[1].sliding_window is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"index": None}, "no layer_idx"),
        ({"is_causal": False}, "not causal"),
        ({"s_aux": torch.empty(4), "position_bias": torch.empty(4)}, "gets position_bias, s_aux"),
        ({"attention_mask": torch.empty(1, 1, 3, 3)}, "a mask of the model's own making"),
    ],
)
def test_a_layer_that_asks_for_more_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"Tiny cannot run over a paged cache: .*{reason}"):
        ask(AttentionProbe("Tiny"), **arguments)


def test_a_layer_has_one_cache() -> None:
    probe = AttentionProbe("Tiny")
    ask(probe)
    with pytest.raises(UnsupportedModelError, match="layer 0 computes attention twice"):
        ask(probe)


def test_a_model_that_keeps_the_arguments_to_itself_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="does not hand the keyword arguments"):
        ask(AttentionProbe("Tiny"), **{STEP: None})


class Convolving(nn.Module):
    """A feed-forward network that looks at the neighbours of a token."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, size, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.mT).mT


class Lazy(nn.Module):
    """Attention that is not computed."""

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return hidden_states, None


def described(change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, **sizes: Any) -> None:
    """Describe a Llama whose modules `change` has changed."""
    made = AutoConfig.for_model("llama", **SIZES | sizes)
    model_class = AutoModelForCausalLM._model_mapping[type(made)]

    class Changed(model_class):  # type: ignore[misc, valid-type]  # no types there
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            change(self)

    monkeypatch.setattr(
        AutoModelForCausalLM, "from_config", lambda config, **kwargs: Changed._from_config(config, **kwargs)
    )
    describe(Changed, made, torch.float32, SIZES["vocab_size"])


def test_what_mixes_tokens_outside_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.model.layers[1].mlp = Convolving(32)

    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.1\.mlp\.conv is a convolution"):
        described(change, monkeypatch)


def test_layers_without_attention_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.model.layers[1].self_attn = Lazy()

    with pytest.raises(UnsupportedModelError, match=r"1 of its 2 layers compute no .*\(the first is layer 1\)"):
        described(change, monkeypatch)


def test_layers_beyond_those_stated_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.model.layers[1].self_attn.layer_idx = 5
        model.config.num_hidden_layers = 2

    with pytest.raises(UnsupportedModelError, match="1 of its 2 layers"):
        described(change, monkeypatch)


def test_a_head_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.lm_head = nn.Linear(32, 41, bias=False)

    with pytest.raises(UnsupportedModelError, match=r"logits of shape \[2, 41\] instead of \[2, 40\]"):
        described(change, monkeypatch)


def test_what_raises_without_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.model.norm.register_forward_hook(lambda *args: args[-1].sum().item())

    with pytest.raises(UnsupportedModelError, match="running it without memory raised RuntimeError"):
        described(change, monkeypatch)


# Heads


@pytest.mark.parametrize(
    ("model_type", "path"),
    [("llama", "model"), ("gpt2", "transformer"), ("opt", "model.decoder"), ("modernbert-decoder", "model")],
)
def test_the_head_is_what_comes_behind_the_decoder(model_type: str, path: str) -> None:
    more: dict[str, Any] = {"word_embed_proj_dim": 32, "ffn_dim": 8} if model_type == "opt" else {}
    sizes = SIZES | {"pad_token_id": 0} | more
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).eval()
    assert decoder_path(model) == path
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        hidden_states = model.get_submodule(path)(input_ids=ids, use_cache=False).last_hidden_state[0]
        logits = LogitsHead(model)(hidden_states)
        torch.testing.assert_close(logits, model(ids, use_cache=False).logits[0])


def test_the_head_scales_as_the_model_does_and_shares_its_weights() -> None:
    config = AutoConfig.for_model("cohere", **SIZES, logit_scale=3.0)
    model = AutoModelForCausalLM.from_config(config).eval()
    head = LogitsHead(model)
    rows = torch.randn(5, 32)
    with torch.no_grad():
        torch.testing.assert_close(head(rows), 3.0 * rows @ model.lm_head.weight.T)
        model.lm_head.weight.mul_(2.0)
        torch.testing.assert_close(head(rows), 3.0 * rows @ model.lm_head.weight.T)
        assert model(torch.tensor([[1, 2]]), use_cache=False).logits.shape == (1, 2, 40)  # its own decoder is there
