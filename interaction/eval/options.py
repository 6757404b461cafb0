"""The options of `launch.py eval`; nothing is imported for them, so that `--help` is quick.

In: an argument parser. Out: systems, ears and judges by name, each with what it is (`choose` makes
them), and the parser with the options.
"""

import argparse
from typing import Any

JUDGE_KEY = "INTERACTION_JUDGE_KEY"
VOICES = ("espeak", "piper", "flite")
SYSTEMS = {
    "silent": "never says anything",
    "echo": "plays back what it hears",
    "oracle": "knows the truth",
    "model": "a native checkpoint (or an exported artefact) given by --checkpoint",
    "model:FOLDER": "the same by its folder, so that several stand side by side",
    "stitched": "Silero VAD, smart-turn, Whisper-base, SmolLM2-135M and a piper voice",
    "recorded:FOLDER": "runs of this program, or an output.wav per sample, of any system;\n"
    "    for fdb_v2 what a judge left (eval_results), for fdb_v3 its result_*.json",
    "remote:URL": "any system behind a WebSocket that speaks docs/remote.md",
    "live:URL": "the same at the pace of real time",
}
EARS = {
    "listen": "interaction.eval.ears:TwoPass",
    "text": "interaction.eval.ears:FromText",
    "transcripts": "interaction.eval.transcribed:Transcripts",
}
JUDGES = {
    "closed": "right or wrong where the answer is closed",
    "local": "SmolLM2-135M-Instruct in this process",
    "endpoint:MODEL@URL": f"any OpenAI-compatible server; its key from {JUDGE_KEY}",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    listed = "\n".join(f"  {name}: {text}" for name, text in SYSTEMS.items())
    parser.add_argument("--suite", required=True, metavar="NAME[,NAME|all]", help="benchmarks")
    parser.add_argument(
        "--system", required=True, metavar="SYSTEM[,..]", help=f"under test:\n{listed}"
    )
    parser.add_argument(
        "--list", action=_Listed, nargs=0,
        help="print every suite's data set with its licence, size and how to get it",
    )  # fmt: skip
    parser.add_argument("--checkpoint", metavar="DIR", help="for the system 'model'")
    parser.add_argument(
        "--data", metavar="DIR", help="a set in the official layout (several suites: a folder "
        "per name);\nwithout it the small set is generated",
    )  # fmt: skip
    parser.add_argument("--size", type=int, help="samples per scene of the generated set")
    parser.add_argument("--seed", type=int, default=0, help="of the generated set and the model")
    parser.add_argument(
        "--voices", default="espeak", metavar="ENGINE[,..]",
        help=f"who speaks in generated dialogues (fdb_*): {', '.join(VOICES)}",
    )  # fmt: skip
    parser.add_argument(
        "--impair", action="append", metavar="loss=0.05,delay=2,jitter=1",
        help="a network (micro-turns); may be repeated, '' is an unimpaired one",
    )  # fmt: skip
    parser.add_argument(
        "--background", choices=("none", "oracle"), default="none",
        help="who answers requests in words (oracle: the sample's truth, to every system)",
    )  # fmt: skip
    parser.add_argument("--judge", default="closed", help=f"one of {', '.join(JUDGES)}")
    parser.add_argument(
        "--ears", default="listen", choices=tuple(EARS),
        help="who finds the words: a recogniser (extra eval), the system's own text,\nor of "
        "recordings the transcripts beside them (output.json, asr_chunks)",
    )  # fmt: skip
    parser.add_argument(
        "--prosody", choices=("rate", "praat"), default="rate",
        help="of the voice around an overlap (fdb_v15): its speaking rate, or pitch and loudness\n"
        "too (extra prosody)",
    )  # fmt: skip
    parser.add_argument("--mode", choices=("compat", "strict", "both"), default="both")
    parser.add_argument("--processes", type=int, default=2, help="that play side by side")
    parser.add_argument("--out", default="eval", metavar="DIR", help="runs, scores and report")
    parser.add_argument(
        "--show", type=int, metavar="N", help="failures of each system in each suite, worst first, "
        "that report.html itself\nholds (default 12); the others lie in report_samples beside it",
    )  # fmt: skip
    parser.add_argument(
        "--write-layout", metavar="DIR",
        help="also write every run as the benchmark's authors lay it out, for their own code",
    )  # fmt: skip


class _Listed(argparse.Action):
    """Prints what the suites' data is, and ends."""

    def __call__(self, parser, *_: Any) -> None:
        from interaction.eval import choose

        print(choose.sources())
        parser.exit()
