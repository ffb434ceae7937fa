"""DeepSeek-V2 and V2-Lite (DeepSeek-AI, 2024, arXiv:2405.04434).

Latent attention, with or without a latent for queries; routed experts, chosen one by one or out of the best
groups, beside shared ones.
"""

from __future__ import annotations

from vcore.errors import UnsupportedModelError
from vcore.interfaces.model import BuildContext
from vcore.layers import GroupLimitedRouting, Routing, SoftmaxRouting, check_positive, check_sizes
from vcore_model_zoo.deepseek.model import DeepseekForCausalLM, require

__all__ = ["DeepseekV2ForCausalLM"]


class DeepseekV2ForCausalLM(DeepseekForCausalLM):
    """The ``DeepseekV2ForCausalLM`` of Hugging Face checkpoints."""

    @classmethod
    def make_routing(cls, context: BuildContext) -> Routing:
        config = context.config
        require(config, "scoring_func", "softmax")
        # `norm_topk_prob` is left out, as in transformers: it is false in all published models.
        top_k, scale = config.num_experts_per_tok, config.get("routed_scaling_factor", 1.0)
        method = config.get("topk_method") or "greedy"
        check_positive(config, routed_scaling_factor=scale)
        if method == "greedy":
            return SoftmaxRouting(top_k, scale=scale)
        if method == "group_limited_greedy":
            check_sizes(config, n_group=config.n_group, topk_group=config.topk_group)
            return GroupLimitedRouting(top_k, num_groups=config.n_group, top_groups=config.topk_group, scale=scale)
        raise UnsupportedModelError(
            f"{config.origin} has topk_method={method!r}; known are 'greedy' and 'group_limited_greedy'."
        )
