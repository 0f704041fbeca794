from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace._delivery.queue import EventQueue


class Item:
    def __init__(self, number, size=1):
        self.number = number
        self.size = size

    def event(self):
        raise NotImplementedError


def numbers(items):
    return [item.number for item in items]


def test_the_oldest_make_room():
    queue = EventQueue(3, 1000)
    for number in range(5):
        queue.put(Item(number))
    assert numbers(queue.take(10)) == [2, 3, 4]
    assert (queue.recorded, queue.removed, queue.evicted) == (5, 5, 2)


def test_bytes_bound_it_too():
    queue = EventQueue(100, 10)
    for number in range(4):
        queue.put(Item(number, size=4))
    assert numbers(queue.take(10)) == [2, 3]


def test_an_item_larger_than_the_bound_takes_the_place_of_all_others():
    queue = EventQueue(100, 10)
    queue.put(Item(0, size=5))
    queue.put(Item(1, size=11))
    assert (len(queue), queue.evicted) == (1, 1)
    queue.put(Item(2, size=1))
    assert (numbers(queue.take(10)), queue.evicted) == ([2], 2)


def test_what_is_held_elsewhere_counts():
    queue = EventQueue(5, 1000)
    queue.hold(4, 0)
    queue.put(Item(0))
    queue.put(Item(1))
    assert numbers(queue.take(10)) == [1]


def test_after_close_nothing_enters_and_that_is_counted():
    queue = EventQueue(5, 1000)
    queue.close()
    queue.put(Item(0))
    assert (len(queue), queue.refused, queue.recorded) == (0, 1, 0)


@given(
    st.lists(
        st.one_of(st.integers(1, 8).map(lambda n: ("put", n)), st.integers(0, 5).map(lambda n: ("take", n)))
    )
)
def test_nothing_is_lost_between_the_counters(steps):
    queue = EventQueue(4, 16)
    taken = 0
    for what, amount in steps:
        if what == "put":
            queue.put(Item(0, amount))
        else:
            taken += len(queue.take(amount))
        assert len(queue) <= 4
        assert queue.recorded == taken + queue.evicted + len(queue)
        assert queue.removed == taken + queue.evicted


def test_threads_lose_no_count():
    queue = EventQueue(100_000, 10**9)
    threads = [threading.Thread(target=lambda: [queue.put(Item(n)) for n in range(5000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.recorded == len(queue) == 40_000
    assert len(queue.take(50_000)) == 40_000
    assert queue.bytes == 0
