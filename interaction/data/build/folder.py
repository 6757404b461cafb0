"""Recordings of users' own conversations in a folder, as a plan of shards.

In: a folder of stereo files (left the user, right the model; any rate, any container), beside a
file the times of its words (``NAME.json``, ``NAME.rttm`` or ``NAME.TextGrid``, see `word_files`)
and a video (``NAME.mp4`` and the like, where the sound does not come from it already). Out: a
`Plan` with one input per recording. Words of the model that nobody wrote down are listened for.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from interaction import configuration
from interaction.data.build.conversation import Conversation, micro_turns
from interaction.data.build.word_files import READERS, read_words
from interaction.data.build.words import Listener, Talk
from interaction.data.shards.rows import RowSizes, cut
from interaction.data.shards.write import Made
from interaction.data.voices import SAMPLE_RATE
from interaction.microturn import Grid
from interaction.streams.events import VideoFrames
from interaction.streams.image import on_patches
from interaction.streams.media import read_channels, read_video

VIDEOS = frozenset(".mp4 .mkv .webm .mov .avi .m4v .mpg .mpeg .ts .ogv .3gp".split())
_PASSED_OVER = frozenset(".txt .md .csv .tsv .yaml .yml .pdf .html .py .sh".split())


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One conversation's files, as paths below the folder; "" for none."""

    sound: str
    words: str = ""
    video: str = ""


def find(folder: str | pathlib.Path) -> list[Recorded]:
    """The conversations of a folder and of those below it, by name.

    Raises:
        FileNotFoundError: no such folder, or none in it.
        ValueError: two recordings or two files of words of one name.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    groups: dict[str, list[pathlib.Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        below = path.relative_to(root)
        hidden = any(part.startswith(".") for part in below.parts)
        if not hidden and path.suffix.lower() not in _PASSED_OVER:
            groups.setdefault(below.with_suffix("").as_posix(), []).append(below)
    result = []
    for name, paths in groups.items():
        words = [p for p in paths if p.suffix.lower() in READERS]
        videos = [p for p in paths if p.suffix.lower() in VIDEOS]
        sounds = [p for p in paths if p not in words and p not in videos]
        for what, found in (("words", words), ("videos", videos), ("recordings", sounds)):
            if len(found) > 1:
                listed = " and ".join(str(p) for p in found)
                raise ValueError(f"{name} has {len(found)} files of {what}: {listed}")
        if sounds or videos:
            sound = (sounds or videos)[0]
            result.append(Recorded(str(sound), *(str(p[0]) if p else "" for p in (words, videos))))
    if not result:
        raise FileNotFoundError(f"{folder}: no sound and no video in it")
    return result


@dataclasses.dataclass(frozen=True)
class FolderPlan:
    """Conversations of a folder.

    Attributes:
        folder: where they lie.
        found: their files.
        listener: finds words where there are none beside a recording.
        sizes: of a row.
        inputs_per_shard: recordings in one shard.
    """

    folder: str
    found: tuple[Recorded, ...]
    listener: Listener
    sizes: RowSizes = RowSizes()
    inputs_per_shard: int = 8

    @property
    def inputs(self) -> int:
        """How many conversations there are."""
        return len(self.found)

    def identity(self) -> dict[str, Any]:
        """Files with their sizes, and the sizes of rows."""
        root = pathlib.Path(self.folder)
        names = [n for r in self.found for n in dataclasses.astuple(r) if n]
        return {
            "of": "recordings",
            "files": {name: (root / name).stat().st_size for name in names},
            "rows": configuration.to_dict(self.sizes),
            "recordings_per_shard": self.inputs_per_shard,
        }

    def name(self, index: int) -> str:
        """The recording."""
        return self.found[index].sound

    def sessions(self, index: int) -> list[Made]:
        """A recording, cut into pieces that fit a row."""
        turns = micro_turns(self._read(self.found[index]), self.sizes)
        return [
            Made(piece, f"{self.name(index)} from {piece[0].micro_turn * 0.2:.1f} s")
            for piece in cut(turns, self.sizes)
        ]

    def _read(self, files: Recorded) -> Conversation:
        root = pathlib.Path(self.folder)
        channels = read_channels(root / files.sound, SAMPLE_RATE)
        if len(channels) != 2:
            raise ValueError(
                f"{files.sound} has {len(channels)} channel(s); 2 are needed, left the user and "
                "right the model"
            )
        told = read_words(root / files.words)["model"] if files.words else Talk()
        video = None
        if files.video and self.sizes.weave.max_patches:
            video = self._video(root / files.video)
        return Conversation(channels[0], channels[1], self._said(channels[1], told), video)

    def _said(self, model: np.ndarray, told: Talk) -> Talk:
        """Single words with their times, whatever was told."""
        seconds = len(model) / SAMPLE_RATE
        for item in (*((w.start, w.end) for w in told.words), *told.speech):
            if item[0] >= seconds:
                raise ValueError(f"words at {item[0]:.2f} s lie after its end at {seconds:.2f} s")
        if told.words:
            words = [w for w in told.words if len(w.text.split()) < 2]
            long = [w for w in told.words if len(w.text.split()) > 1]
            aligned = self.listener.align(model, long) if long else ()
            words = sorted((*words, *aligned), key=lambda w: (w.start, w.end))
            return Talk(tuple(words), told.speech)
        if not told.speech:
            return self.listener.listen(model)
        # Who speaks when is known: what lies outside is not the model's.
        heard = np.zeros_like(model)
        for start, end in told.speech:
            inside = slice(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE))
            heard[inside] = model[inside]
        return Talk(self.listener.listen(heard).words, told.speech)

    def _video(self, path: pathlib.Path) -> VideoFrames:
        most = self.sizes.weave.max_patches
        frames, times = read_video(
            path, Grid().video_rate, shrink=lambda frame: on_patches(frame, max_patches=most)
        )
        return VideoFrames(times, frames)
