"""The weights of a model, from its config.json alone: what they are called, how big they are, which of them train.

Plain arithmetic, so that a dry run can say what fits without loading, or even installing, PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, Literal

Style = Literal["neox", "bert", "llama"]
Precision = Literal["fp32", "bf16", "fp16"]

_STYLES: Final[Mapping[str, Style]] = {
    "gpt_neox": "neox",
    "bert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
}
_INPUTS: Final[Mapping[Style, Mapping[str, tuple[str, ...]]]] = {
    "neox": {
        "attention": ("attention.query_key_value",),
        "attention output": ("attention.dense",),
        "mlp": ("mlp.dense_h_to_4h",),
        "mlp output": ("mlp.dense_4h_to_h",),
    },
    "bert": {
        "attention": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention output": ("attention.output.dense",),
        "mlp": ("intermediate.dense",),
        "mlp output": ("output.dense",),
    },
    "llama": {
        "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention output": ("self_attn.o_proj",),
        "mlp": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp output": ("mlp.down_proj",),
    },
}
"""The linear layers of a block by what they read; those of a group read the same thing."""
_TARGETS: Final[Mapping[Style, tuple[str, ...]]] = {
    "neox": ("query_key_value",),
    "bert": ("query", "value"),
    "llama": ("q_proj", "v_proj"),
}
"""Layers that PEFT gives an adapter when none are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """One parameter. `used`: a loss reaches it (not the pooler of an embedder, which stays without gradient)."""

    name: str
    shape: tuple[int, ...]
    layer: int | None = None
    trains: bool = True
    used: bool = True

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's weights, in the order of its `parameters()`, and the widths that its activations have."""

    architecture: str
    style: Style
    weights: tuple[Weight, ...]
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head: int
    normed_heads: bool
    parallel: bool
    dropout: float
    """Probability that the config names, of hidden states or attention."""

    @property
    def count(self) -> int:
        """How many numbers all weights have."""
        return sum(weight.count for weight in self.weights)

    @property
    def trainable(self) -> tuple[Weight, ...]:
        """The weights that train."""
        return tuple(weight for weight in self.weights if weight.trains)

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        """The linear layers of a block by what they read."""
        return _INPUTS[self.style]


def model_shape(config: Mapping[str, Any], *, reranker: bool = False) -> Shape | None:
    """The shape of what `AutoModel` makes of a config.json; of a reranker, `AutoModelForSequenceClassification`.

    Returns:
        None for an architecture that is not known here.
    """
    style = _STYLES.get(str(config.get("model_type")))
    if style is None:
        return None
    try:
        hidden, heads, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
        make = {"neox": _neox, "bert": _bert, "llama": _llama}[style]
        weights = tuple(make(config, reranker=reranker))
        intermediate = config["intermediate_size"]
    except KeyError:
        return None
    return Shape(
        architecture=config["model_type"],
        style=style,
        weights=weights,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_heads=config.get("num_key_value_heads") or heads,
        head=_head(config),
        normed_heads=config["model_type"] == "qwen3",
        parallel=style == "neox" and config.get("use_parallel_residual", True),
        dropout=0.0
        if style != "bert"
        else max(config.get("hidden_dropout_prob", 0.1), config.get("attention_probs_dropout_prob", 0.1)),
    )


def freeze(shape: Shape, *, embeddings: bool, layers: int) -> Shape:
    """The shape with its embeddings or first layers held still, as `nearer.train.trainable.freeze` does."""

    def holds(weight: Weight) -> bool:
        if weight.layer is not None:
            return weight.layer < layers
        return embeddings and any(name in weight.name for name in ("embeddings.", "embed_in.", "embed_tokens."))

    return replace(shape, weights=tuple(replace(each, trains=not holds(each)) for each in shape.weights))


def adapt(shape: Shape, *, rank: int, targets: Sequence[str] | None) -> Shape:
    """The shape with LoRA adapters (Hu et al. 2021): they and a reranker's head train, all else does not.

    Args:
        shape: of the whole model.
        rank: of each adapter: (rank, in) and (out, rank).
        targets: last parts of the names of the layers that get one; None: what PEFT names for the architecture.
    """
    targets = tuple(targets or _TARGETS[shape.style])
    found: list[Weight] = []
    waiting: list[Weight] = []
    module = ""
    for weight in shape.weights:
        name = weight.name.rpartition(".")[0]
        if name != module:  # PEFT puts the adapters behind the weight and the bias of their layer
            found += waiting
            module, waiting = name, []
        adapted = len(weight.shape) == 2 and any(name == each or name.endswith(f".{each}") for each in targets)
        head = weight.layer is None and name.startswith(("classifier", "score"))
        if adapted:
            outputs, inputs = weight.shape
            for part, size in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
                waiting.append(replace(weight, name=f"{name}.{part}.default.weight", shape=size, trains=True))
        found.append(replace(weight, trains=head))
    return replace(shape, weights=(*found, *waiting))


def count_of(weights: Iterable[Weight]) -> int:
    """How many numbers some weights have."""
    return sum(weight.count for weight in weights)


