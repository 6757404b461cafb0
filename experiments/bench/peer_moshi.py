"""The peer: pip `moshi` with random weights, serving timed stretches of conversation over a pipe.

In: lines of JSON on standard input: first the sizes and the type of its language model and the
number of threads, then one request a line, a number of 80 ms frames. Out: one line of JSON each,
first versions and parameter counts, then the seconds of elapsed and of processor time that the
language model and the codec took. Runs in an environment with `moshi` and torch for CPU, imports
nothing of this project, and is started by `against_moshi.py`.
"""

import json
import os
import sys
import time

os.environ.setdefault("NO_TORCH_COMPILE", "1")  # eager, as it runs on CPU without a C++ compiler

import torch
from moshi.models import LMGen, loaders
from moshi.models.lm import LMModel

FRAME_SAMPLES = 1920  # 80 ms at 24 kHz


def language_model(sizes: dict, dtype: torch.dtype) -> LMGen:
    """The released architecture at other sizes."""
    kwargs = dict(loaders._lm_kwargs, **sizes)
    model = LMModel(device="cpu", dtype=dtype, **kwargs)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, weight.shape[-1] ** -0.5)
    return LMGen(model.eval())


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


class Clock:
    """Elapsed and processor seconds, added up."""

    def __init__(self):
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self):
        self._started, self._used = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self._started
        self.cpu_seconds += time.process_time() - self._used


@torch.inference_mode()
def serve(requests, reply, generator: LMGen, codec) -> None:
    with generator.streaming(1), codec.streaming(1):
        for line in requests:
            frames = json.loads(line)["frames"]
            model, coder = Clock(), Clock()
            for _ in range(frames):
                wave = 0.1 * torch.randn(1, 1, FRAME_SAMPLES)
                with coder:
                    codes = codec.encode(wave)
                with model:
                    tokens = generator.step(codes)
                # The first frames give nothing, until the delays are over.
                spoken = codes if tokens is None else tokens[:, 1:].clamp(0, codec.cardinality - 1)
                with coder:
                    codec.decode(spoken)
            reply(
                model_seconds=model.seconds,
                model_cpu_seconds=model.cpu_seconds,
                codec_seconds=coder.seconds,
                codec_cpu_seconds=coder.cpu_seconds,
            )


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not reach the pipe

    def reply(**content) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    request = json.loads(sys.stdin.readline())
    torch.manual_seed(0)
    torch.set_num_threads(request["threads"])
    generator = language_model(request["sizes"], getattr(torch, request["dtype"]))
    codec = loaders.get_mimi(None, device="cpu", num_codebooks=8)
    import importlib.metadata

    reply(
        torch=torch.__version__,
        moshi=importlib.metadata.version("moshi"),
        model_parameters=count(generator.lm_model),
        temporal_parameters=count(generator.lm_model.transformer),
        codec_parameters=count(codec),
    )
    serve(sys.stdin, reply, generator, codec)


if __name__ == "__main__":
    main()
