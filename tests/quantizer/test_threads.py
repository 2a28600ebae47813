"""Tiles of rows on several threads, and what becomes of the libraries' own threads meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from threadpoolctl import threadpool_info

from semid_daemon.quantizer.matmul import PackedCentroids, can_pack, products
from semid_daemon.quantizer.threads import for_each_span, reserve_core, threads_for, worker_beside_others

CPU = torch.device("cpu")


def _blas_threads() -> set[int]:
    """Of NumPy's library: others bring copies of their own."""
    libraries = threadpool_info()
    return {
        each["num_threads"] for each in libraries if each["internal_api"] == "openblas" and "numpy" in each["filepath"]
    }


@pytest.mark.parametrize("step", [7, 50, 99, 100, 1000])
def test_every_row_is_in_one_slice(step: int) -> None:
    seen: list[tuple[int, int]] = []

    for_each_span(CPU, 100, step, lambda tiles: seen.extend((tile.start, tile.stop) for tile in tiles))

    assert [row for start, stop in sorted(seen) for row in range(start, stop)] == list(range(100))


def test_libraries_have_one_thread_inside_and_as_many_as_before_afterwards() -> None:
    before = torch.get_num_threads(), _blas_threads()
    inside = []

    for_each_span(CPU, 4, 1, lambda tiles: inside.append((torch.get_num_threads(), _blas_threads())))

    assert inside
    assert all(threads == 1 and blas <= {1} for threads, blas in inside)
    assert (torch.get_num_threads(), _blas_threads()) == before


def test_libraries_have_one_thread_whichever_thread_calls() -> None:
    """The first to come leaves first, and the second, another thread, still has one."""
    before = _blas_threads()
    first_is_in, second_is_in, first_has_left = threading.Event(), threading.Event(), threading.Event()
    inside: list[set[int]] = []

    def first() -> None:
        def work(tiles: object) -> None:
            first_is_in.set()
            assert second_is_in.wait(60)
            inside.append(_blas_threads())

        for_each_span(CPU, 2, 1, work)
        first_has_left.set()

    def second() -> None:
        def work(tiles: object) -> None:
            second_is_in.set()
            assert first_has_left.wait(60)
            inside.append(_blas_threads())

        assert first_is_in.wait(60)
        with reserve_core():  # in another pool: the first caller has all threads of its own
            for_each_span(CPU, 2, 1, work)

    for_each_span(CPU, 2, 1, lambda tiles: None)
    callers = [threading.Thread(target=caller) for caller in (first, second)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(inside) >= 2
    assert all(blas <= {1} for blas in inside)
    assert _blas_threads() == before


@pytest.mark.skipif(torch.get_num_threads() == 1, reason="there is no core to leave")
def test_a_caller_that_leaves_a_core_works_with_a_thread_less() -> None:
    before, callers = torch.get_num_threads(), []

    def work(tiles: object) -> None:
        callers.append((threading.current_thread().name, torch.get_num_threads(), _blas_threads()))

    with reserve_core():
        assert threads_for(CPU) == before - 1
        for_each_span(CPU, 100, 1, work)
        assert len(callers) == before - 1
    assert threads_for(CPU) == torch.get_num_threads() == before
    assert all(name != threading.main_thread().name for name, _, _ in callers)
    assert all(threads == 1 and blas <= {1} for _, threads, blas in callers)


def test_callers_at_the_same_time_keep_their_number_of_threads() -> None:
    """The first to come leaves first: neither finds torch with one thread afterwards."""
    before = torch.get_num_threads()
    first_is_in, second_comes, first_has_left = threading.Event(), threading.Event(), threading.Event()
    after: list[int] = []

    def first() -> None:
        def work(tiles: object) -> None:
            first_is_in.set()
            assert second_comes.wait(60)

        for_each_span(CPU, 2, 1, work)
        after.append(torch.get_num_threads())
        first_has_left.set()

    def second() -> None:
        assert first_is_in.wait(60)
        second_comes.set()
        for_each_span(CPU, 2, 1, lambda tiles: first_has_left.wait(60))
        after.append(torch.get_num_threads())

    callers = [threading.Thread(target=caller) for caller in (first, second)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert after == [before, before]


def test_a_single_slice_is_left_to_torch() -> None:
    before, callers = torch.get_num_threads(), []

    def work(tiles: object) -> None:
        callers.append((threading.current_thread(), torch.get_num_threads()))

    for_each_span(CPU, 10, 10, work)

    assert [threads for _, threads in callers] == [before]


@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_either_library(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_ND, centroids_KD = torch.randn(300, 40, generator=generator), torch.randn(16, 40, generator=generator)
    out_NK = torch.empty(300, 16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert products(rows_ND, centroids_KD, out_NK) is out_NK
    finally:
        torch.set_num_threads(before)

    torch.testing.assert_close(out_NK.double(), rows_ND.double() @ centroids_KD.double().T, rtol=1e-5, atol=1e-5)


def test_a_worker_beside_others_has_a_thread_less_and_nobody_else() -> None:
    before = torch.get_num_threads()
    pool = worker_beside_others("beside")
    with pool, ThreadPoolExecutor(1) as another:
        assert pool.submit(torch.get_num_threads).result() == max(1, before - 1)
        assert another.submit(torch.get_num_threads).result() == before
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not can_pack(CPU), reason="this build of torch packs no centroids")
@pytest.mark.parametrize(("rows", "dim", "size"), [(1, 1, 1), (300, 40, 16), (70, 384, 256)])
def test_products_with_packed_centroids(rows: int, dim: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_ND, centroids_KD = torch.randn(rows, dim, generator=generator), torch.randn(size, dim, generator=generator)

    scores_NK = PackedCentroids(centroids_KD).products(rows_ND)

    torch.testing.assert_close(scores_NK.double(), rows_ND.double() @ centroids_KD.double().T, rtol=1e-5, atol=1e-4)
