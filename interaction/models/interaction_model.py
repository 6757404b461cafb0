"""The interaction model: many micro-turns at once (`forward`), or one (`advance`).

In: parameters and woven slots. Out: hidden states, text logits, flow velocities and, from
`advance`, the model's own output. Both run the same embedding, stack and heads; `advance` feeds
the slots of one micro-turn in three calls (input, output tokens one by one, own speech) against
the cache.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from interaction.models import cache as cache_of
from interaction.models import embed, flow, memory, transformer
from interaction.models.config import InteractionConfig
from interaction.models.moe import Load
from interaction.shapes import Array, Float
from interaction.types import (
    CHANNELS,
    CLOSERS,
    Batch,
    Control,
    Forced,
    Payloads,
    Slots,
    Stream,
    pytree,
)


@pytree
class ForwardOutputs:
    """What `forward` gives.

    Attributes:
        hidden: ``[B, T, D]`` final states.
        logits: float32 ``[B, T, V]``.
        load: of every mixture layer: share of choices per expert ``[L_moe, E]``, share of
            dropped ones ``[L_moe]``.
    """

    hidden: Array
    logits: Array
    load: Load


@pytree
class AdvanceOutputs:
    """What `advance` gives besides the cache.

    Attributes:
        tokens: int32 ``[B, U]``, -1 beyond the closer.
        logits: float32 ``[B, U, V]`` that each token was chosen from.
        speaks: bool ``[B]``.
        mel: float32 ``[B, R, Z]`` (meaningless where the lane does not speak).
        noise: float32 ``[B, R, Z]`` the flow started from.
        condition: ``[B, D]`` hidden state at the closer.
        hidden_in: ``[B, T, D]`` states of the input slots.
        hidden_out: ``[B, U, D]`` states of the output tokens.
        hidden_speech: ``[B, s, D]`` states of the own-speech slots.
    """

    tokens: Array
    logits: Array
    speaks: Array
    mel: Array
    noise: Array
    condition: Array
    hidden_in: Array
    hidden_out: Array
    hidden_speech: Array


def forward(
    params: dict,
    batch: Batch,
    config: InteractionConfig,
    *,
    capacity_factor: float | None = None,
) -> ForwardOutputs:
    """Whole woven sequences at once; positions must be the slots' running count.

    Args:
        params: the whole tree.
        batch: slots, payloads (targets are not read).
        config: the model.
        capacity_factor: see `moe.mixture`.
    """
    hidden, load = hidden_states(params, batch, config, capacity_factor=capacity_factor)
    scores = transformer.logits(params["transformer"], hidden, config.transformer)
    return ForwardOutputs(hidden=hidden, logits=scores, load=load)


def hidden_states(
    params: dict,
    batch: Batch,
    config: InteractionConfig,
    *,
    capacity_factor: float | None = None,
) -> tuple[Float[Array, "B T D"], Load]:
    """`forward` without the logits, which are the largest array of all: final states and load."""
    slots = batch.slots
    x = embed.embed(params, slots, batch.payloads, config)
    hidden, _, load = transformer.run(
        params["transformer"],
        x,
        config.transformer,
        position_BT=slots.position,
        valid_BT=slots.valid,
        consecutive=True,
        until_BT=batch.until,
        capacity_factor=capacity_factor,
    )
    return hidden, load


def speech_rows(mel: Float[Array, "... R Z"], config: InteractionConfig) -> Array:
    """A chunk of mel as the payload of its own-speech slots: ``[..., s, (R / s) * Z]``."""
    return mel.reshape(*mel.shape[:-2], config.speech_slots, config.speech_features)


@functools.cache
def _allowed(config: InteractionConfig) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Which ids may be put out at all, and which may close a micro-turn."""
    first, size = config.ordinary_tokens, config.transformer.logits_size
    closers = {first + c for c in CLOSERS}
    puts = closers | {first + c for c in (*CHANNELS, Control.DONE)}
    may_put = tuple(i < first or i in puts for i in range(size))
    return may_put, tuple(i in closers for i in range(size))


