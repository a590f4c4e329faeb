"""Every family of base models, as its checkpoints stand on the hub: the same promises for all of them."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from model_families import DECODERS, ENCODERS, POSITIONS, SIZE, Family
from safetensors.torch import load_file, save_file

from nearer.errors import InputError
from nearer.models.encode import Embedder, pad, tokenize
from nearer.models.load import load_embedder, load_reranker
from nearer.models.save import save_embedder
from nearer.models.source import ModelSource
from nearer.testing import korean_dataset, korean_documents
from nearer.train.collate import EmbedderCollator
from nearer.train.rows import prepare
from nearer.train.schedule import Schedule

FAMILIES = {family.name: family for family in (*DECODERS, *ENCODERS)}
OFTEN = {"polyglot-ko", "llama", "qwen3", "xlm-roberta", "klue-roberta"}
"""The ones that differ most, and that people use most; the others take their turn in `make test-full`."""


def each(families: Iterable[Family]) -> list:
    return [pytest.param(family.name, marks=() if family.name in OFTEN else pytest.mark.full) for family in families]


TEXTS = [
    "짧다",
    "끝 <|endoftext|>",
    "끝</s>",
    "",
    "가습기 " * 300,
    *(document["content"] for document in korean_documents(4, 3)),
]


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


def settings_of(path: Path, name: str, **changes: object) -> None:
    file = path / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Embedder]]:
    """Directory and embedder of each family, filled when first asked for."""
    root = tmp_path_factory.mktemp("families")

    class Made(dict[str, tuple[Path, Embedder]]):
        def __missing__(self, name: str) -> tuple[Path, Embedder]:
            path = FAMILIES[name].save(root / name)
            self[name] = (path, load_embedder(source_of(path), query_prefix="q: ", passage_prefix="p: "))
            return self[name]

    return Made()


@pytest.mark.parametrize("name", each(FAMILIES.values()))
def test_neither_company_nor_padding_changes_a_vector(made: dict, name: str) -> None:
    """A text alone, in a batch, and padded with any tokens that are masked has one vector."""
    _, embedder = made[name]
    alone = np.concatenate([embedder.encode_passages([text]) for text in TEXTS])
    assert np.abs(embedder.encode_passages(TEXTS) - alone).max() < 1e-5
    assert np.abs(alone[0] - alone[5]).max() > 1e-3
    assert embedder.contract.padding_side == "right"
    tokenizer = embedder.model.tokenizer
    encoded = tokenize(tokenizer, ["p: 짧다", "p: 가습기의 물때를 닦는다"], max_tokens=None)
    features = pad(tokenizer, encoded, [0, 1])
    wider = {key: torch.nn.functional.pad(value, (0, 5)) for key, value in features.items()}
    masked = wider["attention_mask"] == 0
    wider["input_ids"][masked] = torch.arange(int(masked.sum())) + 7  # by length, whatever the id
    with torch.no_grad():
        found = embedder.model.eval()(wider)["sentence_embedding"].numpy()
    assert np.abs(found - embedder.encode_passages(["짧다", "가습기의 물때를 닦는다"])).max() < 1e-5


@pytest.mark.parametrize("name", each(FAMILIES.values()))
def test_a_saved_model_scores_as_the_one_in_memory(made: dict, name: str, tmp_path: Path) -> None:
    """After saving, plain SentenceTransformer and we ourselves give the vectors, and read the contract, of before."""
    from sentence_transformers import SentenceTransformer

    _, embedder = made[name]
    passages, queries = embedder.encode_passages(TEXTS), embedder.encode_queries(TEXTS)
    written = save_embedder(embedder, tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    assert np.abs(plain.encode_document(TEXTS) - passages).max() < 1e-5
    assert np.abs(plain.encode_query(TEXTS, batch_size=3) - queries).max() < 1e-5
    again = load_embedder(source_of(tmp_path / "saved"))
    assert np.abs(again.encode_passages(TEXTS) - passages).max() < 1e-6
    assert again.contract == written
    assert (written.tokenizer_sha256, written.end_token) == (
        embedder.contract.tokenizer_sha256,
        embedder.contract.end_token,
    )


@pytest.mark.parametrize("name", each(FAMILIES.values()))
def test_texts_are_cut_at_the_exact_border(made: dict, name: str) -> None:
    """A text of the maximum length is whole, one token less cuts one of its own tokens, and the end stays as it was."""
    tokenizer = made[name][1].model.tokenizer
    whole = tokenize(tokenizer, ["가 나 " * 12], max_tokens=None)["input_ids"][0]
    special = tokenizer.num_special_tokens_to_add()
    for longest in (len(whole) + 1, len(whole), len(whole) - 1, special + 1):
        ids = tokenize(tokenizer, ["가 나 " * 12], max_tokens=longest)["input_ids"][0]
        assert len(ids) == min(longest, len(whole))
        assert ids[-1] == whole[-1]
    with pytest.raises(InputError, match=f"at most {special} tokens, of which {special} are special"):
        tokenize(tokenizer, ["가 나"], max_tokens=special)


@pytest.mark.parametrize("name", each(DECODERS))
def test_every_text_ends_in_one_end_token(made: dict, name: str) -> None:
    """Whatever pad token it has and adds itself, a decoder's text ends in one end token, which the contract names."""
    _, embedder = made[name]
    tokenizer, contract = embedder.model.tokenizer, embedder.contract
    assert contract.pooling == "lasttoken"
    assert contract.special_tokens[contract.end_token] == tokenizer.convert_tokens_to_ids(contract.end_token)
    assert tokenizer.pad_token in contract.special_tokens
    front = [FAMILIES[name].template[0]] if FAMILIES[name].template and FAMILIES[name].template[0] else []
    front = tokenizer.convert_tokens_to_ids(front)
    end = tokenizer.convert_tokens_to_ids(contract.end_token)
    for text in TEXTS:
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = tokenize(tokenizer, [text], max_tokens=POSITIONS)["input_ids"][0]
        assert ids == [*front, *own[: POSITIONS - 1 - len(front)], end]
    with torch.no_grad():
        features = tokenizer(["p: 가습기"], return_tensors="pt")
        last = embedder.model.eval()[0](dict(features))["token_embeddings"][0, -1].numpy()
    assert np.abs(embedder.encode_passages(["가습기"])[0] - last / np.linalg.norm(last)).max() < 1e-5


