import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.corpus.dataset import Dataset
from nearer.errors import ArtifactCorrupt, ArtifactMissing, GateRefused, InputError
from nearer.export.graph import write_fp32, write_int8
from nearer.export.run import plan, run
from nearer.models.load import load_reranker
from nearer.models.onnx import GRAPH, load_onnx_reranker
from nearer.models.save import save_reranker, save_reranker_config
from nearer.models.score import Reranker
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.records import Judgment, Passage, Query
from nearer.settings.model import Settings
from nearer.store import Manifest, Store, open_store
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

PAIRS = [
    ("가습기 물때세척", "가습기의 물때세척은 춘천 서비스센터에서 3일 안에 처리한다."),
    ("제습기", "총무팀"),
    ("온수매트 보증기간은 얼마나 됩니까?", "비용은 3천 원이고 총무팀 예산에서 나간다. " * 60),
    ("", "영수증이 없어도 12개월 동안 받아 준다."),
]


class Heard(Silent):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str, **facts: object) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder, a tiny embedder and a cross-encoder with RoBERTa's positions and no length limit."""
    directory = tmp_path_factory.mktemp("models")
    tiny_cross_encoder(directory / "reranker")
    tiny_embedder(directory / "embedder")
    xlmr = tiny_embedder(directory / "xlmr", architecture="xlm-roberta")
    path = xlmr / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["model_max_length"]
    path.write_text(json.dumps(config), encoding="utf-8")
    return directory


def load(models: Path, name: str = "reranker") -> Reranker:
    source = find_model(str(models / name), store=open_store(str(models)))
    return load_reranker(source, device="cpu", new_head=name != "reranker")


@pytest.fixture
def store(workdir: Path) -> Store:
    """A store with a dataset of 30 one-passage documents, ten of them test, at the address where `generate` puts it."""
    rows = korean_documents(30, seed=2)
    passages = [
        Passage(id=row["docid"], document_id=row["docid"], title=row["title"], text=row["content"]) for row in rows
    ]
    dataset = Dataset(
        passages={passage.id: passage for passage in passages},
        queries={f"q{n}": Query(id=f"q{n}", text=row["hypothetical_questions"][0]) for n, row in enumerate(rows)},
        train=(),
        test=tuple(Judgment(query_id=f"q{n}", target=row["docid"]) for n, row in enumerate(rows[:10])),
    )
    store = open_store(".")
    dataset.write(Path("made"))
    store.publish("datasets/dataset", Path("made"), Manifest(kind="dataset", name="generate", fingerprint="d" * 64))
    return store


def settings(models: Path, **changes: Any) -> Settings:
    fields = {"reranker": str(models / "reranker"), "output_dir": "onnx", "parity_pairs": 60}
    return Settings.model_validate({"export_onnx": {**fields, **changes}})


