"""`ModelContract`: what every model plugin must pass, as tests that a class inherits.

    class TestQwen3(ModelContract):
        model_type = "qwen3"

    class TestQwen3WithBiases(ModelContract):
        model_type = "qwen3"
        overrides = {"attention_bias": True, "head_dim": 20}

Each class is one case: a tiny random model that transformers makes, saves and computes, and the plugin that serves its
architecture. Cases for every feature that a checkpoint's config can switch on are what makes it a proof. Needs pytest
and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from vcore.config import load_config
from vcore.engine.llm import LLM
from vcore.errors import WeightsError
from vcore.interfaces.attention import AttentionBackend, AttentionBackendContext
from vcore.interfaces.model import BuildContext, Model
from vcore.layers.weights import WeightMap
from vcore.plugins import AttentionBackendSpec, Catalog, CatalogEntry, PluginKind, discover
from vcore.sampling_params import SamplingParams
from vcore.testing.memory_checkpoint import MemoryCheckpoint
from vcore.testing.model_driver import ModelDriver
from vcore.testing.thread_collective import ThreadCollective
from vcore.testing.tiny_checkpoint import TinyCheckpoint
from vcore.testing.wrong_weight_maps import wrong_weight_maps

__all__ = ["ModelContract"]

_TINY: Mapping[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
"""What a case's config has unless it says otherwise."""

_CHUNKS: Sequence[Mapping[str, int]] = (
    {"a": 12, "b": 1},
    {"a": 1, "b": 10, "c": 4},
    {"c": 1, "a": 1, "b": 8},
    {"a": 9, "c": 2, "b": 1},
    {"a": 7, "b": 3, "c": 2},
)
"""Tokens of three requests in five steps: first and further chunks beside single tokens."""

_NUM_GREEDY = 32


