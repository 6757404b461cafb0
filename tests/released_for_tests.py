"""Small released checkpoints with random weights.

In: fields that differ from a committed `config.json`. Out: a folder as released, and what is in it.
"""

import json
from pathlib import Path

import numpy as np

from interaction.checkpoints.huggingface_config import read_config
from interaction.checkpoints.huggingface_names import Names, released_table
from interaction.checkpoints.native import ShardedWriter
from interaction.checkpoints.safetensors_file import TensorInfo

TESTDATA = Path(__file__).parent / "testdata" / "parity"


def write_released(folder: Path, like: str, text: dict, shard_bytes: int = 10**9) -> int:
    """Random float16 weights (all finite) under released names; bytes of the largest tensor.

    Args:
        folder: made.
        like: case of `TESTDATA` whose configuration is taken.
        text: fields of the text decoder's part of it.
        shard_bytes: of one file.
    """
    config = json.loads((TESTDATA / like / "config.json").read_text())
    config.get("text_config", config).update(text)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    table = released_table(read_config(folder).config, Names.RELEASED)
    layout = {n: TensorInfo(np.dtype(np.float16), r.shape) for n, r in table.items()}
    random = np.random.default_rng(0)
    with ShardedWriter(folder, layout, stem="model", max_shard_bytes=shard_bytes) as writer:
        for name, info in layout.items():
            bits = random.integers(0, 0x3C00, info.shape, np.uint16)  # below 1.0
            sign = random.integers(0, 2, info.shape, np.uint16) << 15
            writer.write(name, (bits | sign).view(np.float16))
    return max(info.nbytes for info in layout.values())
