"""Registers the attention backends of the flash-attn library, one a major version: they install side by side."""

from __future__ import annotations

from collections.abc import Sequence

from vcore.plugins import AttentionBackendSpec, AttentionCapabilities, hookimpl

__all__ = ["vcore_attention_backends"]

_FEATURES = frozenset({"sliding_window", "soft_cap", "non_causal"})


@hookimpl
def vcore_attention_backends() -> Sequence[AttentionBackendSpec]:
    """Three backends, all behind vcore's own kernels in rank."""
    return [_version_2(), _version_3(), _version_4()]


def _version_2() -> AttentionBackendSpec:
    return AttentionBackendSpec(
        name="flash_attn",
        load="vcore_backends.flash_attn.backend:FlashAttention2Backend",
        api="1.0",
        summary="flash-attn 2: its paged kernels, which want blocks of a multiple of 256 tokens",
        # On an H100 it decodes as fast as triton_paged and computes prompts at four fifths of its speed.
        rank=20,
        requires=("flash-attn>=2.8,<3",),
        capabilities=AttentionCapabilities(
            devices=("cuda",),
            # float16 and other sizes of heads are left out: builds narrowed to what is here compute them wrongly, and
            # say nothing.
            dtypes=("bfloat16",),
            head_dims=(64, 128, 256),
            block_sizes=(256,),
            features=_FEATURES,
            graph_support="decode",
            min_compute_capability=(8, 0),
        ),
    )


def _version_3() -> AttentionBackendSpec:
    return AttentionBackendSpec(
        name="flash_attn_3",
        load="vcore_backends.flash_attn.backend:FlashAttention3Backend",
        api="1.0",
        summary="flash-attn 3, for Hopper: one paged kernel for blocks of any size",
        rank=25,
        requires=("flash-attn-3>=3.0.0b1",),
        capabilities=AttentionCapabilities(
            devices=("cuda",),
            dtypes=("bfloat16", "float16"),
            head_dims=(64, 96, 128, 192, 256),
            block_sizes=(16,),
            features=_FEATURES,
            graph_support="decode",
            min_compute_capability=(9, 0),
        ),
    )


def _version_4() -> AttentionBackendSpec:
    return AttentionBackendSpec(
        name="flash_attn_4",
        load="vcore_backends.flash_attn.backend:FlashAttention4Backend",
        api="1.0",
        summary="flash-attn 4, for Hopper and Blackwell: kernels compiled when first needed",
        rank=15,
        requires=("flash-attn-4>=4.0.0b36",),
        capabilities=AttentionCapabilities(
            devices=("cuda",),
            dtypes=("bfloat16", "float16"),
            head_dims=(64, 96, 128),
            block_sizes=(16,),
            features=_FEATURES,
            min_compute_capability=(9, 0),
        ),
    )
