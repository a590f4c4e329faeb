"""Models and their contract from whatever form the base model has."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearer.errors import ArtifactCorrupt, InputError
from nearer.models.contract import Contract
from nearer.models.load import is_cross_encoder, load_embedder, load_reranker
from nearer.models.save import save_embedder
from nearer.models.source import ModelSource
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "


def source_of(path: Path, *, name: str = "base") -> ModelSource:
    return ModelSource(name=name, path=path, fingerprint="f", origin="directory", revision="f")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("bert"))


def test_a_bare_encoder_gets_mean_pooling(bert: Path) -> None:
    """What no sentence-transformers directory says is derived: mean, normalised, cosine, no prefixes."""
    contract = load_embedder(source_of(bert)).contract
    assert (contract.pooling, contract.normalize, contract.similarity) == ("mean", True, "cosine")
    assert (contract.dimension, contract.max_query_tokens, contract.max_passage_tokens) == (32, 256, 256)
    assert (contract.query_prefix, contract.passage_prefix) == ("", "")
    assert contract.special_tokens["[PAD]"] == 0


def test_a_bare_decoder_gets_its_last_token(tmp_path: Path) -> None:
    """A causal model is pooled at its last token, padded on the right with a token of its own."""
    embedder = load_embedder(source_of(tiny_embedder(tmp_path / "neox", architecture="gpt_neox")))
    assert (embedder.contract.pooling, embedder.contract.padding_side) == ("lasttoken", "right")
    assert embedder.model.tokenizer.pad_token == "<|endoftext|>"


def test_prompts_become_prefixes(tmp_path: Path) -> None:
    """A sentence-transformers directory's prompts are the contract's prefixes."""
    path = tiny_embedder(tmp_path / "st", sentence_transformer=True)
    contract = load_embedder(source_of(path)).contract
    assert (contract.query_prefix, contract.passage_prefix) == ("query: ", "passage: ")


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("intfloat/multilingual-e5-small", ("query: ", "passage: ")),
        ("models/e5", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", (INSTRUCTION, "")),
        ("intfloat/e5-mistral-7b-instruct", (INSTRUCTION, "")),
        ("BAAI/bge-large-en-v1.5", ("Represent this sentence for searching relevant passages: ", "")),
        ("BAAI/bge-small-zh", ("为这个句子生成表示以用于检索相关文章：", "")),
        ("BAAI/bge-m3", ("", "")),
        ("some/model-e5x", ("", "")),
        ("bert-base-multilingual-cased", ("", "")),
    ],
)
def test_e5_and_bge_are_known_by_their_names(bert: Path, name: str, prefixes: tuple[str, str]) -> None:
    """The configs of these families name no prompts; their names do."""
    contract = load_embedder(source_of(bert, name=name)).contract
    assert (contract.query_prefix, contract.passage_prefix) == prefixes


def test_arguments_come_before_what_the_model_says(bert: Path) -> None:
    """A section's pooling and prefixes win, also over those of e5."""
    embedder = load_embedder(
        source_of(bert, name="x/e5-y"), pooling="cls", query_prefix="질문: ", passage_prefix="", chunk_tokens=9
    )
    assert (embedder.contract.pooling, embedder.model[1].pooling_mode) == ("cls", "cls")
    assert (embedder.contract.query_prefix, embedder.contract.passage_prefix) == ("질문: ", "")
    assert embedder.model.prompts == {"query": "질문: ", "document": ""}
    assert embedder.contract.chunk_tokens == 9


def test_the_contract_of_a_saved_model_is_read(bert: Path, tmp_path: Path) -> None:
    """A model that carries a contract is loaded by it, not guessed at again."""
    embedder = load_embedder(source_of(bert), query_prefix="q ", passage_prefix="p ", chunker="k", chunk_tokens=7)
    written = save_embedder(embedder, tmp_path)
    assert load_embedder(source_of(tmp_path)).contract == written
    assert Contract.load(tmp_path) == written


def test_a_plain_directory_must_fit_its_contract(bert: Path, tmp_path: Path) -> None:
    """Weights that are not those that contract.json names are refused."""
    save_embedder(load_embedder(source_of(bert)), tmp_path / "model")
    other = tiny_embedder(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", tmp_path / "model" / "model.safetensors")
    with pytest.raises(ArtifactCorrupt, match="the weights of 'base' are not those"):
        load_embedder(source_of(tmp_path / "model"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:2000]),
        lambda path: (path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: (path / "tokenizer.json").write_text("{"),
        lambda path: [file.unlink() for file in path.glob("tokenizer*")],
        lambda path: (path / "config.json").write_text('{"model_type": "no-such-model"}'),
        lambda path: (path / "config.json").write_text("not json"),
        lambda path: (path / "modules.json").write_text('[{"idx": 0}]'),
    ],
    ids=["cut", "lfs pointer", "no weights", "tokenizer cut", "no tokenizer", "unknown type", "no json", "modules"],
)
def test_an_unreadable_model_ends_in_words(bert: Path, tmp_path: Path, damage: object) -> None:
    """Whatever is wrong with the files, the error names the model and its place, and no traceback is a library's."""
    path = tmp_path / "model"
    shutil.copytree(bert, path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(InputError) as raised:
        load_embedder(source_of(path, name="models/damaged"))
    assert str(path) in str(raised.value)
    assert "way out" in str(raised.value) or raised.value.rule


def test_code_of_a_model_does_not_run(bert: Path, tmp_path: Path) -> None:
    """A model that needs its own code is refused by name of the setting, and its code is not imported."""
    path = tmp_path / "model"
    shutil.copytree(bert, path)
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="needs Python code of its own") as raised:
        load_embedder(source_of(path))
    assert "trust_remote_code" in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_what_is_a_cross_encoder(bert: Path, tmp_path: Path) -> None:
    """A head with one label makes a reranker; a bare encoder is none, and is refused as one."""
    assert is_cross_encoder(source_of(tiny_cross_encoder(tmp_path / "ce")))
    assert not is_cross_encoder(source_of(bert))
    with pytest.raises(InputError, match="is not a reranker"):
        load_reranker(source_of(bert))
    with pytest.raises(InputError, match="is a reranker, not an embedder"):
        load_embedder(source_of(tmp_path / "ce"))


def test_a_new_head_keeps_the_encoder(tmp_path: Path) -> None:
    """A reranker made of an embedder starts with the embedder's encoder."""
    path = tiny_embedder(tmp_path / "st", sentence_transformer=True)
    embedder = load_embedder(source_of(path))
    reranker = load_reranker(source_of(path), new_head=True, max_pair_tokens=64)
    own = dict(embedder.model[0].model.named_parameters())
    made = dict(reranker.model.transformers_model.base_model.named_parameters())
    shared = [name for name in made if name in own and "pooler" not in name]
    assert len(shared) > 20
    assert all(np.array_equal(made[name].detach().numpy(), own[name].detach().numpy()) for name in shared)
    assert reranker.contract.max_pair_tokens == 64
    scores = reranker.score([("질문", document["content"]) for document in korean_documents(3, 0)])
    assert scores.shape == (3,)
