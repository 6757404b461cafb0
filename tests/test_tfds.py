"""Data sets that TFDS prepared: read without TensorFlow, and made into conversations.

In: tiny sets written by TFDS itself. Out: their samples and texts; micro-turns that write down what
was heard after its end, or say what was typed.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

import launch
from interaction.data import tfds_folder
from interaction.data.build import command, tfds_plan
from interaction.data.build.known import KNOWN, Use
from tests.conversations_for_tests import SIZES, TOKENS, Told, read_back, tone


def tfds_set(root: pathlib.Path, name: str, features: dict, examples: list[dict]) -> pathlib.Path:
    """A data set as TFDS leaves it: written by TFDS itself, its features then said to be sound.

    Without TensorFlow TFDS writes tensors, not its `Audio`; the records of both are the same, and
    ``features.json`` is given the form that TFDS 4.9.10 gives it (`AudioFeature` of its
    feature.proto).
    """
    import tensorflow_datasets as tfds

    sounds = {n: f for n, f in features.items() if isinstance(f, dict)}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.1")
        code_path = None  # this file is no package of a data set

        def _info(self):
            made = {n: tfds.features.Tensor(shape=(None,), dtype=np.dtype(f["dtype"]))
                    for n, f in sounds.items()}  # fmt: skip
            every = tfds.features.FeaturesDict({**features, **made})
            return tfds.core.DatasetInfo(builder=self, features=every)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    Builder.name = name
    Builder(data_dir=str(root), file_format="array_record").download_and_prepare()
    folder = root / name / "2.0.1"
    values = json.loads((folder / "features.json").read_text())
    for feature, form in sounds.items():
        values["featuresDict"]["features"][feature] = {
            "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
            "audio": {"shape": {"dimensions": ["-1"]}, "encoding": "none", **form},
        }
    (folder / "features.json").write_text(json.dumps(values))
    return folder


def whole(wave: np.ndarray, dtype="int64") -> np.ndarray:
    return np.round(wave * 32_767).astype(dtype)


@pytest.fixture(scope="module")
def tfds_root(tmp_path_factory) -> pathlib.Path:
    import tensorflow_datasets as tfds  # here: it takes seconds, and few tests need it

    text, scalar = tfds.features.Text(), tfds.features.Scalar(np.int64)
    root = tmp_path_factory.mktemp("tfds")
    waves = [tone(0.4 + 0.1 * i, 200 + 40 * i, 8_000) for i in range(5)]
    tfds_set(
        root, "spoken_digit",
        {"audio": {"dtype": "int64", "sampleRate": "8000", "fileFormat": "wav"},
         "label": tfds.features.ClassLabel(num_classes=10), "audio/filename": text},
        [{"audio": whole(w), "label": i, "audio/filename": f"{i}_theo_0.wav"}
         for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "speech_commands",
        {"audio": {"dtype": "int16", "sampleRate": "16000", "fileFormat": "wav"},
         "label": tfds.features.ClassLabel(names=["down", "go"])},
        [{"audio": whole(w, "int16"), "label": i % 2} for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "librispeech",
        {"speech": {"dtype": "int64", "sampleRate": "16000", "fileFormat": "flac"}, "text": text,
         "speaker_id": scalar, "chapter_id": scalar, "id": text},
        [{"speech": whole(w), "text": "MISTER QUILTER IS THE APOSTLE OF", "speaker_id": 7,
          "chapter_id": 8, "id": str(i)} for i, w in enumerate(waves)],
    )  # fmt: skip
    tfds_set(
        root, "ljspeech",
        {"id": text, "speech": {"dtype": "int64", "sampleRate": "22050"}, "text": text,
         "text_normalized": text},
        [{"id": "a", "speech": whole(tone(0.8, 300, 22_050)), "text": "1 of 2",
          "text_normalized": "one of two, the first"}] * 3,
    )  # fmt: skip
    return root


def test_an_example_is_read_without_tensorflow(tfds_root):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("spoken_digit", str(tfds_root))), "test")
    assert len(folder) == 5
    wanted = {str(i): tone(0.4 + 0.1 * i, 200 + 40 * i, 8_000) for i in range(5)}
    for index in range(5):
        example = folder[index]
        assert example.rate == 8_000
        np.testing.assert_allclose(example.samples, wanted[example.text], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("spoken_digit", set("01234")),
        ("speech_commands", {"down", "go"}),
        ("librispeech", {"MISTER QUILTER IS THE APOSTLE OF"}),
    ],
)
def test_what_is_heard_is_written_after_its_end(tfds_root, tmp_path, name, texts):
    parsed = launch._parser().parse_args(
        ["data", "build", "--tfds", name, "--data-dir", str(tfds_root), "--out", str(tmp_path),
         "--row", "slots=300", "--row", "audio=80"]
    )  # fmt: skip
    plan = command._plan(parsed, Told(unasked=True), launch.read_config)
    turns = [turn for made in plan.sessions(0) for turn in made.turns]
    written, told = read_back(turns), []
    for now in sorted(written):  # pieces in micro-turns that follow each other are one text
        if told and now == told[-1][1] + 1:
            told[-1] = (told[-1][0] + written[now], now)
        else:
            told.append((written[now], now))
    assert {text for text, _ in told} == texts and len(told) == 5
    assert all(turn.speech is None for turn in turns)
    loud = [t.micro_turn for t in turns if t.audio[0].bins.max() > 3]
    for now in sorted(written):
        assert any(before <= now for before in loud)
    assert min(written) >= min(loud) + 1


def test_what_is_read_is_typed_then_said(tfds_root, tmp_path):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("ljspeech", str(tfds_root))), "train",
                                    KNOWN["ljspeech"].audio, KNOWN["ljspeech"].text)  # fmt: skip
    plan = tfds_plan.TfdsPlan(folder, Use.READ, Told(), SIZES, together=2)
    assert plan.inputs == 2
    (made,) = plan.sessions(1)
    typed = [t for t in made.turns if t.text_in]
    assert (
        "".join(TOKENS.decode(p.tokens) for t in typed for p in t.text_in)
        == "one of two, the first"
    )
    speaking = [t.micro_turn for t in made.turns if t.speech is not None]
    assert typed[-1].micro_turn <= speaking[0]
    assert " ".join(read_back(made.turns).values()) == "one of two, the first"


def test_voxpopuli_is_known_by_its_features_alone():
    """It is no data set of TFDS 4.9.10 itself; a prepared one has these features."""
    assert (KNOWN["voxpopuli"].audio, KNOWN["voxpopuli"].text) == ("audio", "normalized_text")


TFDS_BAD = (
    ({"split": "dev"}, r"no split 'dev' in ArrayRecord; it has \['spoken_digit-test'"),
    ({"audio": "speech"}, "no feature 'speech'"),
    ({"audio": "label", "text": "gone"}, "no feature 'gone'"),
)


@pytest.mark.parametrize(("values", "message"), TFDS_BAD)
def test_what_a_data_set_lacks_is_named(tfds_root, values, message):
    folder = tfds_folder.TfdsFolder(str(tfds_folder.locate("spoken_digit", str(tfds_root))))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataclasses.replace(folder, **values).check()


def test_a_data_set_that_is_not_there_says_how_to_get_it(tfds_root):
    with pytest.raises(FileNotFoundError, match="tfds build fleurs --file_format=array_record"):
        tfds_folder.locate("fleurs", str(tfds_root))
