"""A causal language model in this process, for machines with a GPU and no endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from nearer import process
from nearer.errors import DoesNotFit, InputError
from nearer.llm.request import Reply, Request
from nearer.models.causal import is_causal
from nearer.models.encode import batches, use_all_cores
from nearer.models.readable import readable, refuse_remote_code
from nearer.models.source import ModelSource
from nearer.models.tokenizer import make_padding_explicit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SEED: Final = 0x5EED


class CausalLm:
    """A `Backend` that decodes in batches of like length, padded on the left.

    A tokenizer with a chat template gets the conversation; a model that was never taught one (polyglot-ko) gets the
    texts one after the other, and goes on where they end. Greedy decoding gives the same text in any batch, as far as
    the hardware's arithmetic does: in bf16, padding may turn a near-tie.

    Args:
        name: the model's name in keys; with its fingerprint, so that other weights are another model.
        model: in evaluation mode.
        tokenizer: with a pad token.
        batch_tokens: most tokens of a batch, prompts and replies, padding counted.
    """

    def __init__(
        self, *, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int
    ) -> None:
        self._name = name
        self._lm = model
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    @property
    def model(self) -> str:
        """The fingerprint of its files."""
        return self._name

    def answer(self, requests: Sequence[Request], *, go_on: Callable[[], bool]) -> Iterator[tuple[int, Reply]]:
        """Answer requests batch by batch, longest first; see `Backend.answer`."""
        use_all_cores()
        prompts = [self._tokens(request) for request in requests]
        kinds: dict[tuple[int, float], list[int]] = {}
        for place, request in enumerate(requests):
            kinds.setdefault((request.max_tokens, request.temperature), []).append(place)
        for (max_tokens, temperature), places in kinds.items():
            fitting = []
            for place in places:
                if problem := self._too_long(len(prompts[place]), max_tokens):
                    yield place, Reply(text="", problem=f"refused: {problem}")
                else:
                    fitting.append(place)
            lengths = [len(prompts[place]) + max_tokens for place in fitting]
            for rows in batches(lengths, batch_tokens=self._batch_tokens):
                if not go_on():
                    return
                chosen = [fitting[row] for row in rows]
                replies = self._decode(
                    [prompts[place] for place in chosen], max_tokens=max_tokens, temperature=temperature
                )
                yield from zip(chosen, replies, strict=True)

    def _tokens(self, request: Request) -> list[int]:
        if self._tokenizer.chat_template:
            chat = [{"role": role, "content": text} for role, text in request.messages]
            text = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        text = "\n\n".join(said for _, said in request.messages) + "\n"
        return list(self._tokenizer(text)["input_ids"])

    def _too_long(self, prompt: int, max_tokens: int) -> str:
        longest = getattr(self._lm.config, "max_position_embeddings", None)
        if longest is None or prompt + max_tokens <= longest:
            return ""
        return f"a prompt of {prompt} tokens and a reply of {max_tokens} are more than the model's {longest}"

    def _decode(self, prompts: Sequence[Sequence[int]], *, max_tokens: int, temperature: float) -> list[Reply]:
        """Replies (rows,) of prompts, which are padded on the left to (rows, longest)."""
        import torch

        pad = self._tokenizer.pad_token_id
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
            torch.manual_seed(hash((_SEED, *map(tuple, prompts))) & 0x7FFFFFFF)
        device = self._lm.device
        try:
            with torch.inference_mode():
                out = self._lm.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=max_tokens,
                    pad_token_id=pad,
                    **sampling,
                )
        except torch.OutOfMemoryError as error:
            raise DoesNotFit(
                f"no memory to decode {len(prompts)} replies of {max_tokens} tokens after {longest}",
                rule="a batch fits into the GPU's memory beside the model",
                way_out="lower generate.llm.batch_tokens or generate.llm.max_tokens",
            ) from error
        return [
            self._reply(new, prompt_tokens=len(prompt))
            for new, prompt in zip(out[:, longest:].tolist(), prompts, strict=True)
        ]

    def _reply(self, new: list[int], *, prompt_tokens: int) -> Reply:
        ends = self._lm.generation_config.eos_token_id if self._lm.generation_config else None
        stops = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        count = next((place for place, token in enumerate(new) if token in stops), len(new))
        text = self._tokenizer.decode(new[:count], skip_special_tokens=True)
        tokens = min(len(new), count + 1)
        return Reply(text=str(text), prompt_tokens=prompt_tokens, completion_tokens=tokens)


def load_causal_lm(source: ModelSource, *, trust_remote_code: bool, batch_tokens: int) -> CausalLm:
    """Load a causal language model: bf16 on a GPU that has it, fp32 on a CPU.

    Raises:
        InputError: it is no causal language model, cannot be read, or needs its own code and that is not trusted.
        DoesNotFit: no memory for it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    refuse_remote_code(source, trust_remote_code=trust_remote_code)
    process.release_memory()
    place = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with readable(source):
        config = AutoConfig.from_pretrained(source.path, **place)
        if not is_causal(config):
            raise InputError(
                f"{source.name!r} is no causal language model (model type {config.model_type!r})",
                where=str(source.path),
                rule="a decoder that goes on with a text, for generate.llm.backend: transformers",
                way_out="choose another generate.llm_model",
            )
        cuda = torch.cuda.is_available()
        dtype = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16 if cuda else torch.float32
        model = AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype, **place)
        tokenizer = AutoTokenizer.from_pretrained(source.path, **place)
        make_padding_explicit(tokenizer, model.config)
    tokenizer.padding_side = "left"
    model = model.to("cuda" if cuda else "cpu").eval()
    name = f"transformers:{source.fingerprint}"  # wherever it lies
    return CausalLm(name=name, model=model, tokenizer=tokenizer, batch_tokens=batch_tokens)
