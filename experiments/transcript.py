"""What is typed and said on the way of an experiment, as a text to commit.

In: commands. Out: lines with the seconds since the beginning, without the machine's names and
folders.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


class Transcript:
    """Commands and what they said.

    Args:
        folder: of the run; written as RUN.
        interesting: of lines that absl logs, only those in which this is found are kept.
    """

    def __init__(self, folder: pathlib.Path, interesting: str = "$^"):
        self.lines: list[str] = []
        self._interesting = re.compile(interesting)
        self._began = time.monotonic()
        python = sys.executable
        self._plain = [(str(folder), "RUN"), (str(ROOT), "."), (python, "python")]
        self._plain += [(os.uname().nodename, "HOST")]

    def add(self, text: str) -> None:
        """Text of one or more lines."""
        for given, plain in self._plain:
            text = text.replace(given, plain)
        for line in text.rstrip().splitlines():
            stamped = f"{time.monotonic() - self._began:7.1f} s  {line}"
            print(stamped, flush=True)
            self.lines.append(stamped)

    def command(self, words: list[str], environment: dict[str, str], *, status: int = 0) -> str:
        """Runs a command; what it said on standard output.

        Raises:
            RuntimeError: it ended with another status than `status`.
        """
        self.add("$ " + " ".join(words))
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)
        said = (done.stdout + done.stderr).splitlines()
        kept = (line for line in said if "INFO:absl:" not in line or self._interesting.search(line))
        self.add("\n".join(line[:160] for line in kept))
        if done.returncode != status:
            raise RuntimeError(f"{words} ended with {done.returncode}, {status} is due")
        if status:
            self.add(f"exit status {status}")
        return done.stdout.strip()

    def write(self, path: pathlib.Path) -> None:
        """Everything so far, as a file."""
        path.write_text("\n".join(self.lines) + "\n")