def digests(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


def in_other_company(reranker: Any, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    return np.concatenate([reranker.score([pair]) for pair in pairs])


def test_the_exported_graph_scores_as_pytorch_does_for_any_batch_and_length(models: Path, store: Store) -> None:
    """Empty, short, cut and long pairs, together or alone, differ from PyTorch by rounding only."""
    manifest = run(settings(models), store, Silent())
    exported, reranker = load_onnx_reranker(Path("onnx"), threads=1), load(models)
    np.testing.assert_allclose(exported.score(PAIRS), reranker.score(PAIRS), atol=1e-4)
    np.testing.assert_allclose(in_other_company(exported, PAIRS), reranker.score(PAIRS), atol=1e-4)
    assert exported.contract == reranker.contract
    assert manifest.kind == "onnx"
    assert manifest.metrics["fp32"]["max_logit_difference"] < 1e-4
    assert manifest.metrics["fp32"]["rank_agreement"] > 0.999
    assert (manifest.metrics["pairs"], manifest.metrics["queries"]) == (61, 6)
    assert manifest.metrics["inputs"] == ["input_ids", "token_type_ids", "attention_mask"]


def test_both_directories_hold_what_serving_software_looks_for(models: Path, store: Store) -> None:
    """The root and `int8` are model directories of their own, with files and classes that older readers know."""
    run(settings(models), store, Silent())
    expected = {"config.json", "contract.json", "onnx/model.onnx", "special_tokens_map.json", "tokenizer.json"}
    expected |= {"tokenizer_config.json"}
    assert set(digests(Path("onnx"))) == expected | {f"int8/{name}" for name in expected}
    for directory in (Path("onnx"), Path("onnx/int8")):
        tokenizer = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert tokenizer["model_max_length"] == 256
        written = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        assert (written["truncation"], written["padding"]) == (None, None)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.linear.Identity"}
    sizes = [Path("onnx", folder, GRAPH).stat().st_size for folder in ("", "int8")]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_same_reranker_gives_the_same_bytes(
    models: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported twice, in different directories, all files are equal: no path, time or name of a temporary is in them."""
    run(settings(models), store, Silent())
    for graph in Path("onnx").rglob("*.onnx"):
        assert b"/tmp" not in graph.read_bytes()
        assert str(models).encode() not in graph.read_bytes()
    run(settings(models, output_dir=str(tmp_path / "again")), store, Silent())
    assert digests(Path("onnx")) == digests(tmp_path / "again")


def test_a_failed_fp32_is_refused_with_the_numbers_and_nothing_is_published(models: Path, store: Store) -> None:
    """Exit code 3, the measured difference and the limit in words, no artifact; with the default limit it is made."""
    with pytest.raises(GateRefused) as caught:
        run(settings(models, max_logit_difference=1e-12), store, Silent())
    assert caught.value.code == 3
    assert "at most 1e-12" in str(caught.value)
    assert not Path("onnx").exists()
    assert run(settings(models), store, Silent()).outcome.code == 0


def test_a_failed_int8_is_withheld_said_and_recorded(models: Path, store: Store) -> None:
    """fp32 is published without an `int8` folder, the reason stands in warning, outcome and metrics."""
    heard = Heard()
    manifest = run(settings(models, min_rank_agreement=1.0), store, heard)
    assert "int8 is withheld" in heard.warnings[0]
    assert (manifest.outcome.code, manifest.outcome.reason) == (0, "done; int8 is withheld")
    assert manifest.metrics["int8"]["withheld"] is True
    assert manifest.metrics["int8"]["rank_agreement"] < 1.0
    assert Path("onnx", GRAPH).exists()
    assert not Path("onnx/int8").exists()


def test_int8_ranks_like_pytorch_and_is_measured(models: Path, store: Store) -> None:
    """The published variant passes its gate on scores of its own, which are not PyTorch's."""
    measured = run(settings(models), store, Silent()).metrics["int8"]
    assert measured["withheld"] is False
    assert 0.9 <= measured["rank_agreement"] < 1.0
    assert measured["max_logit_difference"] > 0.001
    quantised, reranker = load_onnx_reranker(Path("onnx/int8"), threads=1), load(models)
    assert 0 < np.abs(quantised.score(PAIRS) - reranker.score(PAIRS)).max() <= 3 * measured["max_logit_difference"]


def test_int8_can_be_left_out(models: Path, store: Store) -> None:
    """`int8: false` makes fp32 alone."""
    manifest = run(settings(models, int8=False), store, Silent())
    assert "int8" not in manifest.metrics
    assert not Path("onnx/int8").exists()


def test_large_weights_stand_beside_the_graph_under_the_name_that_optimum_fetches(models: Path, tmp_path: Path) -> None:
    """Above the limit of a protobuf file both variants keep their weights in `model.onnx_data` and score the same."""
    reranker = load(models)
    for folder in (tmp_path, tmp_path / "int8"):
        folder.mkdir(exist_ok=True)
        save_reranker_config(reranker, folder)
        reranker.contract.save(folder)
    write_fp32(reranker, tmp_path / GRAPH, opset=17, external_above_bytes=10_000)
    write_int8(tmp_path / GRAPH, tmp_path / "int8" / GRAPH, external_above_bytes=10_000)
    for folder in (tmp_path, tmp_path / "int8"):
        assert sorted(file.name for file in (folder / "onnx").iterdir()) == ["model.onnx", "model.onnx_data"]
    np.testing.assert_allclose(load_onnx_reranker(tmp_path).score(PAIRS), reranker.score(PAIRS), atol=1e-4)
    assert np.isfinite(load_onnx_reranker(tmp_path / "int8").score(PAIRS)).all()


def test_robertas_positions_end_before_its_table_does(models: Path, tmp_path: Path) -> None:
    """258 position rows hold 256 tokens: a long pair is cut there, in PyTorch and in ONNX, and nothing crashes."""
    reranker = load(models, "xlmr")
    assert reranker.contract.max_pair_tokens == 256
    save_reranker(reranker, tmp_path)
    write_fp32(reranker, tmp_path / GRAPH, opset=17)
    np.testing.assert_allclose(load_onnx_reranker(tmp_path).score(PAIRS), reranker.score(PAIRS), atol=1e-4)


def test_without_a_dataset_parity_is_measured_on_words_and_that_is_said(models: Path, workdir: Path) -> None:
    """Nobody has to make a dataset to export a reranker, and nobody is led to believe that it was proven on one."""
    heard = Heard()
    manifest = run(settings(models, min_rank_agreement=0.0), open_store("."), heard)
    assert any("no dataset" in warning for warning in heard.warnings)
    assert set(manifest.inputs) == {"reranker"}


def test_who_exports_a_reranker_that_brings_nothing_is_told(models: Path, store: Store, tmp_path: Path) -> None:
    """Its weight travels with it; a server that leaves it out would harm."""
    reranker = load(models)
    save_reranker(reranker, tmp_path / "muted")
    replace(reranker.contract, rerank_weight=0.0).save(tmp_path / "muted")
    heard = Heard()
    run(settings(models, reranker=str(tmp_path / "muted"), int8=False), store, heard)
    assert "the weight of this reranker is 0" in heard.warnings[0]
    assert load_onnx_reranker(Path("onnx")).contract.rerank_weight == 0.0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"dataset": "datasets/other"}, ArtifactMissing, "datasets/other"),
        ({"reranker": None}, ArtifactMissing, "nearer train reranker"),
        ({"reranker": "./nowhere"}, InputError, "nowhere"),
        ({"reranker": "../embedder"}, InputError, "is not a reranker"),
    ],
)
def test_inputs_that_are_missing_or_of_another_kind_are_named(
    changes: dict[str, Any], error: type[InputError], words: str, models: Path, store: Store
) -> None:
    """Exit 2 with the address and the way out; nothing is written."""
    if changes.get("reranker") == "../embedder":
        changes = {"reranker": str(models / "embedder")}
    with pytest.raises(error) as caught:
        run(settings(models, **changes), store, Silent())
    assert words in str(caught.value)
    assert not Path("onnx").exists()


