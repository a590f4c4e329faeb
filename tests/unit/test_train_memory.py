"""The memory plan: the weights of true models, their states to the byte, their activations, and what is chosen."""

import json
from typing import Any

import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from saved_tensors import saved_bytes

from nearer.models.source import known_config
from nearer.store import open_store
from nearer.train.activations import activations
from nearer.train.memory import METHODS, Need, choose, model_states
from nearer.train.shape import Shape, adapt, freeze, model_shape

SIZES = {
    "vocab_size": 101,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 36,
    "intermediate_size": 142,
    "num_attention_heads": 6,
    "pad_token_id": 0,
}
GIB = 1 << 30
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CLASSES = [
    ("GPTNeoX", {}),
    ("GPTNeoX", {"attention_bias": False, "use_parallel_residual": False}),
    ("Bert", {}),
    ("Roberta", {"type_vocab_size": 1}),
    ("XLMRoberta", {}),
    ("Llama", {"num_key_value_heads": 2}),
    ("Llama", {"head_dim": 8, "attention_bias": True, "mlp_bias": True}),
    ("Mistral", {"num_key_value_heads": 3}),
    ("Qwen2", {"num_key_value_heads": 2}),
    ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
]


def build(name: str, *, head: bool = False, sizes: dict[str, Any] = SIZES, **more: Any) -> tuple[Any, Shape]:
    """A model of the true class, and the shape that its config.json is said to have."""
    model_class = getattr(transformers, name + ("ForSequenceClassification" if head else "Model"))
    config = model_class.config_class(**sizes, **more, num_labels=1)
    shape = model_shape(json.loads(config.to_json_string()), reranker=head)  # as save_pretrained writes it
    assert shape is not None
    return model_class(config), shape


def put_adapters(model: Any, rank: int) -> None:
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    LoraModel(model, {"default": LoraConfig(r=rank)}, "default")


def bytes_of(tensors: Any) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize(("name", "more"), CLASSES, ids=[f"{name}-{'-'.join(more)}" for name, more in CLASSES])
@pytest.mark.parametrize("head", [False, True], ids=["embedder", "reranker"])
def test_the_weights_are_those_of_the_true_class(name: str, more: dict[str, Any], head: bool) -> None:
    """Names, shapes and order are those of `parameters()`, plain and with PEFT's own default adapters."""
    model, shape = build(name, head=head, **more)
    assert [(each.name, each.shape) for each in shape.weights] == [
        (each, tuple(weight.shape)) for each, weight in model.named_parameters()
    ]
    put_adapters(model, 5)
    adapted = adapt(shape, rank=5, targets=None)
    assert [(each.name, each.shape) for each in adapted.weights] == [
        (each.replace(".base_layer", ""), tuple(weight.shape)) for each, weight in model.named_parameters()
    ]
    own = {weight.name for weight in adapted.trainable if "lora_" not in weight.name}
    assert own == ({each.name for each in shape.weights if each.name.startswith(("classifier", "score"))})


