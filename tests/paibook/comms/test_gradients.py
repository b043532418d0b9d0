"""Averaged gradients: exact, in 16 bits, the largest only; ranks are threads here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from paibook.comms import Communicator  # noqa: E402
from paibook.comms.gradients import GradientReducer  # noqa: E402
from paibook.comms.threads import ThreadCommunicator, ThreadGroup  # noqa: E402
from tests.paibook.comms.thread_ranks import on_ranks  # noqa: E402


def parameters(shapes: list[tuple[int, ...]], dtype: Any = torch.float32) -> list[Any]:
    return [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]


def gradients_of(rank: int, some: list[Any]) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(rank)
    return [random.normal(size=tuple(p.shape)).astype(p.detach().numpy().dtype) for p in some]


SHAPES = [(3, 5), (7,), (1,), (2, 2, 2), (100,)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("bucket_bytes", [1, 64, 1 << 20])
@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({}, 1e-6),
        ({"compression": "fp16"}, 3e-3),
        ({"compression": "bf16"}, 3e-2),
        ({"compression": "top-k", "ratio": 1.0}, 1e-6),
    ],
)
def test_the_mean_over_ranks(size: int, bucket_bytes: int, options: dict[str, Any], within: float) -> None:
    def step(comm: Communicator) -> list[Any]:
        some = parameters(SHAPES)
        reducer = GradientReducer(some, comm, bucket_bytes, **options)
        for parameter, gradient in zip(some, gradients_of(comm.rank, some), strict=True):
            parameter.grad = torch.from_numpy(gradient)
        reducer.reduce()
        return [parameter.grad.numpy() for parameter in some]

    found = on_ranks(size, step)
    every = [gradients_of(rank, parameters(SHAPES)) for rank in range(size)]
    for place in range(len(SHAPES)):
        expected = np.mean([gradients[place] for gradients in every], axis=0)
        for rank in range(size):
            np.testing.assert_array_equal(found[rank][place], found[0][place])  # the same bits everywhere
            np.testing.assert_allclose(found[rank][place], expected, atol=within)


@pytest.mark.parametrize("compression", ["fp16", "bf16", "top-k"])
def test_what_is_left_out_of_one_step_is_in_the_next(compression: str) -> None:
    steps, numbers = 200, 50

    def train(comm: Communicator) -> np.ndarray[Any, Any]:
        [parameter] = parameters([(numbers,)])
        reducer = GradientReducer([parameter], comm, compression=compression, ratio=0.1)
        total = np.zeros(numbers)
        gradient = np.random.default_rng(comm.rank).normal(size=numbers).astype("f4") + np.float32(1e-3)
        for _ in range(steps):
            parameter.grad = torch.from_numpy(gradient.copy())
            reducer.reduce()
            total += parameter.grad.numpy()
        return total

    totals = on_ranks(2, train)
    every = [np.random.default_rng(rank).normal(size=numbers).astype("f4") + np.float32(1e-3) for rank in range(2)]
    # In 200 steps all of a gradient has arrived but for some that wait, whose size does not grow with the steps.
    np.testing.assert_allclose(totals[0] / steps, np.mean(every, axis=0), atol=0.12 if compression == "top-k" else 1e-2)


def test_top_k_sends_the_largest() -> None:
    def step(comm: Communicator) -> list[float]:
        [parameter] = parameters([(10,)])
        reducer = GradientReducer([parameter], comm, compression="top-k", ratio=0.2)
        parameter.grad = torch.tensor([0.1, -9, 0.2, 0.3, 8, 0, 0, 0, 0, 0.4])
        reducer.reduce()
        return list(parameter.grad.tolist())

    assert on_ranks(2, step)[0] == [0, -9, 0, 0, 8, 0, 0, 0, 0, 0]


def test_a_parameter_without_a_gradient_counts_as_zeros() -> None:
    def step(comm: Communicator) -> list[float]:
        some = parameters([(2,), (2,)])
        some[comm.rank].grad = torch.ones(2)
        GradientReducer(some, comm).reduce()
        return [value for parameter in some for value in parameter.grad.tolist()]

    assert on_ranks(2, step) == [[0.5] * 4] * 2


@pytest.mark.parametrize("compression", ["fp16", "bf16"])
def test_an_overflow_passes_and_leaves_no_trace(compression: str) -> None:
    def step(comm: Communicator) -> list[list[float]]:
        [parameter] = parameters([(3,)])
        reducer = GradientReducer([parameter], comm, compression=compression)
        made = []
        for gradient in ([1.0, float("inf"), float("nan")], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]):
            parameter.grad = torch.tensor(gradient)
            reducer.reduce()
            made.append(parameter.grad.tolist())
        return made

    first, second, third = on_ranks(2, step)[0]
    assert (first[0], first[1], first[2] != first[2]) == (1.0, float("inf"), True)
    assert second == third == [1.0, 1.0, 1.0]


def test_values_beyond_16_bits_come_in_several_steps() -> None:
    def step(comm: Communicator) -> float:
        [parameter] = parameters([(1,)])
        reducer = GradientReducer([parameter], comm, compression="fp16")
        total = 0.0
        for gradient in (1e5, 0.0, 0.0):
            parameter.grad = torch.tensor([gradient])
            reducer.reduce()
            total += parameter.grad.item()
        return total

    assert on_ranks(2, step) == [pytest.approx(1e5)] * 2


@pytest.mark.parametrize(
    ("compression", "values", "within"), [("fp16", [6e-8, 0, 0, 0], 1e-7), ("bf16", [1.0, 1 + 2**-7], 0.02)]
)
def test_the_mean_s_own_rounding_is_not_lost_either(compression: str, values: list[float], within: float) -> None:
    def step(comm: Communicator) -> float:
        [parameter] = parameters([(1,)])
        reducer = GradientReducer([parameter], comm, compression=compression)
        total = 0.0
        for _ in range(200):
            parameter.grad = torch.tensor([float(values[comm.rank])])
            reducer.reduce()
            total += parameter.grad.item()
        return total

    assert on_ranks(len(values), step)[0] == pytest.approx(200 * sum(values) / len(values), abs=within)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_what_may_become_of_parameters_later() -> None:
    def step(comm: Communicator) -> list[Any]:
        frozen, differentiable, empty = parameters([(2,), (2,), (0,)])
        reducer = GradientReducer([frozen, differentiable, empty], comm)
        frozen.requires_grad_(False)
        (differentiable**3).sum().backward(create_graph=True)
        reducer.reduce()
        return [frozen.grad, differentiable.grad.tolist()]

    assert on_ranks(2, step)[0] == [None, [0.0, 0.0]]


def test_ranks_with_other_parameters_say_so() -> None:
    def step(comm: Communicator) -> str:
        try:
            GradientReducer(parameters([(2, 3) if comm.rank else (3, 2)]), comm)
        except ValueError as error:
            return str(error)
        return ""

    for said in on_ranks(2, step):
        assert "the parameters of rank 1 have other shapes" in said


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    reducer = GradientReducer(embedding.parameters(), ThreadCommunicator(ThreadGroup(1), 0))
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="is sparse"):
        reducer.reduce()


def test_gradients_of_several_types() -> None:
    def step(comm: Communicator) -> list[Any]:
        some = [*parameters([(2,)]), *parameters([(3,)], torch.float64), *parameters([(2,)])]
        for parameter in some:
            parameter.grad = torch.full_like(parameter, comm.rank)
        GradientReducer(some, comm).reduce()
        return [parameter.grad for parameter in some]

    found = on_ranks(2, step)[0]
    assert [g.dtype for g in found] == [torch.float32, torch.float64, torch.float32]
    assert all((g == 0.5).all() for g in found)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda comm: GradientReducer([], comm), "there are no parameters"),
        (lambda comm: GradientReducer(parameters([(2,)]), comm, compression="zip"), "must be None or one of fp16"),
        (lambda comm: GradientReducer(parameters([(2,)]), comm, compression="top-k", ratio=0), "ratio must be above 0"),
        (lambda comm: GradientReducer(parameters([(2,)], torch.bfloat16), comm), "float32 or float64 in main memory"),
        (lambda comm: GradientReducer(parameters([(2,)]), comm, bucket_bytes=0), "bucket_bytes must be 1 or more"),
    ],
)
def test_what_cannot_work_is_refused(make: Callable[[Communicator], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(ThreadCommunicator(ThreadGroup(1), 0))