class ModelContract:
    """One case. Subclass it in a test module, under a name that begins with ``Test``."""

    model_type: ClassVar[str]
    """As transformers calls it, e.g. ``"llama"``."""
    overrides: ClassVar[Mapping[str, Any]] = {}
    """Keys of the config, over tiny defaults: two layers, hidden size 48, 6 heads, 2 key-value heads, 61 tokens,
    64 positions."""
    max_model_len: ClassVar[int] = 64
    """The longest request; the tests' have up to 62 tokens."""
    tolerance: ClassVar[float] = 1e-4
    """Relative and absolute, between our logits and those of transformers."""
    weight_scale: ClassVar[float] = 0.3
    """Standard deviation of the random weights."""
    architecture: ClassVar[str | None] = None
    """What config.json shall name, if it is not what transformers writes."""
    plugins: ClassVar[Sequence[object]] = ()
    """Plugins that are not installed: files (as `pathlib.Path`) or objects, as ``LLM(plugins=...)`` takes them."""
    attention_backend: ClassVar[str | None] = None
    """The backend's name; None for the foremost one that runs on a CPU."""
    tensor_parallel: ClassVar[tuple[int, ...]] = (2,)
    """Over how many ranks the model must split; empty for a model that does not."""
    lower_precision: ClassVar[float] = 0.98
    """How alike logits in bfloat16 must be to the reference's in float32: the mean cosine over tokens."""
    insensitive: ClassVar[tuple[str, ...]] = ()
    """Names of checkpoint tensors that logits do not depend on in this case."""

    # What a case may override

    @classmethod
    def make_config(cls) -> Any:  # a transformers configuration; the library has no types
        """The configuration of the tiny model, a `transformers.PretrainedConfig`."""
        return AutoConfig.for_model(cls.model_type, **{**_TINY, **cls.overrides})

    @classmethod
    def wrong_models(cls, model: Callable[..., Model]) -> Iterator[tuple[str, Callable[..., Model]]]:
        """Models like `model`, each with one mistake in how it maps weights, and a description of the mistake.

        By default subclasses of the model's class with another `weight_map`. Override it for a plugin that loads its
        weights in another way.
        """
        right = getattr(model, "weight_map", None)
        if not isinstance(model, type) or not isinstance(right, WeightMap):
            pytest.fail(f"{model!r} is no class with a weight_map; override {cls.__name__}.wrong_models")
        for mistake, weight_map in wrong_weight_maps(right):
            yield mistake, cast(type[Model], type("Wrong", (model,), {"weight_map": weight_map}))

    # What the tests share

    @classmethod
    def served_architecture(cls) -> str:
        """The architecture that this case is of."""
        return cls.architecture or str(MODEL_FOR_CAUSAL_LM_MAPPING[type(cls.make_config())].__name__)

    @classmethod
    def catalog(cls) -> Catalog:
        """What is installed, and the case's own plugins."""
        return discover(load_config({"plugins": cls._plugin_files()}).plugins, objects=cls._plugin_objects())

    @classmethod
    def _plugin_files(cls) -> dict[str, Any]:
        return {"load": [str(one) for one in cls.plugins if isinstance(one, Path)]}

    @classmethod
    def _plugin_objects(cls) -> list[object]:
        return [one for one in cls.plugins if not isinstance(one, Path)]

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls, tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
        """The reference, and the folder it was saved to."""
        folder = tmp_path_factory.mktemp(cls.__name__)
        return TinyCheckpoint(cls.make_config(), folder, architecture=cls.architecture, weight_scale=cls.weight_scale)

    @pytest.fixture(scope="class")
    @classmethod
    def entry(cls, tiny: TinyCheckpoint) -> CatalogEntry:
        """The plugin, found as an engine finds it."""
        (architecture,) = tiny.config.architectures
        return cls.catalog().find_by_key(PluginKind.MODEL, architecture)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, entry: CatalogEntry) -> Callable[..., Model]:
        """What the plugin's `load` names."""
        return cast(Callable[..., Model], cls.catalog().load(entry))

    @pytest.fixture(scope="class")
    @classmethod
    def attention(cls) -> Callable[..., AttentionBackend]:
        """The attention backend."""
        catalog = cls.catalog()
        if cls.attention_backend is not None:
            entry = catalog.find(PluginKind.ATTENTION_BACKEND, cls.attention_backend)
        else:
            candidates = catalog.candidates(PluginKind.ATTENTION_BACKEND)
            entry = next(one for one in candidates if _runs_on_cpu(one))
        return cast(Callable[..., AttentionBackend], catalog.load(entry))

    @pytest.fixture(scope="class")
    @classmethod
    def driver(
        cls, tiny: TinyCheckpoint, model: Callable[..., Model], attention: Callable[..., AttentionBackend]
    ) -> Callable[..., ModelDriver]:
        """Makes a `ModelDriver`; keywords replace its arguments, `model` and `tensors` what is loaded."""

        def make(
            *, model: Callable[..., Model] = model, tensors: Mapping[str, torch.Tensor] = tiny.tensors, **keywords: Any
        ) -> ModelDriver:
            settings = {"max_model_len": cls.max_model_len, **keywords}
            return ModelDriver(model, tiny.config, MemoryCheckpoint(tensors), attention=attention, **settings)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tiny: TinyCheckpoint, entry: CatalogEntry) -> Iterator[LLM]:
        """A whole engine with small blocks and small steps, on the files."""
        tree = {
            "model": {"skip_tokenizer": True, "dtype": "float32", "max_model_len": cls.max_model_len},
            "runtime": {"device": "cpu"},
            "cache": {"block_size": 4, "num_blocks": 200},
            "scheduler": {"max_num_batched_tokens": 17, "max_num_seqs": 8},
            "plugins": cls._plugin_files(),
        }
        if cls.attention_backend is not None:
            tree["attention"] = {"backend": cls.attention_backend}
        with LLM(str(tiny.folder), config=tree, plugins=cls._plugin_objects(), progress=False) as llm:
            yield llm

    @pytest.fixture(scope="class")
    @classmethod
    def prompts(cls, tiny: TinyCheckpoint) -> list[list[int]]:
        """Of several lengths up to 30, some with a beginning in common, longer than most tiny windows."""
        shared = tiny.prompt(14, seed=1)
        own = [tiny.prompt(length, seed=2 + index) for index, length in enumerate((16, 7, 9, 1))]
        return [shared + own[0], shared + own[1], own[2], own[3], shared + own[0]]

    @pytest.fixture(scope="class")
    @classmethod
    def greedy(cls, tiny: TinyCheckpoint, prompts: list[list[int]]) -> list[list[int]]:
        """What transformers generates for each prompt."""
        return [tiny.greedy_tokens(prompt, _NUM_GREEDY) for prompt in prompts]

    def close(self, logits: torch.Tensor, expected: torch.Tensor) -> None:
        """Assert that logits, [num_tokens, vocab_size], are the reference's."""
        assert expected.std() > 0.5, "the reference's logits are so small that a difference would not show"
        torch.testing.assert_close(logits, expected, rtol=self.tolerance, atol=self.tolerance)

    # The tests

    def test_the_plugin_is_found_and_builds_on_the_meta_device(
        self, tiny: TinyCheckpoint, entry: CatalogEntry, model: Callable[..., Model], attention: Any
    ) -> None:
        """By its architecture alone; building costs no memory where none is wanted."""
        assert entry.ok
        built = _build_on_meta(tiny, model, attention, self.max_model_len)
        assert {weight.device.type for weight in built.parameters()} == {"meta"}

    @pytest.mark.parametrize("block_size", [4, 16])
    def test_a_whole_prompt(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], block_size: int) -> None:
        prompt = tiny.prompt(40)
        self.close(driver(block_size=block_size).step({"a": prompt})["a"], tiny.logits(prompt))

    @pytest.mark.parametrize("block_size", [4, 16])
    def test_chunks_and_decoding_in_mixed_batches(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], block_size: int
    ) -> None:
        self._check_mixed_batches(tiny, driver(block_size=block_size))

    def test_greedy_tokens_of_each_prompt_alone(
        self, engine: LLM, prompts: list[list[int]], greedy: list[list[int]]
    ) -> None:
        """As transformers' ``generate`` gives them, from a whole engine on the saved files."""
        for prompt, expected in zip(prompts, greedy, strict=True):
            engine.reset_prefix_cache()
            [output] = _generate(engine, [prompt])
            assert output.num_cached_tokens == 0
            assert output.outputs[0].token_ids == expected

    def test_greedy_tokens_in_a_mixed_batch_with_prefix_hits(
        self, engine: LLM, prompts: list[list[int]], greedy: list[list[int]]
    ) -> None:
        """Chunked prefill beside decoding, with beginnings of prompts taken from the cache."""
        engine.reset_prefix_cache()
        for _ in range(2):
            outputs = _generate(engine, prompts)
            assert [output.outputs[0].token_ids for output in outputs] == greedy
            assert any(output.num_cached_tokens > 0 for output in outputs)

    def test_a_wrong_weight_mapping_shows(
        self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver], model: Callable[..., Model]
    ) -> None:
        """Every mistake changes the logits by far more than the tolerance, or is refused while loading."""
        prompt = tiny.prompt(20)
        shown = 0
        for mistake, wrong in self.wrong_models(model):
            try:
                logits = driver(model=wrong).step({"a": prompt})["a"]
            except WeightsError:
                continue  # the shapes told
            shown += 1
            assert (logits - tiny.logits(prompt)).abs().max() > 100 * self.tolerance, mistake
        assert shown, "every wrong mapping was refused; give wrong_models one that loads"

    def test_every_tensor_counts(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]) -> None:
        """Another tensor of the checkpoint gives other logits: none is read and forgotten."""
        prompt = tiny.prompt(24)
        right = driver().step({"a": prompt})["a"]
        for name, tensor in tiny.tensors.items():
            if name not in self.insensitive:
                other = driver(tensors={**tiny.tensors, name: tensor.roll(1, 0) + 0.3}).step({"a": prompt})["a"]
                assert (other - right).abs().max() > 10 * self.tolerance, name

    def test_a_missing_or_surplus_tensor_is_named(
        self, tiny: TinyCheckpoint, model: Callable[..., Model], attention: Any
    ) -> None:
        built = _build_on_meta(tiny, model, attention, self.max_model_len)
        for name in tiny.tensors:
            tensors = {other: tensor for other, tensor in tiny.tensors.items() if other != name}
            with pytest.raises(WeightsError) as caught:
                built.load_weights(MemoryCheckpoint(tensors))
            assert name in str(caught.value)
        with pytest.raises(WeightsError, match=r"model\.never_heard_of\.weight"):
            built.load_weights(MemoryCheckpoint({**tiny.tensors, "model.never_heard_of.weight": torch.zeros(1)}))

    def test_several_ranks_give_what_one_gives(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]) -> None:
        for size in self.tensor_parallel:

            def run_rank(rank: int, collective: ThreadCollective, size: int = size) -> None:
                self._check_mixed_batches(tiny, driver(tp_rank=rank, tp_size=size, collective=collective))

            ThreadCollective.run(size, run_rank)

    def test_lower_precision_stays_near(self, tiny: TinyCheckpoint, driver: Callable[..., ModelDriver]) -> None:
        prompt = tiny.prompt(30)
        logits = driver(dtype=torch.bfloat16).step({"a": prompt})["a"]
        assert logits.dtype == torch.bfloat16
        assert torch.cosine_similarity(logits.float(), tiny.logits(prompt)).mean() > self.lower_precision

    def _check_mixed_batches(self, tiny: TinyCheckpoint, driver: ModelDriver) -> None:
        names = sorted({name for step in _CHUNKS for name in step})
        lengths = {name: sum(step.get(name, 0) for step in _CHUNKS) for name in names}
        prompts = {name: tiny.prompt(lengths[name], seed) for seed, name in enumerate(names)}
        done = dict.fromkeys(names, 0)
        got: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        for step in _CHUNKS:
            tokens = {name: prompts[name][done[name] : done[name] + count] for name, count in step.items()}
            for name, logits in driver.step(tokens).items():
                got[name].append(logits)
                done[name] += step[name]
        for name, prompt in prompts.items():
            self.close(torch.cat(got[name]), tiny.logits(prompt))


def _runs_on_cpu(entry: CatalogEntry) -> bool:
    spec = entry.spec
    return isinstance(spec, AttentionBackendSpec) and bool({"cpu", "*"} & set(spec.capabilities.devices))


def _generate(engine: LLM, prompts: list[list[int]]) -> list[Any]:
    params = SamplingParams(temperature=0.0, max_tokens=_NUM_GREEDY, ignore_eos=True)
    return list(engine.generate(prompts, params, use_tqdm=False))


def _build_on_meta(
    tiny: TinyCheckpoint, model: Callable[..., Model], attention: Callable[..., AttentionBackend], max_model_len: int
) -> Model:
    backend = attention(
        options=None,
        context=AttentionBackendContext(
            device=torch.device("cpu"),
            dtype=torch.float32,
            block_size=16,
            max_num_seqs=4,
            max_num_batched_tokens=64,
            max_model_len=max_model_len,
        ),
    )
    context = BuildContext(
        config=tiny.config,
        dtype=torch.float32,
        device=torch.device("meta"),
        attention=backend,
        max_model_len=max_model_len,
    )
    return model(options=None, context=context)
