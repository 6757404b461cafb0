"""An exported artefact run by jax, numpy and Python's own library: none of this project's code.

    python -I experiments/reader_alone.py ARTEFACT SOUND.npy

In: the folder that ``launch.py export`` made, and float32 samples ``[n]`` at its sample rate. Out:
what the model writes and says, micro-turn by micro-turn, by `docs/export.md` alone. It is both the
proof that an artefact needs nothing but itself and the shortest example of a server of one's own.
"""

import hashlib
import json
import pathlib
import sys
import time

import jax
import jax.export
import numpy as np

for absent in ("interaction", "flax", "launch"):
    assert absent not in sys.modules
    sys.modules[absent] = None  # type: ignore[assignment]  # an import of it is an error now

TYPES = {"F32": "float32", "I8": "int8"}


def weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """A safetensors file: the length of its header, the header as JSON, the bytes."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, about in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            low, high = about["data_offsets"]
            array = np.frombuffer(content[begin + low : begin + high], TYPES[about["dtype"]])
            found[name] = array.reshape(about["shape"])
    return found


def checked(folder: pathlib.Path, file: dict) -> pathlib.Path:
    """The file, if its bytes are those that were exported."""
    path = folder / file["name"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
        raise SystemExit(f"error: {path} is not the file that was exported")
    return path


def program(folder: pathlib.Path, manifest: dict, name: str):
    """A program, compiled when it is first called; its state is given away."""
    (listed,) = [each for each in manifest["programs"] if each["name"] == name]
    exported = jax.export.deserialize(bytearray(checked(folder, listed["exported"]).read_bytes()))
    given = tuple(i for i, group in enumerate(listed["arguments"]) if group == "state")
    return listed, jax.jit(exported.call, donate_argnums=given)


def main() -> None:
    """Plays a recording through the first lane."""
    folder, sound = pathlib.Path(sys.argv[1]), np.load(sys.argv[2])
    manifest = json.loads((folder / "manifest.json").read_text())
    tokens, size = manifest["tokens"], manifest["weave"]["samples"]
    (file,) = manifest["parameter_files"]
    params = {name: jax.device_put(each) for name, each in weights(checked(folder, file)).items()}
    bucket = manifest["buckets"][0]  # sound alone
    _, fresh = program(folder, manifest, "fresh")
    listed, step = program(folder, manifest, bucket["program"])
    print(f"{len(params)} arrays of weights; programs fresh and {bucket['program']}", flush=True)
    began = time.perf_counter()
    state = fresh({"seed": np.uint32(0)})
    blank = {i["name"]: np.zeros(i["shape"], i["dtype"]) for i in listed["inputs"]}
    streams, begin = tokens["streams"], tokens["controls"]["BEGIN"]
    names = {number: name for name, number in tokens["controls"].items()}
    seconds, spoken = [], 0
    for now in range(len(sound) // size):
        inputs = {name: array.copy() for name, array in blank.items()}
        frames = manifest["weave"]["audio_frames"]
        inputs["active"][0] = True
        inputs["stream"][0] = [streams["AUDIO"]] * frames + [streams["TEXT_OUT"]]
        inputs["payload"][0, :frames] = range(frames)
        inputs["token"][0, frames] = begin
        inputs["chunk_time"][:] = -1
        inputs["chunk_time"][0, 0] = now
        inputs["waveform"][0, 0] = sound[now * size : (now + 1) * size]
        started = time.perf_counter()
        state, outputs = jax.block_until_ready(step(params, state, inputs))
        seconds.append(time.perf_counter() - started)
        if now == 0:
            print(f"compiled, first step done after {time.perf_counter() - began:.1f} s")
        spoken += bool(outputs["speaks"][0])
        ids = [int(each) for each in outputs["tokens"][0] if each >= 0]
        if ids != [tokens["controls"]["PASS"]]:
            text = " ".join(names.get(each) or repr(chr(each)) for each in ids)
            loud = float(np.sqrt(np.mean(np.square(outputs["waveform"][0]))))
            print(f"{0.2 * (now + 1):5.1f} s  {text}  (sound {loud:.3f} rms)")
    loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
    print(f"{len(seconds)} micro-turns, {spoken} with speech")
    print("of this project or flax loaded:", sorted(loaded & {"interaction", "flax"}) or "nothing")


if __name__ == "__main__":
    main()
