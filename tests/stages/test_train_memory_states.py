"""The memory plan against what DeepSpeed allocates in two processes, and against polyglot-ko-1.3b's real shape."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from nearer.models.source import known_config
from nearer.store import open_store
from nearer.train.activations import activations
from nearer.train.memory import model_states
from nearer.train.shape import Shape, adapt, freeze, model_shape

ASSETS = Path(__file__).parents[1] / "assets"
ODD = {  # nothing is divisible by anything, so that every padding shows
    "vocab_size": 101,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 36,
    "intermediate_size": 143,
    "num_attention_heads": 3,
}
GIB = 1 << 30


def measured(method: str, *, world: int, types: str, lora: int | None) -> list[dict[str, int]]:
    """The bytes of each rank's states after two steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(world):
        asked = {
            "rank": rank,
            "world": world,
            "port": port,
            "method": method,
            "bf16": types != "fp32",
            "states": "bf16" if types == "all bf16" else "fp32",
            "config": ODD,
            "lora": lora,
        }
        command = [sys.executable, str(ASSETS / "zero_states.py"), json.dumps(asked)]
        ranks.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    found = []
    for process in ranks:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        found.append(json.loads(out.rpartition("STATES ")[2].splitlines()[0]))
    return found


@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "world", "types", "lora"),
    [
        ("zero1", 2, "bf16", None),
        ("zero2", 2, "bf16", None),
        ("zero2", 2, "fp32", None),
        ("zero2", 3, "bf16", 5),
        ("zero2", 2, "all bf16", None),
        ("zero3", 2, "bf16", None),
        ("zero3", 2, "fp32", None),
        ("zero3", 3, "bf16", None),
        ("zero3", 2, "bf16", 5),
        ("zero3", 3, "all bf16", None),
        ("zero2_offload", 2, "bf16", None),
        ("zero2_offload", 1, "bf16", None),
        ("zero3_offload", 2, "bf16", 5),
    ],
)
def test_states_are_what_deepspeed_allocates(method: str, world: int, types: str, lora: int | None) -> None:
    """Weights, gradients and optimizer of the fullest rank, to the byte, paddings included."""
    shape = model_shape({**ODD, "model_type": "gpt_neox"})
    assert shape is not None
    shape = adapt(shape, rank=lora, targets=None) if lora else shape
    precision = "fp32" if types == "fp32" else "bf16"
    state_bytes = 2 if types == "all bf16" else 4
    states = model_states(shape, method=method, processes=world, precision=precision, state_bytes=state_bytes)
    planned = {part: getattr(states.device, part) + getattr(states.host, part) for part in PARTS}
    ranks = measured(method, world=world, types=types, lora=lora)
    fullest = {part: max(rank[part] for rank in ranks) for part in PARTS}
    print(f"{method}, {world} processes, {types}{f', LoRA {lora}' if lora else ''}: {fullest}")
    assert planned == fullest


PARTS = ("weights", "gradients", "optimizer")


def polyglot(tmp_path: Path, *, reranker: bool = False) -> Shape:
    config = known_config("EleutherAI/polyglot-ko-1.3b", store=open_store(str(tmp_path)))
    assert config is not None
    shape = model_shape(config, reranker=reranker)
    assert shape is not None
    return shape


