"""Random weights that make every part of a model matter.

In: a tensor's released name, its shape, a seed. Out: float32 values that are exact in the asked
16-bit type. Each tensor has its own random stream keyed by its name, so the order of drawing does
not matter and big tensors need not be stored: both the reference environment and the tests draw
them here. numpy only.
"""

import hashlib
import re
import zlib

import numpy as np

# (pattern of the name, law, a, b): uniform on [a, b] or normal with mean a and deviation b;
# "fan" divides b by the square root of the number of inputs (last axis). First match wins.
_LAWS = (
    (r"(q_norm|k_norm)\.weight$", "uniform", 1.0, 3.0),
    (r"norm[^.]*\.weight$|norm_\d+\.weight$|layernorm\.weight$", "uniform", 0.5, 1.5),
    (r"global_scale$", "uniform", 0.6, 1.4),
    (r"(gate\.bias|e_score_correction_bias)$", "normal", 0.0, 0.3),
    (r"conv(1d)?\.weight$", "normal", 0.0, 0.3),
    (r"rel_logits_proj\.proj$", "normal", 0.0, 0.5),
    (r"mlp\.gate\.weight$", "fan", 0.0, 1.5),
    (r"unembed\.weight$|lm_head\.weight$", "fan", 0.0, 3.0),
    (r"(embed|embed_tokens)\.weight$", "normal", 0.0, 1.0),
    # so small that another norm epsilon would show
    (r"encoder\.weight$", "normal", 0.0, 0.03),
    (r"(w2_weight|w2_md\.weight|down_proj(\.weight)?)$", "fan", 0.0, 2.0),
    (r"", "fan", 0.0, 1.2),
)


def to_bfloat16_exact(values: np.ndarray) -> np.ndarray:
    """float32 values rounded (half to even) to the nearest bfloat16, still float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def draw(name: str, shape: tuple[int, ...], seed: int, exact_in: str) -> np.ndarray:
    """Values of one tensor.

    Args:
        name: released name; it picks the law and the random stream.
        shape: as in the checkpoint.
        seed: of the whole checkpoint.
        exact_in: "float16" or "bfloat16".

    Returns:
        float32 array of `shape` with values exact in `exact_in`.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    _, law, a, b = next(row for row in _LAWS if re.search(row[0], name))
    if law == "uniform":
        values = rng.uniform(a, b, shape)
    else:
        deviation = b / np.sqrt(shape[-1]) if law == "fan" else b
        values = rng.normal(a, deviation, shape)
    values = values.astype(np.float32)
    if exact_in == "bfloat16":
        return to_bfloat16_exact(values)
    return values.astype(np.float16).astype(np.float32)


def checksum(tensors: dict[str, np.ndarray]) -> str:
    """One hash over all values in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name], np.float32).tobytes())
    return digest.hexdigest()
