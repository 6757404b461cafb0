"""nano as artefacts for CPU, CUDA and TPU: made, loaded without the model's code, and refused.

    python -m experiments.load_and_run

Question: does an artefact need nothing but itself, and is a wrong one refused with a sentence?
Cost: five minutes of one CPU core. Expectation: nano hears "five", writes 5 and says six. Finding:
the transcript `load_and_run.txt` beside this file, and the sizes in `load_and_run.json`.

The CPU's artefact is run by `reader_alone.py`: jax, numpy and Python's own library, every import of
this project refused. CUDA's and TPU's are made on this machine and only refused on it: no such
device was at hand.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np

from experiments.transcript import ROOT, Transcript
from interaction.streams.media import read_audio

HERE = pathlib.Path(__file__)
RATE = 16_000
SPOKEN = ROOT / "interaction" / "session" / "demo_media" / "five.flac"
ARTEFACTS = (("cpu", ()), ("cuda", ()), ("tpu", ()), ("cpu", ("--experts", "int8")))


def recording() -> np.ndarray:
    """Half a second of a microphone's noise, "five", and two seconds more of noise."""
    wave = read_audio(SPOKEN, RATE)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(wave) + round(2.7 * RATE))
    sound = noise.astype(np.float32)
    sound[RATE // 2 : RATE // 2 + len(wave)] += 0.5 * wave
    return sound


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Bytes of an artefact by kind of file."""
    total = lambda pattern: sum(file.stat().st_size for file in folder.glob(pattern))
    return {
        "exported": total("*.exported"),
        "stablehlo": total("*.stablehlo"),
        "weights": total("params*"),
        "manifest": total("manifest.json"),
    }


def aged(artefact: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy whose manifest says that an older jax made it long ago."""
    shutil.copytree(artefact, folder, dirs_exist_ok=True)
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    values["made"] |= {"jax": "0.11.0", "date": "2025-01-01"}
    path.write_text(json.dumps(values))
    return folder


def harmed(artefact: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy with one bit of its weights the other way."""
    shutil.copytree(artefact, folder, dirs_exist_ok=True)
    content = bytearray((folder / "params.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "params.safetensors").write_bytes(content)
    return folder


def main() -> None:
    """Runs it and writes the two files."""
    run = pathlib.Path(tempfile.mkdtemp(prefix="load_and_run_"))
    transcript = Transcript(run)
    environment = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    found = {}
    try:
        for platform, more in ARTEFACTS:
            name = "_".join(["nano", platform, *more[1:]])
            words = ["export", "--checkpoint", "checkpoints/nano", "--platform", platform, *more]
            words = [sys.executable, "launch.py", *words, "--out", str(run / name)]
            transcript.command(words, environment)
            found[name] = sizes(run / name)
        np.save(run / "five.npy", recording())
        transcript.add("# loaded and run without this project's code (-I: nothing of this folder)")
        reader = [sys.executable, "-I", "experiments/reader_alone.py"]
        artefact = run / "nano_cpu"
        transcript.command([*reader, str(artefact), str(run / "five.npy")], environment)
        transcript.add("# refused: another platform, too old, one bit of the weights changed")
        wrong = (run / "nano_tpu", aged(artefact, run / "aged"), harmed(artefact, run / "harmed"))
        play = [sys.executable, "-m", "interaction.serving.runtime"]
        for folder in wrong:
            words = [*play, str(folder), "--wav", str(SPOKEN)]
            transcript.command(words, environment, status=1)
    finally:
        shutil.rmtree(run)
    HERE.with_suffix(".json").write_text(json.dumps({"bytes": found}, indent=1) + "\n")
    transcript.write(HERE.with_suffix(".txt"))


if __name__ == "__main__":
    main()
