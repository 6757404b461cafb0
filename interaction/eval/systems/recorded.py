"""A system that was recorded: runs of this program, or sound files that any other system left.

In: a folder. Out: each sample's run. Two layouts are read: what `run_files` writes
(``SUITE/ID/run.json``), and the benchmarks' own: an ``output.wav`` per sample, of any rate, that
runs beside the input from session time 0 on (``[SUITE/][SCENE/]ID/output.wav``; of an id
``ID/clean`` also ``ID/clean_output.wav``). Where the system also put out text or calls they are in
``events.json`` beside it: ``[{"t": 1.2, "kind": "text", "payload": {"channel": "say", "text":
"hello"}}]``.
"""

import json
import pathlib

from interaction.eval.records import SAMPLE_RATE, Kind, OutputEvent, Run, Sample
from interaction.eval.run_files import load_run, run_folder
from interaction.eval.runner import quantised
from interaction.eval.suites import SUITES, load_suite
from interaction.streams.media import read_audio


class Recorded:
    """Gives again what was recorded; computing time is what the recording says (none for sound).

    Args:
        folder: with the recordings.
        name: of the system that was recorded; None: the folder's.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, folder: str, *, name: str | None = None):
        self._folder = pathlib.Path(folder)
        if not self._folder.is_dir():
            raise ValueError(f"recorded folder={folder} is no folder")
        self.name = name or self._folder.name

    def converse(self, sample: Sample):
        """There is nothing to step; see `recall`."""
        raise TypeError("a recorded system is not stepped: its run is given by recall()")

    def recall(self, sample: Sample) -> Run:
        """The recording of this sample.

        Raises:
            FileNotFoundError: there is none; names where it was looked for.
        """
        places = self._places(sample)
        for place in places:
            if (place / "run.json").is_file():
                return load_run(place)
            if (place / "output.wav").is_file():
                return self._official(place / "output.wav", sample)
            # The second run of a pair lies beside the first one.
            paired = place.parent / f"{place.name}_output.wav"
            if paired.is_file():
                return self._official(paired, sample)
        run = self._in_the_suites_own_layout(sample)
        if run is not None:
            return run
        looked = ", ".join(str(place) for place in places)
        raise FileNotFoundError(
            f"no run.json or output.wav of sample {sample.id} of {sample.suite} in {looked}"
        )

    def _in_the_suites_own_layout(self, sample: Sample) -> Run | None:
        """What the sample's suite finds where its authors' code leaves it (`recorded`), if it
        knows such a layout."""
        known = SUITES.get(sample.suite)
        read = known and getattr(load_suite(sample.suite), "recorded", None)
        return read(self._folder, sample, self.name) if read else None

    def _places(self, sample: Sample) -> list[pathlib.Path]:
        root, names = self._folder, [run_folder(pathlib.Path(), sample.id).name, sample.id]
        above = [root / sample.suite, root / sample.suite / sample.scene, root / sample.scene, root]
        places = [folder / name for folder in above for name in names]
        return list(dict.fromkeys(places))

    def _official(self, sound: pathlib.Path, sample: Sample) -> Run:
        wave = quantised(read_audio(sound, SAMPLE_RATE))
        wave = wave[: round(sample.seconds * SAMPLE_RATE)]
        events = [OutputEvent(0.0, Kind.AUDIO, wave)] if wave.any() else []
        place = sound.with_name(sound.name.replace("output.wav", "events.json"))
        if place.is_file():
            for item in json.loads(place.read_text()):
                kind = Kind(item["kind"])
                if kind is Kind.AUDIO:
                    raise ValueError(f"{place}: sound belongs into output.wav")
                delay = float(item.get("delay", 0.0))
                events.append(OutputEvent(float(item["t"]), kind, item["payload"], delay))
        events.sort(key=lambda event: event.t)
        return Run(
            suite=sample.suite,
            scene=sample.scene,
            id=sample.id,
            system=self.name,
            seconds=sample.seconds,
            events=tuple(events),
            recording=sound.resolve(),
        )
