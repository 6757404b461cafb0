"""Writes (or, with --check, verifies) the golden values of `tests/testdata/parity`.

In: nothing but seeds and the clips of `tests/testdata/audio`. Out: per case a folder with
`config.json`, `golden.npz` and `model.safetensors` (or `shapes.json` where the weights are drawn
again by the reader), and `dmel.npz`. Runs in its own environment, see README.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from cases import CASES
from dmel_reference import dmel_reference
from reference import run_case, write_checkpoint
from safetensors import safe_open
from weights import checksum

TESTDATA = Path(__file__).resolve().parents[2] / "tests" / "testdata"
# Another processor sums in another order, so what is computed agrees to these, not to the bit.
TOLERANCES = {
    "logits": 5e-5,
    "audio_embeddings": 5e-5,
    "patch_embeddings": 5e-5,
    "router_margin": 1e-5,
    "log_mel": 1e-3,  # of the pure tone only by power
}
POWER_TOLERANCE = 1e-5  # of a band's power, as a part of the clip's largest
BIN_SHARE = 2e-3  # of a clip's dMel bins that may be the neighbouring one


def compute(name: str, folder: Path) -> None:
    """All files of one case, written into `folder`."""
    case = CASES[name]
    tensors = write_checkpoint(case, folder)
    golden = run_case(case, folder)
    spread = float(golden["logits"][golden["valid"]].std())
    margin = float(golden["router_margin"])
    if spread < 0.5 or margin < 5e-5:
        raise ValueError(
            f"{name}: logits vary by {spread:.3f} (want 0.5), router margin {margin:.1e}"
        )
    parameters = sum(v.size for v in tensors.values())
    print(f"{name:20} {parameters:10,} weights  logits std {spread:.2f}  margin {margin:.1e}")
    np.savez_compressed(folder / "golden.npz", **golden)
    if not case.store_weights:
        shapes = {
            "seed": case.seed,
            "exact_in": case.exact_in,
            "checksum": checksum(tensors),
            "shapes": {n: list(v.shape) for n, v in tensors.items()},
        }
        (folder / "shapes.json").write_text(json.dumps(shapes, indent=1) + "\n")
        (folder / "model.safetensors").unlink()


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array of a folder of goldens, `file/name` -> values."""
    arrays = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as file:
            arrays |= {f"{path.relative_to(folder)}/{n}": file[n] for n in file.files}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                values = file.get_tensor(name).to(torch.float32).numpy()
                arrays[f"{path.relative_to(folder)}/{name}"] = values
    for path in sorted(folder.rglob("shapes.json")):
        text = path.read_text().encode()
        arrays[str(path.relative_to(folder))] = np.frombuffer(text, np.uint8)
    return arrays


def difference(name: str, fresh: np.ndarray, committed: np.ndarray) -> str:
    """What is wrong between two arrays of one shape and type; empty where nothing is.

    Inputs and weights must be equal. Log-mel values (log10 of a band's magnitude) are compared as
    powers too, and those of the sweep as powers alone: bands in which a pure tone leaves nothing
    but rounding say nothing.
    """
    *_, clip, kind = name.split("/")
    same = (fresh == committed) | ((fresh != fresh) & (committed != committed))
    if same.all():
        return ""
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(fresh.astype(np.float64) - committed)).max()
    if kind == "bins":
        fine = error <= 1 and (~same).mean() <= BIN_SHARE
        return "" if fine else f"{(~same).sum()} of {same.size} differ, by up to {error:g}"
    if kind == "log_mel":
        powers = [100.0 ** a.astype(np.float64) for a in (fresh, committed)]
        part = np.abs(powers[0] - powers[1]).max() / max(powers[1].max(), 1e-30)
        if not part <= POWER_TOLERANCE:
            return f"powers differ by {part:.3e}"
        if clip == "sweep":
            return ""
    tolerance = TOLERANCES.get(kind, 0.0)
    return "" if error <= tolerance else f"differs by {error:.3e} of {tolerance:g}"


def compare(fresh: dict[str, np.ndarray], committed: dict[str, np.ndarray]) -> int:
    """Prints a table of what differs; returns how many arrays do."""
    bad = []
    for name in sorted(fresh.keys() | committed.keys()):
        a, b = fresh.get(name), committed.get(name)
        if a is None or b is None:
            bad.append((name, "only committed" if a is None else "only fresh"))
        elif a.shape != b.shape or a.dtype != b.dtype:
            bad.append((name, f"{a.dtype}{a.shape} against {b.dtype}{b.shape}"))
        elif problem := difference(name, a, b):
            bad.append((name, problem))
    for name, problem in bad:
        print(f"{name:60} {problem}")
    print(f"{len(fresh)} arrays, {len(bad)} differ by more than rounding")
    return len(bad)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--only", nargs="*", default=None, help="cases, default all and dmel")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    chosen = options.only or ["dmel", *CASES]
    committed = TESTDATA / "parity"
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) if options.check else committed
        if "dmel" in chosen:
            np.savez_compressed(target / "dmel.npz", **dmel_reference(TESTDATA / "audio"))
        for name in [n for n in chosen if n != "dmel"]:
            compute(name, target / name)
        if not options.check:
            return 0
        keep = tuple(f"{n}/" if n != "dmel" else "dmel.npz/" for n in chosen)
        stored = {n: v for n, v in read_arrays(committed).items() if n.startswith(keep)}
        return int(compare(read_arrays(target), stored) > 0)


if __name__ == "__main__":
    sys.exit(main())
