"""What a session's inputs may be on the wire; a wrong one is told by its field."""

import re

import numpy as np
import pytest

from interaction.session.wire import WireError, read_input, to_pcm

pytest.importorskip("aiohttp.web")
from tests.server_for_tests import QUIET


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "begin"}, "type='begin' where type='input' is due"),
        ({"micro_turn": 3}, "micro_turn=3 where micro_turn=0 is due"),
        ({"micro_turn": True}, "input.micro_turn=True where a whole number is due"),
        ({"ends": 0.1}, "ends=0.1 where micro_turn=0 ends at 0.2"),
        ({"ends": 10**400}, "where a number is due"),
        ({"audio": 3}, "input.audio=3 where a list is due"),
        ({"audio": [3]}, "audio[0]=3 where an object is due"),
        ({"audio": [{"micro_turn": 0}]}, "audio[0].pcm=None where a string is due"),
        ({"audio": [{"micro_turn": 0, "pcm": "!"}]}, "audio[0].pcm is no base64"),
        ({"audio": [{"micro_turn": 0, "pcm": "AAAA"}]}, "audio[0].pcm"),
        (
            {"audio": [{"micro_turn": 0, "pcm": to_pcm(np.zeros(7))}]},
            "audio[0].pcm has 7 samples where 3200 are due",
        ),
        ({"audio": [QUIET | {"micro_turn": 1}]}, "audio[0].micro_turn=1 where one of 0..0"),
        ({"audio": [QUIET, QUIET]}, "audio[1].micro_turn=0 where one of 0..0, each once"),
        ({"video": [{"seconds": 0.1, "png": "AAAA"}]}, "video[0].png is no picture"),
        ({"video": [{"seconds": -1, "png": ""}]}, "video[0].seconds=-1.0 where at least 0.0"),
        ({"text": [{"seconds": 0, "source": "me", "text": ""}]}, "text[0].source='me' where one"),
        ({"text": [{"seconds": 0, "source": "user"}]}, "text[0].text=None where a string is due"),
        ({"tool_results": [3]}, "tool_results[0]=3 where a string is due"),
    ],
)
def test_an_input_that_is_malformed_names_its_field(changes, sentence):
    message = {"type": "input", "micro_turn": 0, "audio": [QUIET]} | changes
    with pytest.raises(WireError, match=re.escape(sentence)):
        read_input(message, micro_turn=0, samples=3200)
