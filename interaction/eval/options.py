"""What `launch.py eval` offers by name; nothing is imported for it, so that `--help` is quick.

In: nothing. Out: systems, ears and judges, each with what it is (`choose` makes them).
"""

JUDGE_KEY = "INTERACTION_JUDGE_KEY"
SYSTEMS = {
    "silent": "never says anything",
    "echo": "plays back what it hears",
    "oracle": "knows the truth",
    "model": "a native checkpoint (or an exported artefact) given by --checkpoint",
    "model:FOLDER": "the same by its folder, so that several stand side by side",
    "stitched": "Silero VAD, smart-turn, Whisper-base, SmolLM2-135M and a piper voice",
    "recorded:FOLDER": "runs of this program, or an output.wav per sample, of any system",
    "remote:URL": "any system behind a WebSocket that speaks docs/remote.md",
    "live:URL": "the same at the pace of real time",
}
EARS = {
    "listen": "interaction.eval.ears:TwoPass",
    "text": "interaction.eval.ears:FromText",
}
JUDGES = {
    "closed": "right or wrong where the answer is closed",
    "local": "SmolLM2-135M-Instruct in this process",
    "endpoint:MODEL@URL": f"any OpenAI-compatible server; its key from {JUDGE_KEY}",
}
