"""Tiny random models of the true classes that people make embedders of, as their checkpoints stand on the hub."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from nearer.testing import _tokenizer

POSITIONS = 96
SIZE = {
    "vocab_size": 1300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.1,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_FAR = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GEMMA3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
"""Rotary positions as the families really have them: not the defaults of their classes."""
_HALF = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000, "partial_rotary_factor": 0.5}}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model type: its class, what its config needs beside the sizes, and how its tokenizer is delivered."""

    name: str
    model: str
    config: dict[str, Any] = field(default_factory=dict)
    vocabulary: str = "gpt_neox"
    special: dict[str, str] = field(default_factory=dict)
    template: tuple[str, str] | None = None
    """What the tokenizer itself puts before and after a text."""
    tokenizer: dict[str, Any] = field(default_factory=dict)
    """More of tokenizer_config.json."""
    causal: bool = True

    def build(self) -> PreTrainedModel:
        """The model with random weights, always the same."""
        model_class = getattr(transformers, self.model)
        accepted = {**SIZE, **self.config}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model_class(model_class.config_class(**accepted)).eval()

    def save(self, directory: Path, *, dtype: torch.dtype = torch.float32, shards: bool = False) -> Path:
        """Write the checkpoint and its tokenizer."""
        directory.mkdir(parents=True, exist_ok=True)
        model = self.build().to(dtype)
        model.save_pretrained(directory, **({"max_shard_size": "40KB"} if shards else {}))
        self.save_tokenizer(directory)
        return directory

    def save_tokenizer(self, directory: Path) -> None:
        """Write the tokenizer alone."""
        backend = _tokenizer(self.vocabulary)  # type: ignore[arg-type]
        if self.name == "qwen2":  # transformers gives every Qwen2 this one, whatever stands in tokenizer.json
            split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
            bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
        backend.add_special_tokens(sorted(set(self.special.values())))
        if self.template:
            before, after = self.template
            used = [(token, backend.token_to_id(token)) for token in (before, after) if token]
            backend.post_processor = processors.TemplateProcessing(
                single=" ".join(filter(None, (before, "$A", after))),
                pair=" ".join(filter(None, (before, "$A", after, "$B:1", after and f"{after}:1"))),
                special_tokens=used,
            )
        names = {f"{name}_token": token for name, token in self.special.items()}
        PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(directory)
        path = directory / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **self.tokenizer}))


def _gpt(name: str, model: str, **more: Any) -> Family:
    end = "<|endoftext|>"
    return Family(name=name, model=model, special={"eos": end, "bos": end, "unk": end}, **more)


_LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_QWEN = {"eos": "<|im_end|>", "pad": "<|endoftext|>"}
_GEMMA = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_GPT2 = {"n_positions": POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 4}
_BERT_LIKE = {"causal": False, "vocabulary": "bert", "special": _BERT}
_XLM = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "bos": "<s>", "eos": "</s>"}

DECODERS = (
    _gpt("polyglot-ko", "GPTNeoXModel", config=_HALF, tokenizer={"tokenizer_class": "PreTrainedTokenizerFast"}),
    _gpt("pythia", "GPTNeoXModel", tokenizer={"tokenizer_class": "GPTNeoXTokenizer"}),
    _gpt("kogpt2", "GPT2Model", config=_GPT2),
    _gpt("bloom", "BloomModel", config={"n_layer": 2, "n_head": 4}, tokenizer={"padding_side": "left"}),
    Family(name="llama", model="LlamaModel", config={**_GROUPED, "rope_parameters": _LLAMA3}, special=_LLAMA, template=("<s>", "")),
    Family(name="mistral", model="MistralModel", config={**_GROUPED, **_FAR, "sliding_window": 8}, special=_LLAMA,
           template=("<s>", "</s>"), tokenizer={"padding_side": "left"}),
    Family(name="qwen2", model="Qwen2Model", config={**_GROUPED, **_FAR}, special=_QWEN),
    Family(name="qwen3", model="Qwen3Model", config={**_GROUPED, **_FAR}, special=_QWEN, template=("", "<|endoftext|>"),
           tokenizer={"padding_side": "left"}),
    Family(name="gemma2", model="Gemma2Model", config=_GROUPED, special=_GEMMA, template=("<bos>", "")),
    Family(name="gemma3", model="Gemma3TextModel",
           config={**_GROUPED, "rope_parameters": _GEMMA3, "sliding_window": 8,
                   "layer_types": ["sliding_attention", "full_attention"]}, special=_GEMMA, template=("<bos>", "")),
    Family(name="exaone4", model="Exaone4Model", config={**_GROUPED, **_FAR, "layer_types": ["full_attention"] * 2},
           special={"eos": "[|endofturn|]", "bos": "[BOS]", "pad": "[PAD]", "unk": "[UNK]"}),
    Family(name="hyperclovax", model="HyperCLOVAXModel", config=_GROUPED,
           special={"eos": "<|endofturn|>", "bos": "<|endoftext|>", "pad": "<|endoftext|>"}),
)  # fmt: skip

ENCODERS = (
    Family(name="mbert", model="BertModel", **_BERT_LIKE),
    Family(name="klue-roberta", model="RobertaModel", **_BERT_LIKE,
           config={"type_vocab_size": 1, "pad_token_id": 0, "max_position_embeddings": POSITIONS + 2},
           tokenizer={"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS}),
    Family(name="kobert", model="BertModel", causal=False, vocabulary="xlm-roberta",
           config={"pad_token_id": 1}, template=("[CLS]", "[SEP]"), special={**_BERT, "pad": "<pad>", "unk": "<unk>"}),
    Family(name="koelectra", model="ElectraModel", config={"embedding_size": 16}, **_BERT_LIKE),
    Family(name="distilkobert", model="DistilBertModel", **_BERT_LIKE,
           config={"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    Family(name="xlm-roberta", model="XLMRobertaModel", causal=False, vocabulary="xlm-roberta", special=_XLM,
           config={"type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2}),
    Family(name="modernbert", model="ModernBertModel", config={"pad_token_id": 0}, **_BERT_LIKE),
)  # fmt: skip
