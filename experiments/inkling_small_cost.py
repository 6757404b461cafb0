"""What the fine-tune of Inkling-Small costs, computed.

Question: how many chips hold each stage of `configs/inkling_small_finetune.py`, how many bytes does
a process read at the start, and how many chip-hours does an hour of conversation take in training?
Command: python -m experiments.inkling_small_cost
Cost: seconds; nothing is compiled.
Expectation: a frozen backbone fits 8 chips of 96 GB where training everything takes more than 64.
Finding: `inkling_small_cost.json` beside this file. All of it is computed, nothing was measured.

Formulas (P parameters, A of them used by one slot, T of these that train, S slots):
- memory of a stage, without activations: `FROZEN_BYTES` for each frozen parameter, `TRAINED_BYTES`
  for each that trains; a slice must hold it in `USABLE` of its memory, in a power of two of chips;
- activations kept between layers: S x layers x width x 2 bytes on each chip (S slots of its batch);
- operations of a slot: 2 A forward, 2 A again where layers are recomputed, 2 A backward to the
  layers below (the tags, the control tokens and the own-speech stem lie below the backbone, so no
  stage is spared it), 2 T for gradients of weights; attention adds
  4 x heads x head width x (slots seen) per layer for each of the first three;
- chip-hours: operations / (peak x utilisation) / 3600, peaks from `kernels.implementation.CHIPS`.
"""

import argparse
import json
import math
import pathlib

from configs import inkling_small_finetune
from interaction import configuration
from interaction.checkpoints.native import flatten
from interaction.kernels.implementation import CHIPS
from interaction.microturn import MICRO_TURN_SECONDS
from interaction.models.config import AttentionKind, InteractionConfig
from interaction.models.parameters import abstract_params
from interaction.train import optimizer
from interaction.train.optimizer import OptimizerConfig

HERE = pathlib.Path(__file__).parent
# Main memory of a device as JAX sees it, bytes: the makers' pages (cloud.google.com/tpu/docs,
# NVIDIA's H200 data sheet).
MEMORY = {"v5e": 16 << 30, "v5p": 95 << 30, "v6e": 32 << 30, "tpu7x": 96 << 30, "h200": 141e9}
USABLE = 0.8
FROZEN_BYTES = 2  # bfloat16, as released
# float32: itself, running mean, two moments, sum of the parts' gradients; bfloat16: its copy in the
# step and the gradient of one part.
TRAINED_BYTES = 4 + 4 + 8 + 4 + 2 + 2
CONTEXT = 8192  # slots of a training sequence
SLOTS_ON_A_CHIP = 8192
UTILISATION = (0.2, 0.4)
PROCESSES = (1, 4, 16, 64)
# Slots of a micro-turn: heard sound, BEGIN and closer; while speaking own speech and a token more.
SPEAKING_SHARE = 0.4


def sizes(arg: str) -> dict[str, float]:
    """Parameters of a stage: all, trained, used by one slot, trained of those used."""
    values = inkling_small_finetune.get_config(arg).to_dict()
    model = configuration.build(InteractionConfig, values["model"])
    rule = configuration.build(OptimizerConfig, values["optimizer"])
    stack = model.transformer
    found = {"all": 0.0, "trained": 0.0, "active": 0.0, "active_trained": 0.0}
    for path, leaf in flatten(abstract_params(model)).items():
        size = math.prod(leaf.shape)
        routed = path.startswith("transformer/moe/") and path.split("/")[-1] in (
            "gate",
            "up",
            "down",
        )
        used = size * (stack.experts_per_slot / stack.experts if routed else 1)
        table = path == "transformer/embed/table" or path.startswith(("audio", "vision", "vocoder"))
        trains = not optimizer.frozen(rule, path) and not path.startswith("vocoder")
        found["all"] += size
        found["active"] += 0 if table else used
        found["trained"] += size if trains else 0
        found["active_trained"] += used if trains and not table else 0
    return found


def operations(model: InteractionConfig, size: dict[str, float]) -> float:
    """Of one slot in training, layers recomputed."""
    attention = 0.0
    for kind in AttentionKind:
        heads = model.transformer.attention(kind)
        seen = min(heads.window or CONTEXT, CONTEXT) if heads.window else CONTEXT / 2
        attention += model.transformer.count(kind) * 4 * heads.heads * heads.head_width * seen
    return 3 * (2 * size["active"] + attention) + 2 * size["active_trained"]


def stage(arg: str) -> dict:
    """One row of the table."""
    values = inkling_small_finetune.get_config(arg).to_dict()
    model = configuration.build(InteractionConfig, values["model"])
    size = sizes(arg)
    frozen = size["all"] - size["trained"]
    memory = FROZEN_BYTES * frozen + TRAINED_BYTES * size["trained"]
    stack = model.transformer
    activations = SLOTS_ON_A_CHIP * stack.layers * stack.width * 2
    per_slot = operations(model, size)
    speech = model.speech_slots + 1
    slots = model.grid.audio_frames + 2 + SPEAKING_SHARE * speech
    hour = slots * 3600 / MICRO_TURN_SECONDS
    slices = {}
    for name, chip in CHIPS.items():
        room = USABLE * MEMORY[name] - activations
        chips = 2 ** math.ceil(math.log2(memory / room))
        hours = {
            f"{share:.0%}": round(hour * per_slot / (chip.flops_per_second * share) / 3600, 4)
            for share in UTILISATION
        }
        slices[name] = {"fewest_devices": chips, "device_hours_per_conversation_hour": hours}
    return {
        "trains": arg or "default",
        "parameters_billion": {name: round(value / 1e9, 3) for name, value in size.items()},
        "memory_without_activations_GB": round(memory / 1e9, 1),
        "activations_GB_per_device": round(activations / 1e9, 2),
        "operations_per_slot": per_slot,
        "slots_per_conversation_hour": round(hour),
        "devices": slices,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "inkling_small_cost.json")
    options = parser.parse_args()
    rows = [stage(arg) for arg in inkling_small_finetune.STAGES]
    backbone = sizes("new")["all"] * 2
    result = {
        "kind": "computed, nothing was measured; formulas in inkling_small_cost.py",
        "assumed": {
            "usable_share_of_memory": USABLE,
            "slots_of_a_sequence": CONTEXT,
            "slots_on_a_device": SLOTS_ON_A_CHIP,
            "speaking_share": SPEAKING_SHARE,
            "bytes_of_a_frozen_parameter": FROZEN_BYTES,
            "bytes_of_a_trained_parameter": TRAINED_BYTES,
        },
        "read_at_the_start_GB_per_process": {
            str(n): round(backbone / n / 1e9, 1) for n in PROCESSES
        },
        "stages": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
