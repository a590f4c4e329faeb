"""A causal language model in process: tiny, made and taught here, on CPU."""

import json
from pathlib import Path

import pytest
import torch

from nearer.corpus.dataset import Dataset
from nearer.errors import InputError
from nearer.generate.run import run
from nearer.llm.request import Reply, Request
from nearer.models.causal_lm import CausalLm, load_causal_lm
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import open_store
from nearer.testing import korean_documents, tiny_embedder

SAID = '{"relevant": [1], "answer": "필터교체"}'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-NeoX with a head, two layers of random weights."""
    from transformers import AutoConfig, GPTNeoXForCausalLM

    directory = tiny_embedder(tmp_path_factory.mktemp("lm") / "base", architecture="gpt_neox")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(directory)
    GPTNeoXForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def taught(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, taught to say one thing after any prompt that ends as ours do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = tmp_path_factory.mktemp("lm") / "taught"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    wanted = tokenizer(SAID)["input_ids"] + [tokenizer.eos_token_id]
    prompts = [
        f'\n\n\n<passage n="1">\n{row["content"][:60]}\n</passage> {row["content"][:20]}\n답:\n\n'
        for row in korean_documents(24, seed=1)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        rows = [tokenizer(prompt)["input_ids"] + wanted for prompt in prompts[step % 3 :: 3]]
        shortest = min(map(len, rows))
        ids = torch.tensor([row[-shortest:] for row in rows])
        labels = ids.clone()
        labels[:, : -len(wanted)] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def load(path: Path, *, batch_tokens: int) -> CausalLm:
    return load_causal_lm(
        find_model(str(path), store=open_store(str(path.parent))), trust_remote_code=False, batch_tokens=batch_tokens
    )


def answers(model: CausalLm, requests: list[Request]) -> list[Reply]:
    found = dict(model.answer(requests, go_on=lambda: True))
    return [found[place] for place in range(len(requests))]


def requests(count: int, temperature: float = 0.0) -> list[Request]:
    texts = [row["content"][: 5 + 7 * number] for number, row in enumerate(korean_documents(count, seed=4))]
    return [Request(messages=(("user", text),), max_tokens=12, temperature=temperature) for text in texts]


def test_greedy_decoding_says_the_same_in_a_batch_and_alone(base: Path) -> None:
    """Prompts of all lengths, padded on the left: each reply as if it were asked alone, in its own place."""
    asked = requests(16)
    alone = answers(load(base, batch_tokens=1), asked)
    together = answers(load(base, batch_tokens=4096), asked)
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert len({reply.text for reply in alone}) > 3
    assert [reply.prompt_tokens for reply in together] == [reply.prompt_tokens for reply in alone]
    assert all(0 < reply.completion_tokens <= 12 for reply in together)


def test_a_prompt_that_is_too_long_is_refused_alone(base: Path) -> None:
    """The others are answered."""
    long = Request(messages=(("user", "필터교체 " * 400),), max_tokens=12, temperature=0.0)
    found = answers(load(base, batch_tokens=512), [*requests(2), long])
    assert [bool(reply.problem) for reply in found] == [False, False, True]
    assert "more than the model's 256" in found[2].problem


def test_a_chat_template_is_used_where_there_is_one(base: Path) -> None:
    """Else the texts are simply gone on with."""
    model = load(base, batch_tokens=512)
    request = Request(messages=(("system", "가"), ("user", "나")), max_tokens=1, temperature=0.0)
    plain = model._tokenizer.decode(model._tokens(request))
    assert plain == "가\n\n나\n"
    model._tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    assert model._tokenizer.decode(model._tokens(request)) == "<system>가<user>나<assistant>"


def test_an_encoder_is_no_language_model(tmp_path: Path) -> None:
    """Exit 2 names what is asked for."""
    path = tiny_embedder(tmp_path / "bert")
    with pytest.raises(InputError, match="no causal language model"):
        load(path, batch_tokens=512)


def test_the_same_job_runs_without_an_endpoint(taught: Path, tmp_path: Path) -> None:
    """The user's queries are judged by the model in process, with the user's own prompts; a second run asks nothing."""
    documents = korean_documents(20, seed=6)
    tiny_embedder(tmp_path / "model", sentence_transformer=True)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/system.md").write_text("")
    (tmp_path / "prompts/mark.md").write_text("$passages $query\n답:")
    for name, rows in (
        ("documents", [{"docid": row["docid"], "content": row["content"][:60]} for row in documents]),
        (
            "eval",
            [
                {"eval_id": n, "msg": [{"role": "user", "content": row["content"][:20]}]}
                for n, row in enumerate(documents)
            ],
        ),
    ):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    own = {
        "documents": "documents.jsonl", "queries": "eval.jsonl", "embedder": "model", "output_dir": "d",
        "llm_model": str(taught), "chunk": {"max_tokens": 60}, "negatives": {"per_query": 1, "max_share_of_positive": 1.5},
        "llm": {"backend": "transformers", "prompts": "prompts", "mark_depth": 1, "max_tokens": 60, "repairs": 0},
    }  # fmt: skip
    settings = Settings.model_validate({"artifacts": str(tmp_path), "generate": own})
    manifest = run(settings, open_store(str(tmp_path)), Silent())
    account = manifest.metrics["language_model"]
    assert account["calls"] + len(manifest.metrics["dropped"]) >= 20
    dataset = Dataset.load(tmp_path / "d")
    assert len({judgment.query_id for judgment in (*dataset.train, *dataset.test)}) > 10
    assert '"ideal_answer": "필터교체"' in (tmp_path / "d/enhanced.jsonl").read_text(encoding="utf-8")
    again = Settings.model_validate({"artifacts": str(tmp_path), "generate": {**own, "test_share": 0.4}})
    account = run(again, open_store(str(tmp_path), overwrite=True), Silent()).metrics["language_model"]
    assert account["calls"] == 0
    assert account["calls_found_in_ledger"] > 10