def test_a_directory_whose_tokenizer_was_exchanged_is_refused(models: Path, store: Store, tmp_path: Path) -> None:
    """The contract names the tokenizer; another one is noticed before a single score is wrong."""
    run(settings(models, int8=False), store, Silent())
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in digests(Path("onnx")):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(Path("onnx", name).read_bytes())
    contract = load_onnx_reranker(copy).contract
    replace(contract, tokenizer_sha256="0" * 64).save(copy)
    with pytest.raises(ArtifactCorrupt, match="tokenizer is not the one"):
        load_onnx_reranker(copy)
    (copy / "contract.json").unlink()
    with pytest.raises(InputError, match="not an exported reranker"):
        load_onnx_reranker(copy)


def test_the_plan_says_what_would_be_made_and_then_that_it_is_done(models: Path, store: Store) -> None:
    """Before and after the run, with the same settings; a reranker that is still to be trained is named so."""
    before = plan(settings(models), store)
    assert [one.state for one in before.inputs] == ["there", "there"]
    assert before.state == "would be made"
    assert not Path("onnx").exists()
    run(settings(models), store, Silent())
    assert plan(settings(models), store).state == "already done"
    later = plan(Settings.model_validate({"train": {"reranker": {}}}), store)
    assert later.inputs[0].state == "made by `train reranker` first"
