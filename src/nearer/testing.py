"""What users and our own tests need instead of mocks: tiny real models and small searchable Korean documents.

The models have two layers of width 32 and random weights; a tokenizer knows the words of the documents below. They load
in milliseconds, train, save and export like their big siblings, and know nothing.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from nearer.corpus.dataset import Dataset

Architecture = Literal["bert", "xlm-roberta", "gpt_neox"]

_VOCABULARY = 1200
_HIDDEN = 32
_LAYERS = 2
_POSITIONS = 256

# fmt: off
_THINGS = (
    "가습기", "제습기", "온수매트", "전기포트", "토스터", "선풍기", "공기청정기", "로봇청소기", "밥솥", "식기세척기",
    "다리미", "냉풍기", "정수기", "믹서기", "전자레인지", "안마기", "족욕기", "스탠드", "블렌더", "오븐", "에어프라이어",
    "건조기", "세탁기", "냉장고",
)
_MATTERS = (
    "필터교체", "물때세척", "보증기간", "오류코드", "소음점검", "전력소비", "배터리충전", "부품주문", "환불절차", "방문수리",
    "보관방법", "어린이잠금", "예약운전", "펌웨어갱신", "설치공간", "누수확인", "온도조절", "습도감지", "벽걸이고정",
    "청소주기", "리모컨연결", "포장재분리",
)
_PLACES = (
    "춘천", "원주", "부산", "제주", "성수", "강릉", "목포", "안동", "여수", "군산", "속초", "통영", "진주", "충주",
)
_TEAMS = (
    "품질팀", "고객지원팀", "연구기획팀", "총무팀", "생산팀", "영업팀", "홍보팀", "안전보건팀", "재무팀", "인사팀",
)
# fmt: on
_SENTENCES = (
    "{thing}의 {matter}는 {place} 서비스센터에서 {number}일 안에 처리한다.",
    "{matter}을 시작하기 전에 {thing}의 전원을 끄고 {number}분 동안 식힌다.",
    "담당은 {team}이며 접수 번호는 {place}-{number}이다.",
    "{place} 창고에는 여분의 부속이 {number}개 놓여 있다.",
    "비용은 {number}천 원이고 {team} 예산에서 나간다.",
    "겨울에는 {number}도 아래로 내려가지 않게 하고 직사광선을 피한다.",
    "{number}번째 단추를 길게 누르면 {matter} 표시등이 깜빡인다.",
    "사진을 찍어 두면 나중에 {team}이 원인을 찾기 쉽다.",
    "{place}에서 산 물건은 영수증이 없어도 {number}개월 동안 받아 준다.",
    "설명서 {number}쪽의 그림을 보고 같은 모양의 나사를 고른다.",
    "혼자 하기 어려우면 {place} 직원이 {number}시 이후에 찾아간다.",
    "작년 조사에서 {thing} 이용자의 {number}퍼센트가 이 방법을 몰랐다.",
    "물기가 남으면 냄새가 나므로 마른 수건으로 {number}번 닦는다.",
    "{team}은 매달 {number}일에 기록을 모아 본사로 보낸다.",
)
_QUESTIONS = (
    "{thing}의 {matter}는 어떻게 합니까?",
    "{thing} {matter} 얼마나 걸려요?",
    "{thing} {matter} {place}",
)


def korean_documents(n: int, seed: int) -> list[dict[str, Any]]:
    """Small documents in the guide's form, each about another thing and matter, with questions that it answers.

    Args:
        n: how many; at most 528 (24 things, 22 matters).
        seed: of the draw; the same seed gives the same documents.

    Returns:
        One mapping a document: `docid`, `src`, `title`, `content` (with a `## ` heading), `hypothetical_questions`.
    """
    draw = random.Random(seed)
    pairs = [(thing, matter) for thing in _THINGS for matter in _MATTERS]
    if n > len(pairs):
        raise ValueError(f"at most {len(pairs)} documents, asked for {n}")
    documents = []
    for number, (thing, matter) in enumerate(draw.sample(pairs, n)):
        place = draw.choice(_PLACES)

        def fill(template: str, thing: str = thing, matter: str = matter, place: str = place) -> str:
            return template.format(
                thing=thing, matter=matter, place=place, team=draw.choice(_TEAMS), number=draw.randint(2, 97)
            )

        sentences = [fill(template) for template in draw.sample(_SENTENCES, 6)]
        documents.append(
            {
                "docid": f"doc-{number:04d}",
                "src": "testing",
                "title": f"{thing} {matter} 안내",
                "content": " ".join(sentences[:3]) + f"\n## {place} 처리 순서\n" + " ".join(sentences[3:]),
                "hypothetical_questions": [
                    f"{rank}. {fill(template)}" for rank, template in enumerate(_QUESTIONS, start=1)
                ],
            }
        )
    return documents


def korean_dataset(n: int, seed: int, *, test_share: float = 0.2) -> Dataset:
    """A dataset of `korean_documents`: a passage for each half of a document, which its questions ask for by turns.

    Every training query has three hard negatives: passages about the same thing, other matters first.

    Args:
        n: documents.
        seed: of the documents.
        test_share: the last documents' questions are test.
    """
    from nearer.corpus.dataset import Chunking, Dataset
    from nearer.records import Judgment, Negative, Passage, Query

    documents = korean_documents(n, seed)
    tested = {document["docid"] for document in documents[round(n * (1 - test_share)) :]}
    passages: dict[str, Passage] = {}
    queries: dict[str, Query] = {}
    judgments: list[Judgment] = []
    for document in documents:
        first, second = document["content"].split("\n## ")
        heading, _, rest = second.partition("\n")
        for number, (path, text) in enumerate((((), first), ((heading,), rest))):
            id_ = f"{document['docid']}#{number}"
            passages[id_] = Passage(
                id=id_, document_id=document["docid"], text=text, title=document["title"], path=path
            )
        for number, question in enumerate(document["hypothetical_questions"]):
            id_ = f"{document['docid']}?{number}"
            queries[id_] = Query(id=id_, text=question.partition(". ")[2], origin="hypothetical")
            judgments.append(Judgment(query_id=id_, target=f"{document['docid']}#{number % 2}"))
    thing_of = {document["docid"]: document["title"].split()[0] for document in documents}
    document_of = {judgment.query_id: judgment.target.partition("#")[0] for judgment in judgments}
    train = tuple(judgment for judgment in judgments if document_of[judgment.query_id] not in tested)
    negatives = {}
    for judgment in train:
        own = document_of[judgment.query_id]
        others = [passage for passage in passages.values() if passage.document_id not in {own, *tested}]
        others.sort(key=lambda passage: (thing_of[passage.document_id] != thing_of[own], passage.id))
        negatives[judgment.query_id] = tuple(
            Negative(miner="testing", score=1.0 / rank, corpus_id=passage.id)
            for rank, passage in enumerate(others[:3], start=1)
        )
    return Dataset(
        passages=passages,
        queries=queries,
        train=train,
        test=tuple(judgment for judgment in judgments if document_of[judgment.query_id] in tested),
        negatives=negatives,
        groups={document["docid"]: document["docid"] for document in documents},
        chunking=Chunking(chunker="testing", max_tokens=200),
    )


def tiny_embedder(
    directory: Path, *, architecture: Architecture = "bert", seed: int = 0, sentence_transformer: bool = False
) -> Path:
    """Save a tiny checkpoint with its tokenizer and return its directory.

    Args:
        directory: made if it is not there.
        architecture: `bert` (WordPiece, token types), `xlm-roberta` (Unigram), `gpt_neox` (causal, byte-level BPE, no
            pad token, nothing appended, as polyglot-ko).
        seed: of the weights.
        sentence_transformer: save a sentence-transformers directory (mean pooling, normalised, e5 prompts).
    """
    import torch
    from transformers import BertModel, GPTNeoXModel, XLMRobertaModel

    directory.mkdir(parents=True, exist_ok=True)
    model_class = {"bert": BertModel, "xlm-roberta": XLMRobertaModel, "gpt_neox": GPTNeoXModel}[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(_config(architecture))
    _save(model, architecture, directory)
    if sentence_transformer:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

        modules = [Transformer(str(directory)), Pooling(_HIDDEN, "mean"), Normalize()]
        prompts = {"query": "query: ", "document": "passage: "}
        wrapped = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
        wrapped.save(str(directory), create_model_card=False)
    return directory


def tiny_cross_encoder(directory: Path, *, seed: int = 0) -> Path:
    """Save a tiny BERT cross-encoder (one label) with its tokenizer and return its directory."""
    import torch
    from transformers import BertForSequenceClassification

    directory.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config("bert")
        config.num_labels = 1
        model = BertForSequenceClassification(config)
    _save(model, "bert", directory)
    return directory


def _config(architecture: Architecture) -> Any:
    from transformers import BertConfig, GPTNeoXConfig, XLMRobertaConfig

    size = {
        "vocab_size": _VOCABULARY,
        "hidden_size": _HIDDEN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 2 * _HIDDEN,
        "max_position_embeddings": _POSITIONS,
        # At the usual 0.02 all texts of an untrained model look the same; at 0.3 the model does not learn.
        "initializer_range": 0.1,
    }
    if architecture == "bert":
        return BertConfig(**size, pad_token_id=0)
    if architecture == "xlm-roberta":
        positions = {"max_position_embeddings": _POSITIONS + 2, "type_vocab_size": 1}
        return XLMRobertaConfig(**{**size, **positions}, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    return GPTNeoXConfig(**size, bos_token_id=0, eos_token_id=0)


def _save(model: PreTrainedModel, architecture: Architecture, directory: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    names = {
        "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
        "xlm-roberta": {
            "bos": "<s>",
            "pad": "<pad>",
            "eos": "</s>",
            "unk": "<unk>",
            "cls": "<s>",
            "sep": "</s>",
            "mask": "<mask>",
        },
        "gpt_neox": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"},
    }[architecture]
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(architecture),
        model_max_length=_POSITIONS,
        model_input_names=inputs if architecture == "bert" else ["input_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in names.items()},
    )
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _tokenizer(architecture: Architecture) -> Tokenizer:
    """Vocabularies are counted, not trained: the libraries' trainers give another one every time (BPE excepted)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    texts = [f"{document['title']} {document['content']}" for document in korean_documents(200, 0)]
    texts += [question for document in korean_documents(200, 0) for question in document["hypothetical_questions"]]
    texts += ["query: passage:"]
    words = Counter(re.findall(r"\w+", " ".join(texts)))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    characters = sorted({character for text in texts for character in text} | {chr(code) for code in range(33, 127)})
    if architecture == "bert":
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces += [*characters, *(f"##{character}" for character in characters), *ranked]
        vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces)) if number < _VOCABULARY}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token, not a password
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    elif architecture == "xlm-roberta":
        pieces = [
            "<s>",
            "<pad>",
            "</s>",
            "<unk>",
            "<mask>",
            "\u2581",
            *characters,
            *(f"\u2581{word}" for word in ranked),
        ]
        scored = [(piece, -float(number)) for number, piece in enumerate(dict.fromkeys(pieces)) if number < _VOCABULARY]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
