"""ATen operators with a softmax in them: where their operands are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SOFTMAXES = frozenset({"_softmax", "_log_softmax", "_safe_softmax"})
"""They normalise along the axis which is their second argument."""

ATTENTIONS = {
    "_scaled_dot_product_flash_attention_for_cpu": 4,
    "_scaled_dot_product_flash_attention": 4,
    "_scaled_dot_product_efficient_attention": 6,
    "_scaled_dot_product_cudnn_attention": 6,
    "_scaled_dot_product_attention_math": 5,
    "scaled_dot_product_attention": 5,
}
"""They read queries, keys and values; by the place of ``is_causal`` among their arguments."""


def attended(name: str, a: Sequence[Any], k: dict[str, Any]) -> tuple[Any, Any, Any, bool, float | None]:
    """(query, key, mask, causal, scale) of the attention ``name``."""
    place = ATTENTIONS[name]
    causal = k.get("is_causal", a[place] if len(a) > place else False)
    return a[0], a[1], mask_of(a, k), bool(causal), k.get("scale")


def mask_of(a: Sequence[Any], k: dict[str, Any]) -> Any:
    """What is added to an attention's logits; None where nothing is."""
    mask = k.get("attn_mask", k.get("attn_bias", a[3] if len(a) > 3 else None))
    return mask if hasattr(mask, "shape") else None