def init_cache(config: InteractionConfig, lanes: int) -> dict:
    """An empty cache of the size and type that `config` asks for."""
    return cache_of.init_cache(
        config.transformer,
        lanes,
        local_slots=config.local_slots() if config.transformer.local else 0,
        global_slots=config.global_slots,
        dtype=jnp.dtype(config.cache_type.value),
        typed=True,
    )


def _append(params, cache, slots: Slots, payloads: Payloads, config, room: memory.Room | None):
    """Feed slots to the stack; their positions are set to the lane's running count."""
    stored = None
    if room is not None:
        stored = cache_of.Stored(
            holding=memory.holdings(slots.stream, slots.token, config.weave),
            time=slots.micro_turn,
            room=room,
        )
    position = cache["count"][:, None] + jnp.cumsum(slots.valid, axis=1, dtype=jnp.int32) - 1
    x = embed.embed(params, slots, payloads, config)
    hidden, extended, _ = transformer.run(
        params["transformer"],
        x,
        config.transformer,
        position_BT=position,
        valid_BT=slots.valid,
        cache=cache,
        stored=stored,
    )
    assert extended is not None
    return hidden, extended


def _no_payloads(lanes: int, config: InteractionConfig) -> Payloads:
    side = config.vision.patch
    return Payloads(
        audio=jnp.zeros((lanes, 0, config.audio.bands), jnp.int32),
        patches=jnp.zeros((lanes, 0, config.vision.frames, side, side, 3), jnp.uint8),
        speech=jnp.zeros((lanes, 0, config.speech_features), jnp.float32),
    )


def _output_slots(stream: Stream, token, payload, there, micro_turn) -> Slots:
    """Slots put in after the input part: never the first of their micro-turn."""
    zeros = jnp.zeros_like(token)
    return Slots(
        stream=jnp.where(there, int(stream), int(Stream.PAD)),
        token=token,
        payload=payload,
        lateness=zeros,
        position=zeros,
        micro_turn=jnp.broadcast_to(micro_turn[:, None], token.shape),
        first=jnp.zeros(token.shape, bool),
    )


def _choose(score, index, config: InteractionConfig):
    """The best id that may stand at place `index` of a micro-turn's output, int32 ``[B]``."""
    may_put, may_close = (jnp.asarray(mask) for mask in _allowed(config))
    mask = jnp.where(index == config.max_text_out - 1, may_close, may_put)
    if config.pass_bias:
        bias = np.zeros(mask.shape, np.float32)
        bias[config.ordinary_tokens + int(Control.PASS)] = config.pass_bias
        score = score - jnp.where(index == 0, bias[None], 0.0)
    return jnp.argmax(jnp.where(mask, score, -jnp.inf), axis=-1).astype(jnp.int32)


def _decode(params, cache, last_BD, micro_turn, active, config, forced: Forced | None, room):
    """Put out tokens until every lane has closed its micro-turn, at most U of them.

    At the last place only closers may be chosen, so every micro-turn ends. A lane that has
    closed (or holds no session) appends nothing more.
    """
    B, D = last_BD.shape
    limit, first = config.max_text_out, config.ordinary_tokens
    payloads = _no_payloads(B, config)

    def body(carry):
        index, cache, last, closed, tokens, scores, hidden = carry
        score = transformer.logits(params["transformer"], last, config.transformer, live=True)
        token = _choose(score, index, config)
        if forced is not None:
            token = forced.tokens[:, index]
        open_ = ~closed
        slots = _output_slots(
            Stream.TEXT_OUT,
            jnp.maximum(token, 0)[:, None],
            jnp.zeros((B, 1), jnp.int32),
            open_[:, None],
            micro_turn,
        )
        state, cache = _append(params, cache, slots, payloads, config, room)
        last = jnp.where(open_[:, None], state[:, 0], last)
        tokens = tokens.at[:, index].set(jnp.where(open_, token, -1))
        scores = scores.at[:, index].set(jnp.where(open_[:, None], score, 0.0))
        hidden = hidden.at[:, index].set(jnp.where(open_[:, None], state[:, 0], 0.0))
        control = token - first
        closed = closed | ((control >= 0) & (control < len(CLOSERS)))
        return index + 1, cache, last, closed, tokens, scores, hidden

    def going(carry):
        return (carry[0] < limit) & jnp.any(~carry[3])

    start = (
        jnp.int32(0),
        cache,
        last_BD,
        ~active,
        jnp.full((B, limit), -1, jnp.int32),
        jnp.zeros((B, limit, config.transformer.logits_size), jnp.float32),
        jnp.zeros((B, limit, D), last_BD.dtype),
    )
    _, cache, last, _, tokens, scores, hidden = jax.lax.while_loop(going, body, start)
    return cache, last, tokens, scores, hidden