@pytest.mark.parametrize("name", ["polyglot-ko", "llama", "qwen3"])
def test_training_sees_the_tokens_of_encoding(made: dict, name: str) -> None:
    """A step's rows, padding taken off, are the tokens by which the same texts are encoded, in the same order."""
    _, embedder = made[name]
    tokenizer, contract = embedder.model.tokenizer, embedder.contract
    material = prepare(
        korean_dataset(20, 1), val_split=0.2, validation_queries_max=9, validation_passages_max=9, seed=1
    )
    collator = EmbedderCollator(
        material=material,
        schedule=Schedule(material=material, hard=1, random=0, seed=3),
        tokenizer=tokenizer,
        rows=6,
        query_prefix=contract.query_prefix,
        passage_prefix=contract.passage_prefix,
        max_query_tokens=6,
        max_passage_tokens=40,
        groups=False,
    )
    batch = collator([{"step": 0}])
    examples = collator.schedule.batch(0, rows=6)
    answers = [material.texts[example.row.positive] for example in examples]
    negatives = [material.texts[key] for example in examples for key in example.negatives]
    queries = [material.queries[example.row.query_id] for example in examples]
    for side, texts, prefix, longest in (
        ("query0", queries, contract.query_prefix, 6),
        ("passage0", [*answers, *negatives], contract.passage_prefix, 40),
    ):
        expected = tokenize(tokenizer, [prefix + text for text in texts], max_tokens=longest)["input_ids"]
        ids, mask = batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]
        assert [row[: int(length)].tolist() for row, length in zip(ids, mask.sum(dim=1), strict=True)] == expected
        assert all(row.tolist() == sorted(row.tolist(), reverse=True) for row in mask)
        assert max(map(len, expected)) == longest  # some were cut


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("polyglot-ko", "GPTNeoXForCausalLM"),
        pytest.param("gemma2", "Gemma2ForCausalLM", marks=pytest.mark.full),
        pytest.param("xlm-roberta", "XLMRobertaForMaskedLM", marks=pytest.mark.full),
    ],
)
def test_every_form_of_a_checkpoint_is_the_same_model(made: dict, tmp_path: Path, name: str, model: str) -> None:
    """With a language model's head (tied or not), in bf16 shards, or pickled: fp32 weights, and the same vectors."""
    path, embedder = made[name]
    expected = load_embedder(source_of(path)).encode_passages(TEXTS)
    with_head = getattr(transformers, model)(embedder.model.transformers_model.config)
    base = {key: value for key, value in FAMILIES[name].build().state_dict().items() if "pooler" not in key}
    with_head.base_model.load_state_dict(base)
    with_head.save_pretrained(tmp_path / "head")
    FAMILIES[name].save_tokenizer(tmp_path / "head")
    shutil.copytree(path, tmp_path / "pickled")
    torch.save(load_file(path / "model.safetensors"), tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    FAMILIES[name].save(tmp_path / "bf16", dtype=torch.bfloat16, shards=True)
    assert len(list((tmp_path / "bf16").glob("*.safetensors"))) > 1
    for form, tolerance in (("head", 1e-6), ("pickled", 1e-6), ("bf16", 2e-2)):
        found = load_embedder(source_of(tmp_path / form))
        assert {weight.dtype for weight in found.model.parameters()} == {torch.float32}
        assert np.abs(found.encode_passages(TEXTS) - expected).max() < tolerance


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_pickled_weights_run_no_code(made: dict, tmp_path: Path) -> None:
    """A `.bin` that holds more than tensors is refused, and what it holds does not run."""
    shutil.copytree(made["klue-roberta"][0], tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({"embeddings": Payload(tmp_path / "ran")}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load model"):
        load_embedder(source_of(tmp_path / "model"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["polyglot-ko", "klue-roberta"])
def test_weights_that_are_not_there_are_not_made_up(made: dict, tmp_path: Path, name: str) -> None:
    """Weights under other names, of which transformers would make random ones, end in words; also in a new reranker."""
    shutil.copytree(made[name][0], tmp_path / "model")
    weights = {f"student.{key}": value for key, value in load_file(made[name][0] / "model.safetensors").items()}
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"the checkpoint lacks \d+ weights .*(?s:.*)found beside are student\."):
        load_embedder(source_of(tmp_path / "model"))
    with pytest.raises(InputError, match="the checkpoint lacks"):
        load_reranker(source_of(tmp_path / "model"), new_head=True)


def test_one_token_type_is_enough(made: dict) -> None:
    """klue/roberta: its BertTokenizer marks a pair's passage with a token type that the model does not have."""
    reranker = load_reranker(source_of(made["klue-roberta"][0]), new_head=True)
    scores = reranker.score([("가습기", "물때를 닦는다"), ("가습기", "밥솥을 닦는다")])
    assert np.isfinite(scores).all()
    assert reranker.model.tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_a_tokenizer_of_its_own_is_foreign_code(made: dict, tmp_path: Path) -> None:
    """KoBERT's tokenizer class is not transformers' own: refused by name, where another would give other tokens."""
    shutil.copytree(made["kobert"][0], tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n가\n")
    own = {"tokenizer_class": "KoBertTokenizer", "auto_map": {"AutoTokenizer": ["kobert.KoBertTokenizer", None]}}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match="Python code of its own \\(tokenizer KoBertTokenizer\\)"):
        load_embedder(source_of(tmp_path / "model"))


def test_a_special_token_without_embedding_is_refused(tmp_path: Path) -> None:
    """A pad token that a fork added to its tokenizer only would be an IndexError in the first padded batch."""
    family = replace(FAMILIES["llama"], config={**FAMILIES["llama"].config, "vocab_size": 1203})
    path = family.save(tmp_path)
    settings_of(path, "tokenizer_config.json", pad_token="[PAD-NEW]")
    with pytest.raises(InputError, match=r"no embedding for \[PAD-NEW\] \(1203\)"):
        load_embedder(source_of(path))


def test_the_tokenizer_says_which_end_token(tmp_path: Path) -> None:
    """Where a fork's config names another end token than its tokenizer, the tokenizer's is appended and written."""
    path = FAMILIES["polyglot-ko"].save(tmp_path / "base")
    settings_of(path, "config.json", eos_token_id=2)
    embedder = load_embedder(source_of(path))
    save_embedder(embedder, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["eos_token_id"] == 0
    assert embedder.model.tokenizer("가")["input_ids"][-1] == 0


@pytest.mark.parametrize(
    ("pooling", "asked", "last"), [("lasttoken", True, "</s>"), ("lasttoken", False, None), ("mean", True, None)]
)
def test_an_end_token_is_appended_where_a_directory_asks(
    tmp_path: Path, pooling: str, asked: bool, last: str | None
) -> None:
    """e5-mistral asks by `add_eos_token`; what a ready embedder does not ask for is not added to it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    path = FAMILIES["llama"].save(tmp_path / "base")
    model = SentenceTransformer(modules=[Transformer(str(path)), Pooling(SIZE["hidden_size"], pooling)], device="cpu")
    model.save(str(tmp_path / "st"), create_model_card=False)
    settings_of(tmp_path / "st", "tokenizer_config.json", add_eos_token=asked)
    assert load_embedder(source_of(tmp_path / "st")).contract.end_token == last


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("polyglot-ko", {"rotary_pct": 0.5, "rotary_emb_base": 10_000}),
        ("qwen3", {"rope_theta": 1e6}),
        ("llama", {"rope_theta": 5e5}),
        ("gemma3", {"rope_theta": 1e6, "rope_local_base_freq": 1e4}),
    ],
)
def test_positions_are_written_for_older_readers(made: dict, tmp_path: Path, name: str, old: dict) -> None:
    """Version 4 of transformers finds the rotary positions by its own names; without these it takes its defaults."""
    save_embedder(made[name][1], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {key: config[key] for key in old} == old
    scaling = {"llama": ("llama3", 8.0), "gemma3": ("linear", 8.0)}.get(name)
    found = config.get("rope_scaling")
    assert scaling == (found and (found["rope_type"], found["factor"]))
