import threading

import pytest
import torch

from keyseg.data.ahead import ahead


def test_results_come_in_order_and_one_is_made_before_it_is_asked_for():
    made, second = [], threading.Event()

    def make(item):
        made.append(item)
        if item == 1:
            second.set()
        return item * 10

    results = ahead(make, range(3))
    assert next(results) == 0
    assert second.wait(5)  # the second is under way while the first is used
    assert list(results) == [10, 20]
    assert made == [0, 1, 2]


def test_an_error_comes_where_the_result_would_have_come():
    def make(item):
        if item == 2:
            raise KeyError("two")
        return item

    results = ahead(make, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)


def test_closing_leaves_no_thread():
    before = threading.active_count()
    results = ahead(lambda item: item, range(100))
    next(results)
    results.close()
    assert threading.active_count() == before


def test_the_background_has_as_many_threads_as_the_foreground():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert list(ahead(lambda _: torch.get_num_threads(), [0])) == [1]
    finally:
        torch.set_num_threads(threads)
