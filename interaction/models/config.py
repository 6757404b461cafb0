"""The shape of the model.

In: numbers, checked here. Out: frozen dataclasses that every other file of `models` reads. The
backbone is the Inkling architecture (released under Apache-2.0 by Thinking Machines Lab); by
config the same stack is a Llama-class dense decoder.
"""

import dataclasses
import enum

from interaction.kernels import attention
from interaction.kernels.implementation import Implementation
from interaction.microturn import Grid
from interaction.models.memory import MemoryConfig
from interaction.models.vision_widths import reference_stages
from interaction.models.vocoder import VocoderConfig
from interaction.streams.layout import WeaveConfig
from interaction.streams.mel import MelConfig


class AttentionKind(enum.Enum):
    """Which earlier slots a layer may look at."""

    LOCAL = "local"
    GLOBAL = "global"


class MlpKind(enum.Enum):
    """Dense gated MLP, or routed experts with shared ones."""

    DENSE = "dense"
    MOE = "moe"


class PositionScheme(enum.Enum):
    """How position reaches attention: Inkling's learned bias by distance, or rotary."""

    RELATIVE_BIAS = "relative_bias"
    ROTARY = "rotary"


class QueryKeyNorm(enum.Enum):
    """RMS norm of every query and key head (scale 1/H), or none (scale 1/sqrt(H))."""

    PER_HEAD = "per_head"
    NONE = "none"


