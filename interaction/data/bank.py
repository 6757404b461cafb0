"""All clips of a run, prepared once and cached.

In: `DataConfig`. Out: `ClipBank`, the same for the same folders' contents and code.
"""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from interaction.data import digits, negatives
from interaction.data.clips import Clip, ClipBank
from interaction.data.config import DataConfig

_MAKING = threading.Lock()
_FORM = 4  # raise it whenever the making of clips changes


def _fingerprint(config: DataConfig) -> str:
    """Changes with the form of the clips, the seed and the files that are there."""
    folders = config.folders
    present = {}
    for name in ("spoken_digits", "media", "asterisk", "music", "tuxpaint"):
        folder = folders.folder(name)
        if folder:
            files = [p for p in folder.rglob("*") if p.is_file()]
            present[name] = (len(files), sum(p.stat().st_size for p in files))
    text = json.dumps([_FORM, config.seed, present], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_clips(config: DataConfig) -> Iterator[Clip]:
    """Every clip of every source that is there."""
    folders = config.folders
    yield from negatives.asterisk(folders)
    yield from negatives.tuxpaint(folders)
    yield from negatives.media(folders)
    yield from negatives.music(folders)
    yield from negatives.synthetic(seed=config.seed)
    yield from digits.synthetic_digits(seed=config.seed)
    yield from digits.human_digits(folders)


def bank_path(config: DataConfig) -> Path:
    """Where the bank of this config is cached."""
    return config.folders.cache_folder() / f"clips-{_fingerprint(config)}.npz"


def load_bank(config: DataConfig) -> ClipBank:
    """The bank; made (minutes) and cached if it is not there yet, by one thread."""
    path = bank_path(config)
    with _MAKING:
        if not path.exists():
            print(f"preparing clips, once: {path.name}", file=sys.stderr)
            ClipBank(make_clips(config)).save(path)
    return ClipBank.load(path)