def _head(config: Mapping[str, Any]) -> int:
    if config["model_type"] == "qwen3":  # its config's default, whatever the width
        return int(config.get("head_dim") or 128)
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _layer(prefix: str, layer: int, parts: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[Weight]:
    for name, size in parts:
        yield Weight(name=f"{prefix}.{layer}.{name}", shape=size, layer=layer)


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (outputs, inputs)), *([(f"{name}.bias", (outputs,))] if bias else [])]


def _norm(name: str, width: int, *, bias: bool = True) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (width,)), *([(f"{name}.bias", (width,))] if bias else [])]


def _neox(config: Mapping[str, Any], *, reranker: bool) -> Iterator[Weight]:
    hidden, inner, base = config["hidden_size"], config["intermediate_size"], "gpt_neox." if reranker else ""
    bias = config.get("attention_bias", True)
    yield Weight(name=f"{base}embed_in.weight", shape=(config["vocab_size"], hidden))
    for layer in range(config["num_hidden_layers"]):
        yield from _layer(
            f"{base}layers",
            layer,
            [
                *_norm("input_layernorm", hidden),
                *_norm("post_attention_layernorm", hidden),
                *_linear("attention.query_key_value", 3 * hidden, hidden, bias=bias),
                *_linear("attention.dense", hidden, hidden, bias=bias),
                *_linear("mlp.dense_h_to_4h", inner, hidden),
                *_linear("mlp.dense_4h_to_h", hidden, inner),
            ],
        )
    yield from _free(f"{base}final_layer_norm", _norm("", hidden))
    if reranker:
        yield Weight(name="score.weight", shape=(1, hidden))


def _llama(config: Mapping[str, Any], *, reranker: bool) -> Iterator[Weight]:
    hidden, inner, base = config["hidden_size"], config["intermediate_size"], "model." if reranker else ""
    heads = config["num_attention_heads"]
    head = _head(config)
    keys = (config.get("num_key_value_heads") or heads) * head
    kind = config["model_type"]
    attention, output = config.get("attention_bias", False), config.get("attention_bias", False)
    if kind == "qwen2":
        attention, output = True, False
    mlp = config.get("mlp_bias", False)
    yield Weight(name=f"{base}embed_tokens.weight", shape=(config["vocab_size"], hidden))
    for layer in range(config["num_hidden_layers"]):
        yield from _layer(
            f"{base}layers",
            layer,
            [
                *_linear("self_attn.q_proj", heads * head, hidden, bias=attention),
                *_linear("self_attn.k_proj", keys, hidden, bias=attention),
                *_linear("self_attn.v_proj", keys, hidden, bias=attention),
                *_linear("self_attn.o_proj", hidden, heads * head, bias=output),
                *(_norm("self_attn.q_norm", head, bias=False) if kind == "qwen3" else []),
                *(_norm("self_attn.k_norm", head, bias=False) if kind == "qwen3" else []),
                *_linear("mlp.gate_proj", inner, hidden, bias=mlp),
                *_linear("mlp.up_proj", inner, hidden, bias=mlp),
                *_linear("mlp.down_proj", hidden, inner, bias=mlp),
                *_norm("input_layernorm", hidden, bias=False),
                *_norm("post_attention_layernorm", hidden, bias=False),
            ],
        )
    yield from _free(f"{base}norm", _norm("", hidden, bias=False))
    if reranker:
        yield Weight(name="score.weight", shape=(1, hidden))


def _bert(config: Mapping[str, Any], *, reranker: bool) -> Iterator[Weight]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    plain = config["model_type"] == "bert"
    base = ("bert." if plain else "roberta.") if reranker else ""
    words = ("word_embeddings.weight", (config["vocab_size"], hidden))
    positions = ("position_embeddings.weight", (config.get("max_position_embeddings", 512), hidden))
    types = ("token_type_embeddings.weight", (config.get("type_vocab_size", 2), hidden))
    norm = _norm("LayerNorm", hidden)
    head = [*_linear("dense", hidden, hidden), *_linear("out_proj", 1, hidden)]
    if reranker and config["model_type"] == "xlm-roberta":
        yield from _free("classifier", head)
    order = [words, positions, types, *norm] if plain else [words, types, *norm, positions]
    yield from _free(f"{base}embeddings", order)
    for layer in range(config["num_hidden_layers"]):
        yield from _layer(
            f"{base}encoder.layer",
            layer,
            [
                *_linear("attention.self.query", hidden, hidden),
                *_linear("attention.self.key", hidden, hidden),
                *_linear("attention.self.value", hidden, hidden),
                *_linear("attention.output.dense", hidden, hidden),
                *_norm("attention.output.LayerNorm", hidden),
                *_linear("intermediate.dense", inner, hidden),
                *_linear("output.dense", hidden, inner),
                *_norm("output.LayerNorm", hidden),
            ],
        )
    if plain or not reranker:
        yield from _free(f"{base}pooler", _linear("dense", hidden, hidden), used=reranker)
    if reranker and plain:
        yield from _free("classifier", _linear("", 1, hidden))
    elif reranker and config["model_type"] != "xlm-roberta":
        yield from _free("classifier", head)


def _free(module: str, parts: Sequence[tuple[str, tuple[int, ...]]], *, used: bool = True) -> Iterator[Weight]:
    for name, size in parts:
        yield Weight(name=f"{module}.{name.removeprefix('.')}", shape=size, used=used)