def advance(
    params: dict,
    cache: dict,
    slots: Slots,
    payloads: Payloads,
    noise: Float[Array, "B R Z"],
    config: InteractionConfig,
    *,
    active: Array,
    forced: Forced | None = None,
) -> tuple[dict, AdvanceOutputs]:
    """One micro-turn of every lane: append the input, decode, sample the mel, feed it back.

    Args:
        params: the whole tree.
        cache: from `init_cache` or the last micro-turn.
        slots: the input part with its BEGIN slot last, ``[B, T]``; `position` is not read.
        payloads: audio and patches of the input part.
        noise: the flow's starting point, already scaled.
        config: the model.
        active: bool ``[B]`` lanes that hold a session (others have no valid slots).
        forced: outputs to take instead of the model's own.

    Returns:
        The cache and what was put out.
    """
    B = slots.stream.shape[0]
    room = None
    if "global" in cache:
        now, most = slots.micro_turn[:, 0], config.weave.max_slots
        room = memory.room(cache["global"], cache["count"], now, most, config.memory)
    hidden_in, cache = _append(params, cache, slots, payloads, config, room)
    ends = jnp.maximum(jnp.sum(slots.valid, axis=1, dtype=jnp.int32) - 1, 0)
    last = jnp.take_along_axis(hidden_in, ends[:, None, None], axis=1)[:, 0]
    micro_turn = slots.micro_turn[:, 0]
    cache, condition, tokens, scores, hidden_out = _decode(
        params, cache, last, micro_turn, active, config, forced, room
    )
    speak = config.ordinary_tokens + int(Control.SPEAK)
    speaks = jnp.any(tokens == speak, axis=1)

    def spoken(cache):
        mel = flow.sample(params["flow"], noise, condition, config)
        if forced is not None:
            mel = forced.speech
        shape = (B, config.speech_slots)
        own = _output_slots(
            Stream.SPEECH,
            jnp.zeros(shape, jnp.int32),
            jnp.broadcast_to(jnp.arange(config.speech_slots)[None], shape),
            jnp.broadcast_to(speaks[:, None], shape),
            micro_turn,
        )
        rows = speech_rows(mel, config).astype(jnp.float32)
        none = _no_payloads(B, config)
        hidden, cache = _append(
            params,
            cache,
            own,
            Payloads(audio=none.audio, patches=none.patches, speech=rows),
            config,
            room,
        )
        return cache, mel, hidden

    def silent(cache):
        hidden = jnp.zeros((B, config.speech_slots, last.shape[-1]), last.dtype)
        return cache, jnp.zeros_like(noise), hidden

    cache, mel, hidden_speech = jax.lax.cond(jnp.any(speaks), spoken, silent, cache)
    return cache, AdvanceOutputs(
        tokens=tokens,
        logits=scores,
        speaks=speaks,
        mel=mel,
        noise=noise,
        condition=condition,
        hidden_in=hidden_in,
        hidden_out=hidden_out,
        hidden_speech=hidden_speech,
    )
