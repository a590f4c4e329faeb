"""One rank of a tiny GPT-NeoX under DeepSpeed: prints the bytes that its model states have after two steps.

Run as `zero_states.py '{"rank": 0, "world": 2, "port": …, "method": "zero2", "bf16": true, "states": "fp32",
"config": {…}, "lora": null}'`.
"""

import json
import logging
import os
import sys

asked = json.loads(sys.argv[1])
os.environ |= {
    "RANK": str(asked["rank"]),
    "LOCAL_RANK": str(asked["rank"]),
    "WORLD_SIZE": str(asked["world"]),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(asked["port"]),
    "DS_ACCELERATOR": "cpu",
}
logging.disable(logging.WARNING)

import deepspeed  # noqa: E402
import torch  # noqa: E402
import torch.distributed  # noqa: E402
from transformers import GPTNeoXConfig, GPTNeoXModel  # noqa: E402


def held(tensors) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for pointer, size in storages.items() if pointer)


def states(model, optimizer, stage: int) -> dict[str, int]:
    parameters = list(model.parameters())
    found = {"optimizer": held(t for state in optimizer.optimizer.state.values() for t in state.values())}
    if stage == 3:
        found["weights"] = held(p.ds_tensor for p in parameters) + held(p.data for p in parameters)
        originals = optimizer.fp32_partitioned_groups_flat
        gradients = [optimizer.grad_partitions_flat_buffer]
    else:
        found["weights"] = held(p.data for p in parameters)
        originals = optimizer.single_partition_of_fp32_groups
        gradients = [t for group in optimizer.averaged_gradients.values() if group is not None for t in group]
    found["optimizer"] += held(originals)
    gradients += [p.grad for p in [*originals, *parameters] if p.grad is not None]
    found["gradients"] = held(gradients)
    return found


deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, and is not called
deepspeed.init_distributed("gloo")
torch.manual_seed(0)
model = GPTNeoXModel(GPTNeoXConfig(**asked["config"]))
if asked["lora"]:
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    LoraModel(model, {"default": LoraConfig(r=asked["lora"])}, "default")
trains = [weight for weight in model.parameters() if weight.requires_grad]
groups = [[weight for weight in trains if weight.dim() > 1], [weight for weight in trains if weight.dim() == 1]]
name, _, offload = asked["method"].partition("_")
stage = int(name.removeprefix("zero"))
zero = {
    "stage": stage,
    "contiguous_gradients": True,
    "reduce_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 10 * asked["config"]["hidden_size"],
}
if offload:
    zero["offload_optimizer"] = {"device": "cpu"}
    if stage == 3:
        zero["offload_param"] = {"device": "cpu"}
low = {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True} if asked["states"] == "bf16" else {}
engine, _, _, _ = deepspeed.initialize(
    model=model,
    optimizer=torch.optim.AdamW([{"params": group} for group in groups if group], fused=True),
    config={
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": asked["bf16"], **low},
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,
        "steps_per_print": 1 << 60,
    },
)
for _ in range(2):
    ids = torch.randint(0, 100, (2, 9))
    loss = engine(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float().pow(2).mean()
    engine.backward(loss)
    between = states(model, engine.optimizer, stage)
    engine.step()
after = states(model, engine.optimizer, stage)
print("STATES", json.dumps({**after, "gradients": between["gradients"]}))
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)  # threads of gloo may still run at the interpreter's end, and abort it
