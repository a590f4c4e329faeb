"""The gradient of a vocabulary: made once a step, and the same."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nearer.train.vocabulary import gathered_gradient

ROWS, WIDTH = 31, 4
TOKENS = st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=6), min_size=1, max_size=5)


class Model(nn.Module):
    """As much of a SentenceTransformer as an embedding is found by."""

    def __init__(self, embeddings: nn.Embedding) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.transformers_model = SimpleNamespace(get_input_embeddings=lambda: embeddings)

    def forward(self, group: list[int]) -> Tensor:
        """A sum in which each token and place has a weight of its own."""
        found = self.embeddings(torch.tensor(group))
        return (found * torch.arange(found.numel()).view_as(found)).sin().sum()


class Dense(TorchDispatchMode):
    """Counts what makes a dense gradient of the vocabulary's size."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), more: Any = None) -> Any:
        """Look, and go on."""
        made = function(*arguments, **(more or {}))
        if isinstance(made, Tensor) and made.shape == (ROWS, WIDTH):
            self.count += any(word in str(function) for word in ("dense", "zeros"))
        return made


def embeddings(padding: int | None = 0) -> nn.Embedding:
    torch.manual_seed(3)
    return nn.Embedding(ROWS, WIDTH, padding_idx=padding)


def gradient(model: Model, groups: list[list[int]]) -> Tensor:
    model.zero_grad()
    sum(map(model, groups), torch.zeros(())).backward()
    assert model.embeddings.weight.grad is not None
    return model.embeddings.weight.grad.clone()


@given(st.lists(TOKENS, min_size=1, max_size=4), st.sampled_from([None, 0, 5]))
def test_groups_have_the_gradient_that_they_had(steps: list[list[list[int]]], padding: int | None) -> None:
    """In every step anew, whatever became of the last one; what stands for nothing has none."""
    model = Model(embeddings(padding))
    expected = [gradient(model, groups) for groups in steps]
    with gathered_gradient(model):
        for groups, each in zip(steps, expected, strict=True):
            torch.testing.assert_close(gradient(model, groups), each, rtol=1e-5, atol=1e-5)
            model.embeddings.weight.grad.mul_(7)  # type: ignore[union-attr]  # as clipping scales it


def test_a_step_learns_what_it_learnt() -> None:
    """Adam, whose moments every row's gradient enters, comes to the same weights over steps of other rows."""
    weights = []
    for gathered in (False, True):
        model = Model(embeddings())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        with gathered_gradient(model) if gathered else nullcontext():
            for groups in ([[1, 2], [2, 3]], [[4]], [[1], [30, 30]]):
                gradient(model, groups)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
        weights.append(model.embeddings.weight.detach().clone())
    torch.testing.assert_close(*weights)


def test_two_passes_add_up_as_they_did() -> None:
    """Where nobody takes the gradient away between them, and where one is there already."""
    model = Model(embeddings())
    expected = gradient(model, [[1, 2]]) + gradient(model, [[2, 9]])
    with gathered_gradient(model):
        gradient(model, [[1, 2]])
        model([2, 9]).backward()
        torch.testing.assert_close(model.embeddings.weight.grad, expected)
        model.embeddings.weight.grad = torch.ones(ROWS, WIDTH)
        model([1, 2]).backward()
        model([2, 9]).backward()
        torch.testing.assert_close(model.embeddings.weight.grad, expected + 1)
        torch.testing.assert_close(gradient(model, [[1, 2]]) + gradient(model, [[2, 9]]), expected)


def test_many_groups_and_steps_are_one_dense_gradient() -> None:
    model, groups = Model(embeddings()), [[1, 2], [2, 3], [4], [5, 6, 7]]
    with Dense() as plain:
        gradient(model, groups)
    with gathered_gradient(model), Dense() as gathered:
        gradient(model, groups)
        gradient(model, groups)
    assert (plain.count, gathered.count) == (len(groups), 1)


def test_a_forward_pass_that_nobody_goes_back_through_changes_nothing() -> None:
    model, groups = Model(embeddings()), [[1, 2], [2, 3]]
    expected = gradient(model, groups)
    with gathered_gradient(model):
        model(groups[0])
        with torch.no_grad():
            model(groups[1])
        torch.testing.assert_close(gradient(model, groups), expected)


def test_the_model_is_as_it_was_afterwards() -> None:
    model = Model(embeddings())
    before = set(model.embeddings.__dict__)
    with gathered_gradient(model):
        model([1, 2])
    assert type(model.embeddings) is nn.Embedding
    assert set(model.embeddings.__dict__) == before


class Scaled(nn.Embedding):
    """Does more than look up, as Gemma's does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Rows, doubled."""
        return 2 * super().forward(input)


def test_embeddings_of_their_own_kind_frozen_ones_and_shared_ones_are_left_alone() -> None:
    own, frozen, tied = Model(Scaled(ROWS, WIDTH)), Model(embeddings()), Model(embeddings())
    frozen.embeddings.requires_grad_(False)
    tied.head = nn.Linear(WIDTH, ROWS, bias=False)
    tied.head.weight = tied.embeddings.weight
    with gathered_gradient(own), gathered_gradient(frozen), gathered_gradient(tied):
        assert type(own.embeddings) is Scaled
        assert type(frozen.embeddings) is nn.Embedding
        assert type(tied.embeddings) is nn.Embedding
