"""What Full-Duplex-Bench v3 keeps of a recording: `result_{provider}.json`.

In: runs, or such files. Out: `Result`s, the files' contents, and runs made of them.
"""

import pathlib
import re
from collections.abc import Mapping

from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.suite import Hearing
from interaction.eval.suites.fdb import layout, v3_rules
from interaction.eval.suites.fdb.perfect import said
from interaction.eval.suites.fdb.v3_rules import Result

FOLDER = re.compile(r"^(.+)_([0-9a-f]{24})$")
"""Names of folders: example, speaker."""


def result_of(sample: Sample, run: Run, how: Hearing) -> Result:
    """What a run called and said; the user's end is as annotated, else as the ears hear it.

    Where words are read from transcripts, a recorded `result_{provider}.json` is taken whole.
    """
    if how.by_transcript and run.recording is not None:
        return from_file(layout.read_json(run.recording, "v3"))
    annotated = sample.truth.get("input_asr_chunks")
    if annotated is None:
        heard = how.words(layout.input_run(sample))
    else:
        heard = layout.from_chunks({"chunks": annotated})
    words = how.words(run)
    calls = [
        {**event.payload, "timestamp_start": round(event.at(how.clock), 2)}
        for event in run.of(Kind.TOOL)
        if "function" in event.payload
    ]
    end = v3_rules.user_end(heard)
    return Result(
        calls=tuple(calls),
        transcript=" ".join(word.text for word in words),
        words=tuple(words),
        user_end=end,
        agent_start=words[0].start if words and end else None,
    )


def as_file(sample: Sample, result: Result, provider: str) -> dict:
    """The file's contents."""
    match = FOLDER.match(sample.truth["folder"])
    chunks = layout.to_chunks(result.words)
    timing = {"user_speech_end_rel": result.user_end}
    if result.agent_start is not None:
        timing["audio_agent_speech_start"] = result.agent_start
        timing["perceived_total_latency"] = v3_rules.latency(result)
    return {
        "pid": match.group(2) if match else "",
        "example_id": sample.truth["id"],
        "category": sample.truth["domain"],
        "title": sample.truth.get("title", ""),
        "provider": provider,
        **timing,
        "transcript": result.transcript,
        "asr_chunks": chunks["chunks"],
        "actual_tool_calls": [dict(call) for call in result.calls],
        "status": "completed",
    }


def from_file(content: Mapping) -> Result:
    """Reads the file's contents, of any system."""
    return Result(
        calls=tuple(content.get("actual_tool_calls", [])),
        transcript=content.get("transcript", ""),
        words=tuple(layout.from_chunks({"chunks": content.get("asr_chunks", [])})),
        user_end=content.get("user_speech_end_rel"),
        agent_start=content.get("audio_agent_speech_start"),
    )


def as_run(sample: Sample, result: Result, sound: pathlib.Path, system: str) -> Run:
    """A result as a run. A call without a time stands at the end of the user's turn, or at 0."""
    events = [said(word.start, word.text) for word in result.words]
    for call in result.calls:
        payload = {"function": call["function"], "args": call.get("args", {})}
        at = call.get("timestamp_start", result.user_end or 0.0)
        events.append(OutputEvent(float(at), Kind.TOOL, payload))
    seconds = sample.seconds
    if sound.is_file():
        wave = layout.read_sound(sound)
        events.append(OutputEvent(0.0, Kind.AUDIO, wave))
        seconds = max(seconds, len(wave) / SAMPLE_RATE)
    events.sort(key=lambda event: event.t)
    return Run(sample.suite, sample.scene, sample.id, system, seconds, tuple(events))
