"""Runs one case in `transformers`.

In: a `Case`. Out: its checkpoint (released names, drawn by `weights.draw`) and its golden arrays:
inputs, float32 logits and the embeddings of audio frames and image patches.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from cases import Case
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from weights import draw

_TORCH_DTYPE = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _model_class(case: Case):
    multimodal = case.config["model_type"] == "inkling_mm_model"
    return AutoModelForImageTextToText if multimodal else AutoModelForCausalLM


def checkpoint_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Released names and shapes: what `save_pretrained` writes, and the weights that only the
    released checkpoints have (multi-token prediction)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "config.json").write_text(json.dumps(case.config))
        config = AutoConfig.from_pretrained(path)
        _model_class(case).from_config(config).save_pretrained(path)
        with safe_open(path / "model.safetensors", "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    text = case.config.get("text_config", case.config)
    width = text["hidden_size"]
    for layer in range(case.mtp_layers):
        prefix = f"model.mtp.layers.{layer}"
        shapes[f"{prefix}.embed_norm.weight"] = (width,)
        shapes[f"{prefix}.hidden_norm.weight"] = (width,)
        shapes[f"{prefix}.input_proj.weight"] = (width, 2 * width)
        block = "model.llm.layers.0."  # a dense layer, as every layer of this part is
        for name in [n for n in shapes if n.startswith(block)]:
            shapes[f"{prefix}.transformer_block.{name.removeprefix(block)}"] = shapes[name]
    return dict(sorted(shapes.items()))


def write_checkpoint(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """config.json and model.safetensors; returns the drawn weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: draw(name, shape, case.seed, case.exact_in)
        for name, shape in checkpoint_shapes(case).items()
    }
    stored = {n: torch.from_numpy(v).to(_TORCH_DTYPE[case.exact_in]) for n, v in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    return tensors


def make_inputs(case: Case) -> dict[str, np.ndarray]:
    """Token ids with placeholders for audio frames and patches, the payloads, the padding mask."""
    rng = np.random.default_rng([case.seed, 7])
    text = case.config.get("text_config", case.config)
    rows, longest = len(case.lengths), max(case.lengths)
    tokens = rng.integers(7, text["vocab_size"], (rows, longest))
    valid = np.arange(longest) < np.array(case.lengths)[:, None]
    tokens[~valid] = 0
    starts = [2] * rows

    def place(count: int, item: int, token: int) -> None:
        row = item % rows
        tokens[row, starts[row] : starts[row] + count] = token
        starts[row] += count + 2
        if starts[row] > case.lengths[row]:
            raise ValueError(f"row {row} of {case.lengths[row]} tokens is too short")

    out = {"tokens": tokens, "valid": valid}
    for item, frames in enumerate(case.audio_frames):
        place(frames, item, case.config["audio_token_id"])
    for item, patches in enumerate(case.patches):
        place(patches, item, case.config["image_token_id"])
    if case.audio_frames:
        audio = case.config["audio_config"]
        shape = (len(case.audio_frames), max(case.audio_frames))
        out["audio"] = rng.integers(0, audio["mel_vocab_size"], (*shape, audio["n_mel_bins"]))
        out["audio_valid"] = np.arange(shape[1]) < np.array(case.audio_frames)[:, None]
        order = np.argsort(np.arange(shape[0]) % rows, kind="stable")  # row by row, as placed
        out["audio"], out["audio_valid"] = out["audio"][order], out["audio_valid"][order]
    if case.patches:
        vision = case.config["vision_config"]
        size, frames = vision["patch_size"], vision["temporal_patch_size"]
        shape = (sum(case.patches), frames, size, size, 3)
        out["pixels"] = rng.normal(0, 1, shape).astype(np.float16).astype(np.float32)
    return out


def run_case(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """Loads the checkpoint in `folder` and runs it; golden arrays by name."""
    model, report = _model_class(case).from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            raise ValueError(f"{problem}: {sorted(report[problem])}")
    model.eval()
    inputs = make_inputs(case)
    keywords = {
        "input_ids": torch.from_numpy(inputs["tokens"]),
        "attention_mask": torch.from_numpy(inputs["valid"].astype(np.int64)),
    }
    if "audio" in inputs:
        keywords["audio_input_ids"] = torch.from_numpy(inputs["audio"])
        keywords["audio_input_ids_mask"] = torch.from_numpy(inputs["audio_valid"])
    if "pixels" in inputs:
        keywords["pixel_values"] = torch.from_numpy(inputs["pixels"])
    margins = _watch_router(model)
    out = dict(inputs)
    with torch.no_grad():
        out["logits"] = model(**keywords, use_cache=False).logits.numpy()
        if "audio" in inputs:
            features = model.model.get_audio_features(
                keywords["audio_input_ids"], keywords["audio_input_ids_mask"]
            )
            out["audio_embeddings"] = features.last_hidden_state.numpy()
        if "pixels" in inputs:
            features = model.model.get_image_features(keywords["pixel_values"])
            out["patch_embeddings"] = features.last_hidden_state[:, 0].numpy()
    out["router_margin"] = np.array(min(margins, default=np.inf), np.float32)
    return {name: _compact(value) for name, value in out.items()}


def _watch_router(model) -> list[float]:
    """Collects, per router call, the smallest gap between the last chosen and the first
    unchosen score: a tie would make the comparison meaningless."""
    gaps: list[float] = []

    def hook(router, arguments, _):
        flat = arguments[0].reshape(-1, router.hidden_dim)
        logits = torch.nn.functional.linear(flat.float(), router.weight.float())
        scores = logits[:, : router.num_experts].sigmoid() + router.e_score_correction_bias
        ordered = scores.sort(dim=-1, descending=True).values
        gaps.append(float((ordered[:, router.top_k - 1] - ordered[:, router.top_k]).min()))

    for module in model.modules():
        if type(module).__name__ == "InklingTopkRouter":
            module.register_forward_hook(hook)
    return gaps


def _compact(value: np.ndarray) -> np.ndarray:
    """Small types for storage: ids as int16 or uint8, masks as bool; floats stay float32."""
    if value.dtype == np.int64:
        return value.astype(np.uint8 if value.max() < 256 else np.int32)
    return value
