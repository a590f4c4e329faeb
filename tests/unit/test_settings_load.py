"""From file, environment and --set to one checked object, or all problems at once."""

from pathlib import Path

import pytest
import yaml

from nearer.errors import InputError, SettingsError
from nearer.settings import load, resolve

GUIDE = """\
enhanced_validation:
  input_file: data/eval.jsonl
  output_file: data/eval_enhanced.jsonl
  llm_model: gpt-4o-mini
  max_questions: null
  max_concurrent: 2
  request_delay: 1.0
fine_tune:
  model_type: embedding
  base_model: EleutherAI/polyglot-ko-1.3b
  output_dir: models/fine_tuned_embedding
  epochs: 3
  batch_size: 16
  val_split: 0.1
test_fine_tuned:
  embedding_model_path: models/fine_tuned_embedding
  reranker_model_path: models/fine_tuned_reranker
EMBEDDING_MODEL: /models/today
reranker_model_path: /models/reranker-today
elasticsearch: {url: http://localhost:9200}
ALPHA: 0.8
"""


def write(directory: Path, text: str, name: str = "nearer.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence_is_file_then_environment_then_set(workdir: Path) -> None:
    """--set wins over the environment, the environment over the file."""
    path = write(workdir, "train: {embedding: {epochs: 1, batch_size: 2, learning_rate: 1e-5}}\n")
    loaded = load(
        path,
        assignments=["train.embedding.epochs=3"],
        environment={"NEARER_TRAIN__EMBEDDING__EPOCHS": "2", "NEARER_TRAIN__EMBEDDING__BATCH_SIZE": "4"},
    )
    section = loaded.settings.train.embedding
    assert section is not None
    assert (section.epochs, section.batch_size, section.learning_rate) == (3.0, 4, 1e-5)


def test_every_problem_is_shown_at_once_with_its_line_and_nearest_key(workdir: Path) -> None:
    """Two wrong values and a misspelled key come in one error, each with its place."""
    path = write(
        workdir,
        "train:\n  embedding:\n    epoch: 3\n    val_split: 1.5\n  reranker:\n    batch_size: many\ngenerat: {}\n",
    )
    with pytest.raises(SettingsError) as caught:
        load(path, environment={})
    text = str(caught.value)
    assert caught.value.code == 2
    assert len(caught.value.problems) == 4
    assert f"{path}:3" in text
    assert "did you mean epochs?" in text
    assert "train.embedding.val_split is 1.5" in text
    assert "must be less than 1" in text
    assert "train.reranker.batch_size is 'many'" in text
    assert "did you mean generate?" in text


def test_the_guides_file_is_read_as_it_is(workdir: Path) -> None:
    """Its names are aliases, its foreign sections one warning."""
    path = write(workdir, GUIDE, "conf/settings.yaml")
    loaded = load(None, environment={})
    settings = loaded.settings
    assert Path(loaded.file) == path.relative_to(workdir)
    assert settings.generate.queries == "data/eval.jsonl"
    assert settings.generate.documents == "data/documents.jsonl"
    assert settings.generate.output_dir == "data/eval_enhanced"
    assert settings.generate.enhanced is None
    assert settings.generate.llm_model == "gpt-4o-mini"
    assert settings.train.embedding is not None
    assert settings.train.reranker is None
    assert settings.train.embedding.base_model == "EleutherAI/polyglot-ko-1.3b"
    assert settings.eval.embedder == "models/fine_tuned_embedding"
    assert settings.eval.reranker == "models/fine_tuned_reranker"
    assert settings.eval.incumbent == settings.reindex.embedder == "/models/today"
    assert settings.eval.incumbent_reranker == "/models/reranker-today"
    assert loaded.warnings == ("sections that nearer does not read: elasticsearch, ALPHA",)


def test_a_paid_enhanced_file_is_imported_and_never_the_output(workdir: Path) -> None:
    """`output_file` that is there becomes an input; the dataset stands beside it under its stem."""
    write(workdir, "{}\n", "data/eval_enhanced.jsonl")
    settings = load(write(workdir, GUIDE), environment={}).settings
    assert settings.generate.enhanced == "data/eval_enhanced.jsonl"
    assert settings.generate.output_dir == "data/eval_enhanced"


def test_model_type_reranker_configures_the_reranker(workdir: Path) -> None:
    """The guide's flat section goes where its model_type says, --set on it too."""
    path = write(workdir, GUIDE.replace("model_type: embedding", "model_type: reranker"))
    settings = load(path, assignments=["fine_tune.batch_size=4"], environment={}).settings
    assert settings.train.embedding is None
    assert settings.train.reranker is not None
    assert settings.train.reranker.batch_size == 4


def test_unknown_keys_in_known_guide_sections_are_errors(workdir: Path) -> None:
    """Only unknown top-level sections are none of our business."""
    path = write(workdir, GUIDE.replace("  epochs: 3", "  epocs: 3"))
    with pytest.raises(SettingsError, match="did you mean epochs"):
        load(path, environment={})


def test_an_unknown_top_level_key_without_the_guide_is_an_error(workdir: Path) -> None:
    """A misspelled section never passes silently."""
    with pytest.raises(SettingsError, match="unknown key elasticsearch"):
        load(write(workdir, "elasticsearch: {}\n"), environment={})


def test_a_job_file_is_read_wherever_settings_are(workdir: Path) -> None:
    """Its `settings` are the document, its `command` is known."""
    job = {"command": "train reranker", "settings": {"seed": 7}, "pod": {"gpus": 1}}
    loaded = load(write(workdir, yaml.safe_dump(job)), environment={})
    assert loaded.settings.seed == 7
    assert loaded.command == "train reranker"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "not YAML"),
        ("seed: 1\nseed: 2\n", "stands twice"),
        ("- a\n- b\n", "mapping of sections"),
        ("artifacts: ftp://x\n", "unknown scheme"),
        ("reindex: {output_dir: reports/report}\n", "also eval.output_dir"),
        ("fine_tune: {epochs: 1}\n", "fine_tune.model_type is None"),
        ("fine_tune: 3\n", "fine_tune is 3"),
        ("enhanced_validation: {output_file: 7}\n", "output_file is 7"),
        ("train: {embedding: {output_dir: ../x/../../y, batch_size: 1}}\n", "batch_size is 1"),
        ("generate: {output_dir: 'a/../../b'}\n", "leaves the artifacts root"),
        ("eval: {ks: []}\n", "eval.ks is []"),
    ],
)
def test_a_wrong_document_is_told_in_words(workdir: Path, text: str, words: str) -> None:
    """Each ends in an input error that names the thing."""
    with pytest.raises(InputError) as caught:
        load(write(workdir, text), environment={})
    assert words in str(caught.value)
    assert "nearer.yaml" in str(caught.value)


def test_no_settings_file_says_where_one_is_looked_for(workdir: Path) -> None:
    """The error names both default places."""
    with pytest.raises(InputError, match=r"conf/settings\.yaml or nearer\.yaml"):
        load(None, environment={})


def test_inputs_left_out_are_the_outputs_of_the_section_that_makes_them(workdir: Path) -> None:
    """One name is written once."""
    text = "generate: {output_dir: d}\ntrain: {embedding: {base_model: b, output_dir: e}, reranker: {output_dir: r}}\n"
    settings = load(write(workdir, text), environment={}).settings
    assert resolve.generate_embedder(settings) == "b"
    assert resolve.dataset_of(settings, settings.train.embedding.dataset if settings.train.embedding else None) == "d"
    assert resolve.eval_base_embedder(settings) == "b"
    assert resolve.eval_embedder(settings) == "e"
    assert resolve.eval_reranker(settings) == resolve.export_reranker(settings) == "r"
    assert resolve.reindex_embedder(settings) == "e"
    assert resolve.reindex_documents(settings) == "data/documents.jsonl"
