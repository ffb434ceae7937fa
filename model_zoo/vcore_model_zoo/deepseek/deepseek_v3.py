"""DeepSeek-V3 and R1 (DeepSeek-AI, 2024, arXiv:2412.19437).

DeepSeek-V2 with sigmoid scores, and a bias an expert that balances the load. The modules that predict further
tokens (section 2.2), which checkpoints have after the last layer, are not loaded.
"""

from __future__ import annotations

from dataclasses import replace

from vcore.interfaces.model import BuildContext
from vcore.interfaces.weights import CheckpointReader
from vcore.layers import Routing, SigmoidRouting, check_positive, check_sizes, load_weights
from vcore_model_zoo.deepseek.model import DeepseekForCausalLM, require

__all__ = ["DeepseekV3ForCausalLM"]


class DeepseekV3ForCausalLM(DeepseekForCausalLM):
    """The ``DeepseekV3ForCausalLM`` of Hugging Face checkpoints."""

    def __init__(self, *, options: None, context: BuildContext) -> None:
        super().__init__(options=options, context=context)
        config = context.config
        first, count = config.num_hidden_layers, config.get("num_nextn_predict_layers") or 0
        if count:
            check_sizes(config, num_nextn_predict_layers=count)
        self._prediction_modules = tuple(f"model.layers.{index}.*" for index in range(first, first + count))

    @classmethod
    def make_routing(cls, context: BuildContext) -> Routing:
        config = context.config
        require(config, "scoring_func", "sigmoid")
        require(config, "topk_method", "noaux_tc")
        scale = config.get("routed_scaling_factor", 2.5)  # of the published model, which transformers takes, too
        check_positive(config, routed_scaling_factor=scale)
        return SigmoidRouting(
            context,
            num_experts=config.n_routed_experts,
            top_k=config.num_experts_per_tok,
            num_groups=config.get("n_group") or 1,
            top_groups=config.get("topk_group") or 1,
            renormalize=config.get("norm_topk_prob", True),
            scale=scale,
        )

    def load_weights(self, checkpoint: CheckpointReader) -> None:
        ignored = (*self.weight_map.ignored, *self._prediction_modules)
        load_weights(self, checkpoint, replace(self.weight_map, ignored=ignored))