def test_the_real_polyglot_is_known_without_a_hub(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings' default model has the number of weights that its model card says, head apart."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    config = known_config("EleutherAI/polyglot-ko-1.3b", store=open_store(str(tmp_path)))
    assert config is not None
    shape = model_shape(config)
    assert shape is not None
    assert shape.count == 1_270_206_464
    assert adapt(shape, rank=16, targets=None).count - shape.count == 24 * 16 * (2048 + 3 * 2048)
    every = adapt(shape, rank=8, targets=["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"])
    assert every.count - shape.count == 24 * 8 * (4 * 2048 + 2 * 2048 + 2 * (2048 + 8192))
    assert model_shape({"model_type": "mamba"}) is None
    assert model_shape({"model_type": "bert"}) is None


@pytest.mark.parametrize("way", ["whole", "reranker", "frozen", "lora", "lora on bf16"])
@pytest.mark.parametrize("name", ["GPTNeoX", "Bert"])
def test_states_are_what_adamw_allocates(name: str, way: str) -> None:
    """Weights, gradients and optimizer states of a real step, to the byte, also where some weights get no gradient."""
    model, shape = build(name, head=way == "reranker")
    model.eval()
    if way.startswith("lora"):
        put_adapters(model, 5)
        shape = adapt(shape, rank=5, targets=None)
    if way == "lora on bf16":
        for weight in model.parameters():
            weight.data = weight.data if weight.requires_grad else weight.data.bfloat16()
    if way == "frozen":
        from types import SimpleNamespace

        from nearer.train import trainable

        wrapped = SimpleNamespace(transformers_model=SimpleNamespace(base_model=model))
        trainable.freeze(wrapped, embeddings=True, layers=2)
        shape = freeze(shape, embeddings=True, layers=2)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
    ids = torch.randint(5, 100, (2, 7))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    (found.logits if way == "reranker" else found.last_hidden_state).float().pow(2).mean().backward()
    optimizer.step()
    states = model_states(
        shape, method="none", processes=1, precision="bf16", frozen_bytes=2 if way == "lora on bf16" else 4
    ).device
    assert states.weights == bytes_of(model.parameters())
    assert states.gradients == bytes_of(weight.grad for weight in model.parameters() if weight.grad is not None)
    assert states.optimizer == bytes_of(each for state in optimizer.state.values() for each in state.values())
    assert states.buffers == 0


WAYS = [
    ("GPTNeoX", {}), ("GPTNeoX", {"use_parallel_residual": False}), ("Bert", {}), ("XLMRoberta", NO_DROPOUT),
    ("Llama", {"num_key_value_heads": 2}), ("Qwen2", {"num_key_value_heads": 2}),
    ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
]  # fmt: skip
OFTEN = {("GPTNeoX", ()), ("Bert", ()), ("Llama", ("num_key_value_heads",))}


@pytest.mark.parametrize(
    ("name", "more", "size"),
    [
        pytest.param(
            name,
            more,
            size,
            marks=() if (name, tuple(more)) in OFTEN and size == "tiny" else pytest.mark.full,
            id=f"{name}-{'-'.join(more)}-{size}",
        )
        for name, more in WAYS
        for size in ("tiny", "middle")
    ],
)
def test_activations_are_those_that_autograd_saves(name: str, more: dict[str, Any], size: str) -> None:
    """Within 15 % of the saved tensors, weights apart: three precisions, whole, frozen and LoRA, with checkpointing."""
    hidden, layers, rows, tokens = (64, 4, 6, 40) if size == "tiny" else (256, 8, 8, 128)
    sizes = {**SIZES, "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 3 * hidden,
             "num_attention_heads": 4, "max_position_embeddings": 160}  # fmt: skip
    more = {**more, "head_dim": hidden // 4} if "head_dim" in more else more
    plan = {"rows": rows, "tokens": tokens, "cuda": False}
    worst = 0.0
    for way in ("whole", "frozen", "lora"):
        model, shape = build(name, sizes=sizes, **more)
        if way == "lora":
            put_adapters(model, 8)
            shape = adapt(shape, rank=8, targets=None)
        if way == "frozen":
            shape = freeze(shape, embeddings=True, layers=2)
            still = {weight.name for weight in shape.weights if not weight.trains}
            for each, weight in model.named_parameters():
                weight.requires_grad_(each not in still)
        for precision, method in (("fp32", "none"), ("bf16", "none"), ("bf16", "zero2")):
            native = torch.bfloat16 if method == "zero2" else torch.float32
            model.to(native)
            kept, copies = saved_bytes(
                model, rows=rows, tokens=tokens, autocast=(precision, method) == ("bf16", "none")
            )
            found = activations(shape, method=method, precision=precision, **plan)
            worst = max(worst, abs(found.kept / kept - 1))
            assert found.kept == pytest.approx(kept, rel=0.15), (way, precision, method)
            if way == "whole":
                assert found.copies == pytest.approx(copies, rel=0.03), (precision, method)
    model, shape = build(name, sizes=sizes, **more)
    kept, _ = saved_bytes(model, rows=rows, tokens=tokens, checkpointing=True)
    found = activations(shape, method="none", precision="fp32", checkpointing=True, **plan)
    assert found.kept == pytest.approx(kept, rel=0.15)
    print(f"{name} {more} {size}: at most {max(worst, abs(found.kept / kept - 1)):.1%} beside the saved tensors")


@given(processes=st.integers(1, 64), precision=st.sampled_from(["fp32", "bf16"]), rank=st.none() | st.integers(1, 9))
@example(processes=1, precision="bf16", rank=None)
def test_dividing_never_costs_more_than_padding(processes: int, precision: Any, rank: int | None) -> None:
    """All parts together hold everything, and no more than the padding beside; each stage needs no more than the last."""
    _, whole = SHAPES
    shape = whole if rank is None else adapt(whole, rank=rank, targets=None)
    states = {name: model_states(shape, method=name, processes=processes, precision=precision) for name in METHODS}
    trains = sum(weight.count for weight in shape.trainable)
    for name in ("zero1", "zero2", "zero3"):
        everywhere = processes * states[name].device.optimizer
        padding = 12 * processes * (len(shape.weights) if name == "zero3" else 4) + 8 * processes
        assert 12 * trains <= everywhere <= 12 * trains + padding
        host = states[f"{name}_offload"]
        assert host.host.optimizer == states[name].device.optimizer
        assert host.device.optimizer == 0
    if processes == 1 and precision == "bf16" and rank is None:  # on one card ZeRO without offload saves nothing
        counters = 4 * len(shape.weights)  # AdamW's own, one a weight; flat groups have one each
        assert states["zero2"].device.states >= states["none"].device.states - counters


SHAPES = build("GPTNeoX")


def needs(**device: float) -> dict[str, Need]:
    return {
        name: Need(
            method=name,
            device=int(device.get(name.removesuffix("_offload"), 0) * GIB) // (2 if "offload" in name else 1),
            host=30 * GIB if "offload" in name else 0,
        )
        for name in METHODS
    }


NEEDS = {"none": 30.0, "zero1": 22.0, "zero2": 16.0, "zero3": 9.0}


@pytest.mark.parametrize(
    ("processes", "device", "host", "method", "fits", "why"),
    [
        (1, 80, 64, "none", True, "room for everything"),
        (1, 24, 64, "zero2_offload", True, "on one GPU ZeRO without offload saves nothing"),
        (1, 24, 16, "zero2_offload", False, "wants more memory than there is"),
        (8, 80, 64, "none", True, "room for everything"),
        (8, 25, 64, "zero1", True, "least division"),
        (8, 24, 64, "zero2", True, "least division"),
        (8, 12, 16, "zero3", True, "least division"),
        (8, 8, 64, "zero3_offload", True, "least division"),
        (8, 8, 16, "zero3_offload", False, "nothing fits"),
        (1, None, 64, "none", True, "no GPU"),
    ],
)
def test_auto_is_the_least_that_fits(
    *, processes: int, device: int | None, host: int, method: str, fits: bool, why: str
) -> None:
    """The first method that fits with a tenth to spare; one card is offered offload only, and told why."""
    choice = choose(
        needs(**NEEDS),
        wanted="auto",
        processes=processes,
        device_bytes=device * GIB if device else None,
        host_bytes=host * GIB,
    )
    assert (choice.method, choice.fits) == (method, fits)
    assert why in choice.why


def test_what_the_settings_say_is_kept() -> None:
    """A named method is not replaced by a better one; that it does not fit is said."""
    choice = choose(needs(**NEEDS), wanted="zero1", processes=8, device_bytes=8 * GIB, host_bytes=None)
    assert (choice.method, choice.fits) == ("zero1", False)