class CacheType(enum.Enum):
    """What keys and values of live sessions are kept as; sums over them are float32.

    With BFLOAT16, XLA and the kernels for TPU and GPU round softmax weights to it too, these
    kernels queries as well; C++ rounds keys and values alone.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Recompute(enum.Enum):
    """What training computes again in the backward pass instead of keeping it.

    LAYERS: everything inside a layer; between the passes only each layer's input is kept, at the
    price of one more forward pass (Chen et al. 2016, arXiv 1604.06174).
    """

    NONE = "none"
    LAYERS = "layers"


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Heads of one kind of layer.

    Attributes:
        heads, kv_heads, head_width: N, K, H.
        window: a slot sees keys at distance < window; None: all.
        bias_extent: the relative bias is zero at this distance and beyond (0 with rotary).
    """

    heads: int
    kv_heads: int
    head_width: int
    window: int | None
    bias_extent: int

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is no multiple of kv_heads={self.kv_heads}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1, or None")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The decoder stack.

    Attributes:
        vocabulary: V, rows of the embedding and of the output matrix.
        unpadded_vocabulary: logits beyond it are dropped; None: all kept.
        width: D.
        attention_kinds, mlp_kinds: one per layer, bottom first.
        local, global_: heads of each kind; None where no layer is of that kind.
        dense_width, expert_width: F of dense layers and of each expert.
        experts, experts_per_slot, shared_experts: E, A, and the experts every slot uses.
        route_scale: factor on the normalised router weights.
        bias_width: width of the state that mixes the relative-bias profiles (d_rel).
        convolution_width: taps of the causal depth-wise convolutions; 0: none.
        scaling_floor: slots from which global attention is scaled up by
            ``1 + scaling_alpha ln(n / floor)``; None: off.
        logits_divisor: muP width multiplier that hidden states are divided by before the logits.
        embedding_norm: the text embedding is RMS-normalised (Inkling) or used as it is.
        tied: the output matrix is the embedding transposed.
        unroll: layers (periods) unrolled per iteration of the layer scan.
        recompute: what training's backward pass computes again.
        query_slots: training: queries of a layer whose scores are there at once (of a sliding
            layer its window); they are computed again in the backward pass. 0: all. Where slots
            are split over devices (`sharding`'s ``sequence``), the scores are, and all are there.
            NATIVE always goes by 32.
        implementation: who computes attention, experts and flow of live calls: REFERENCE (XLA;
            touched experts alone), NATIVE (C++, for one CPU core; flow stays XLA's), PALLAS_TPU or
            PALLAS_GPU. Training by NATIVE is C++ where it is float32; otherwise it is always XLA.
    """

    vocabulary: int
    width: int
    attention_kinds: tuple[AttentionKind, ...]
    mlp_kinds: tuple[MlpKind, ...]
    local: AttentionConfig | None = None
    global_: AttentionConfig | None = None
    dense_width: int = 0
    expert_width: int = 0
    experts: int = 0
    experts_per_slot: int = 0
    shared_experts: int = 0
    route_scale: float = 8.0
    bias_width: int = 16
    convolution_width: int = 4
    position_scheme: PositionScheme = PositionScheme.RELATIVE_BIAS
    rotary_base: float = 10_000.0
    query_key_norm: QueryKeyNorm = QueryKeyNorm.PER_HEAD
    scaling_floor: int | None = None
    scaling_alpha: float = 0.1
    logits_divisor: float = 1.0
    unpadded_vocabulary: int | None = None
    embedding_norm: bool = True
    tied: bool = False
    norm_epsilon: float = 1e-6
    unroll: int = 1
    recompute: Recompute = Recompute.NONE
    query_slots: int = 0
    implementation: Implementation = Implementation.REFERENCE

    def __post_init__(self):
        if self.implementation not in attention.KNOWN:
            raise ValueError(
                f"implementation={self.implementation.name} is none of "
                f"{', '.join(known.name for known in attention.KNOWN)}"
            )
        if len(self.attention_kinds) != len(self.mlp_kinds):
            raise ValueError(
                f"attention_kinds has {len(self.attention_kinds)} layers and mlp_kinds "
                f"{len(self.mlp_kinds)}"
            )
        for kind in AttentionKind:
            if kind in self.attention_kinds:
                self.attention(kind)
        if MlpKind.MOE in self.mlp_kinds and not (
            0 < self.experts_per_slot <= self.experts and self.expert_width > 0
        ):
            raise ValueError(
                f"experts_per_slot={self.experts_per_slot} must lie in 1..experts={self.experts} "
                f"and expert_width={self.expert_width} be positive"
            )
        if MlpKind.DENSE in self.mlp_kinds and self.dense_width < 1:
            raise ValueError(f"dense layers need dense_width >= 1, not {self.dense_width}")
        if self.query_slots < 0:
            raise ValueError(f"query_slots={self.query_slots} must not be negative")
        size = self.unpadded_vocabulary
        if size is not None and not 0 < size <= self.vocabulary:
            raise ValueError(f"unpadded_vocabulary={size} must lie in 1..{self.vocabulary}")

    @property
    def layers(self) -> int:
        """L."""
        return len(self.attention_kinds)

    @property
    def logits_size(self) -> int:
        """Number of logits that are kept."""
        return self.unpadded_vocabulary or self.vocabulary

    def attention(self, kind: AttentionKind) -> AttentionConfig:
        """Heads of layers of `kind`.

        Raises:
            ValueError: they are not given.
        """
        heads = self.local if kind is AttentionKind.LOCAL else self.global_
        if heads is None:
            raise ValueError(f"attention_kinds holds {kind} but its heads are not given")
        return heads

    def count(self, kind: AttentionKind | MlpKind) -> int:
        """Number of layers of `kind`."""
        kinds = self.attention_kinds if isinstance(kind, AttentionKind) else self.mlp_kinds
        return sum(k is kind for k in kinds)


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """Heard audio: dMel bands and levels (Bai et al. 2024, arXiv 2407.15835)."""

    bands: int = 80
    levels: int = 16


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Video tubelets and the hMLP stem (Touvron et al. 2022, arXiv 2203.09795).

    Attributes:
        patch: pixels on a side (40).
        frames: frames of a tubelet (2).
        channels: colours.
        stages: output width of each fold + linear stage but the last, as (time fold, space fold,
            width); None: the reference rule for `reference_layers` stages.
        reference_layers: stages of the reference rule.
        max_patches: P, patches of a micro-turn at most.
    """

    patch: int = 40
    frames: int = 2
    channels: int = 3
    stages: tuple[tuple[int, int, int], ...] | None = None
    reference_layers: int = 4
    max_patches: int = 4

    def plan(self, width: int) -> tuple[tuple[int, int, int, int], ...]:
        """Each stage as (time fold, space fold, inputs, outputs); the last one gives `width`."""
        if self.stages is None:
            return reference_stages(
                self.frames, self.patch, self.reference_layers, self.channels, width
            )
        plan, size, time, space = [], self.channels, 1, 1
        for index, (fold_time, fold_space, out) in enumerate(self.stages):
            last = index == len(self.stages) - 1
            inputs = size * fold_time * fold_space**2
            plan.append((fold_time, fold_space, inputs, width if last else out))
            size, time, space = out, time * fold_time, space * fold_space
        if (time, space) != (self.frames, self.patch):
            raise ValueError(
                f"stages fold {time} frames of {space} pixels, the tubelet has {self.frames} "
                f"of {self.patch}"
            )
        return tuple(plan)


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """The flow-matching audio head (AdaLN MLP).

    Attributes:
        width: inner width.
        blocks: residual blocks.
        time_features: sine and cosine features of the flow time.
        steps: Euler steps when sampling.
        temperature: standard deviation of the starting noise when sampling.
    """

    width: int = 256
    blocks: int = 3
    time_features: int = 64
    steps: int = 8
    temperature: float = 1.0

    def __post_init__(self):
        for name in ("width", "blocks", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.time_features < 2 or self.time_features % 2:
            raise ValueError(f"time_features={self.time_features} must be even, at least 2")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must not be negative")


@dataclasses.dataclass(frozen=True)
class InteractionConfig:
    """The whole interaction model.

    Attributes:
        speech_slots: slots that one 200 ms chunk of own speech takes (divides R).
        max_text_out: U, output ids of a micro-turn at most, the closer included.
        max_text_in: text-in slots of a micro-turn at most, source tokens included.
        max_audio_chunks: C, chunks woven into one micro-turn at most (late ones included).
        max_lateness: a chunk later than this many micro-turns is dropped.
        pass_bias: taken off the logit of PASS where a micro-turn's output begins. A model that is
            unsure by a few micro-turns when to speak spreads its belief over them, and the best
            single guess is silence at each; a bias above 0 lets it speak, below 0 makes it shyer.
        time_scales: number of octaves of the micro-turn embedding.
        global_slots: slots per lane that a global layer holds, reserved at admission.
        memory: which slots give way when these are full.
        cache_type: what lanes keep keys and values as.
    """

    transformer: TransformerConfig
    grid: Grid = Grid()
    audio: AudioConfig = AudioConfig()
    vision: VisionConfig = VisionConfig()
    flow: FlowConfig = FlowConfig()
    vocoder: VocoderConfig = VocoderConfig()
    ordinary_tokens: int = 256
    speech_slots: int = 2
    max_text_out: int = 12
    max_text_in: int = 16
    max_audio_chunks: int = 2
    max_lateness: int = 3
    pass_bias: float = 0.0
    time_scales: int = 8
    global_slots: int = 4096
    memory: MemoryConfig = MemoryConfig()
    cache_type: CacheType = CacheType.FLOAT32

    def __post_init__(self):
        frames = self.grid.mel_frames
        if frames % self.speech_slots:
            raise ValueError(f"speech_slots={self.speech_slots} does not divide {frames} frames")
        if self.mel.hop != self.grid.mel_hop:
            raise ValueError(
                f"mel.hop={self.mel.hop} differs from grid.mel_hop={self.grid.mel_hop}"
            )
        if self.transformer.global_ and self.global_slots < self.weave.max_slots:
            raise ValueError(
                f"global_slots={self.global_slots} does not hold the {self.weave.max_slots} slots "
                "that one micro-turn may take"
            )
        needed = self.ordinary_tokens + 14
        if self.transformer.logits_size < needed:
            raise ValueError(
                f"the vocabulary keeps {self.transformer.logits_size} logits; {needed} are needed "
                f"for ordinary_tokens={self.ordinary_tokens} and 14 control tokens"
            )

    @property
    def mel(self) -> MelConfig:
        """The output mel, which the vocoder reads."""
        return self.vocoder.mel

    @property
    def weave(self) -> WeaveConfig:
        """The sizes that the weave depends on."""
        return WeaveConfig(
            ordinary_tokens=self.ordinary_tokens,
            audio_frames=self.grid.audio_frames,
            mel_frames=self.grid.mel_frames,
            mel_bands=self.mel.bands,
            speech_slots=self.speech_slots,
            patch=self.vision.patch,
            tubelet_frames=self.vision.frames,
            max_patches=self.vision.max_patches,
            max_text_in=self.max_text_in,
            max_text_out=self.max_text_out,
            max_audio_chunks=self.max_audio_chunks,
            max_lateness=self.max_lateness,
            audio_bands=self.audio.bands,
            audio_levels=self.audio.levels,
            samples=self.grid.samples,
        )

    @property
    def max_input_slots(self) -> int:
        """Slots of one micro-turn's input at most, its BEGIN slot included."""
        return (
            self.vision.max_patches
            + self.max_text_in
            + self.max_audio_chunks * self.grid.audio_frames
            + 1
        )

    @property
    def speech_features(self) -> int:
        """Numbers in one own-speech slot."""
        return self.grid.mel_frames // self.speech_slots * self.mel.bands

    def local_slots(self) -> int:
        """Ring length of a sliding layer: its window and one call's new slots."""
        assert self.transformer.local is not None
        return (self.transformer.local.window or 0) + self.max_input_slots