def empty(shape: Shape, *, reranker: bool = False, targets: tuple[str, ...] | None = None, rank: int = 0) -> Any:
    """The true class with the true sizes, without memory."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel
    from transformers import GPTNeoXConfig, GPTNeoXForSequenceClassification, GPTNeoXModel

    config = GPTNeoXConfig(
        vocab_size=30080,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        num_labels=1,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = (GPTNeoXForSequenceClassification if reranker else GPTNeoXModel)(config)
        if rank:
            LoraModel(
                model, {"default": LoraConfig(r=rank, target_modules=list(targets) if targets else None)}, "default"
            )
    return model


@pytest.mark.full
@pytest.mark.parametrize("way", ["whole", "reranker", "frozen", "lora 16", "lora 8 everywhere"])
def test_the_real_shape_of_polyglot(tmp_path: Path, way: str) -> None:
    """1.3 billion weights: the plan is what a step of AdamW allocates, to the byte (on PyTorch's meta device)."""
    every = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    reranker = way == "reranker"
    shape = polyglot(tmp_path, reranker=reranker)
    rank, targets = {"lora 16": (16, None), "lora 8 everywhere": (8, every)}.get(way, (0, None))
    model = empty(shape, reranker=reranker, rank=rank, targets=targets)
    if rank:
        shape = adapt(shape, rank=rank, targets=targets)
    if way == "frozen":
        shape = freeze(shape, embeddings=True, layers=20)
        still = {weight.name for weight in shape.weights if not weight.trains}
        for name, weight in model.named_parameters():
            weight.requires_grad_(name not in still)
    trains = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trains:
        weight.grad = torch.empty_like(weight)
    optimizer = torch.optim.AdamW(trains, foreach=False)
    optimizer.step()
    states = model_states(shape, method="none", processes=1, precision="bf16").device
    assert states.weights == sum(weight.nbytes for weight in model.parameters())
    assert states.gradients == sum(weight.grad.nbytes for weight in trains)
    assert states.optimizer == sum(each.nbytes for state in optimizer.state.values() for each in state.values())
    print(f"polyglot-ko-1.3b, {way}: {states}")


LORA_STEPS = """
import json, resource, sys, torch
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from saved_tensors import saved_bytes
from test_train_memory_states import empty, polyglot

torch.manual_seed(0)
shape = polyglot(Path(sys.argv[2]))
model = empty(shape, rank=16)
model.rotary_emb = type(model.rotary_emb)(model.config)  # buffers have values that no to_empty gives
for name, module in model.named_modules():
    for key, weight in list(module.named_parameters(recurse=False)):
        trains = weight.requires_grad
        value = torch.empty(weight.shape, dtype=torch.float32 if trains else torch.bfloat16)
        value = value.zero_() if "lora_B" in name else value.fill_(1) if "norm" in name else value.normal_(std=0.02)
        setattr(module, key, torch.nn.Parameter(value, requires_grad=trains))
trains = [weight for weight in model.parameters() if weight.requires_grad]
optimizer = torch.optim.AdamW(trains, lr=1e-3, fused=True)
losses = []
for step in range(3):
    ids = torch.randint(5, 30000, (2, 64), generator=torch.Generator().manual_seed(7))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, -1].float()
    loss = torch.nn.functional.cosine_similarity(found[:1], found[1:]).mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    allocated = {
        "weights": sum(weight.nbytes for weight in model.parameters()),
        "gradients": sum(weight.grad.nbytes for weight in trains),
        "optimizer": sum(each.nbytes for state in optimizer.state.values() for each in state.values()),
    }
    optimizer.zero_grad()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
kept, _ = saved_bytes(model, rows=2, tokens=64, autocast=True)
print("RESULT", json.dumps({"losses": losses, "allocated": allocated, "peak": peak, "kept": kept}))
"""


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_lora_steps_of_the_real_shape_need_less_than_five_gib(tmp_path: Path) -> None:
    """On the CPU, the weights that do not train in bf16: three steps learn, under 5 GiB, the plan being what is there."""
    paths = [*sys.path, str(ASSETS), str(Path(__file__).parent)]
    command = [sys.executable, "-c", LORA_STEPS, json.dumps(paths), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    print(f"1.3 G weights, LoRA 16, 2 x 64 tokens: {found}; peak {found['peak'] / GIB:.2f} GiB")
    shape = adapt(polyglot(tmp_path), rank=16, targets=None)
    states = model_states(shape, method="none", processes=1, precision="bf16", frozen_bytes=2).device
    assert found["allocated"] == {part: getattr(states, part) for part in PARTS}
    assert found["losses"][-1] < found["losses"][0]
    assert found["peak"] < 5 * GIB
    # A bf16 residual stream, as under DeepSpeed: the embedding is bf16.
    planned = activations(shape, rows=2, tokens=64, method="zero2", precision="bf16", cuda=False)
    assert planned.kept == pytest.approx(found["kept"], rel=0.15)


REAL_BASE = """
import json, sys, torch
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from train_root import prepare
from transformers import GPTNeoXConfig, GPTNeoXModel

from nearer.models.source import known_config
from nearer.store import open_store

root = Path(sys.argv[2])
config = known_config("EleutherAI/polyglot-ko-1.3b", store=open_store(str(root)))
base = prepare(root, "embedding", architecture="gpt_neox") / "base"
tokens = {key: value for key, value in json.loads((base / "config.json").read_text()).items() if "token_id" in key}
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
GPTNeoXModel(GPTNeoXConfig(**config, **tokens)).save_pretrained(base)
"""


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_weight_of_the_real_shape_trains_on_a_machine_of_24_gib(tmp_path: Path) -> None:
    """`nearer train` under ZeRO-2 on the CPU, with all states in bf16; killed after a checkpoint, it goes on and publishes."""
    paths = [*sys.path, str(ASSETS)]
    subprocess.run([sys.executable, "-c", REAL_BASE, json.dumps(paths), str(tmp_path)], check=True, capture_output=True)
    section = {
        "base_model": "base",
        "device": "cpu",
        "deepspeed": str(ASSETS / "zero2-bf16-states.json"),
        "precision": "bf16",
        "activation_checkpointing": True,
        "batch_size": 2,
        "negatives_per_query": 0,
        "max_query_tokens": 32,
        "max_passage_tokens": 64,
        "max_steps": 4,
        "checkpoint_steps": 2,
        "evaluations_per_epoch": 1,
        "validation_passages": 20,
        "validation_queries": 5,
        "learning_rate": 1e-4,
    }
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps({"artifacts": str(tmp_path), "seed": 7, "train": {"embedding": section}}))
    command = [str(Path(sys.executable).with_name("nearer")), "train", "embedding", "--config", str(settings)]
    said = tmp_path / "said"
    peaks = []
    for kill_at in ("step-2", ""):
        with said.open("a") as out:
            run = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            peaks.append(watch(run, kill_at=kill_at, under=tmp_path))
    text = said.read_text()
    assert run.returncode == 0, text[-3000:]
    assert '"going on from a checkpoint", "step": 2' in text
    made = load_file(tmp_path / "models" / "fine_tuned_embedding" / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    still = [name for name, weight in base.items() if torch.equal(weight.float(), made[name].float())]
    print(
        f"1.3 G weights, ZeRO-2, all states in bf16, 2 x 64 tokens: {len(base) - len(still)} of {len(base)} tensors changed; "
        f"peaks {', '.join(f'{peak / GIB:.1f}' for peak in peaks)} GiB of all processes, the second after a kill"
    )
    assert all(name.endswith("norm.weight") for name in still)  # ones, of which such a rate is less than a 512th
    assert max(peaks) < 21 * GIB


def watch(run: psutil.Popen, *, kill_at: str, under: Path) -> int:
    """The peak of the memory that a process and its children have, shared pages counted once; killed when a file is there."""
    peak = 0
    while run.poll() is None:
        family = [run, *run.children(recursive=True)] if run.is_running() else []
        held = 0
        for each in family:
            with contextlib.suppress(psutil.Error):
                held += each.memory_full_info().pss
        peak = max(peak, held)
        if kill_at and any(under.rglob(kill_at)):
            for each in reversed(family):
                with contextlib.suppress(psutil.Error):
                    each.kill()
        time.sleep(0.2)
    return peak
