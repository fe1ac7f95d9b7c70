"""The queue's promises, each over many random histories. Time is counted in batches, so no test depends on a clock."""

import random
from array import array
from collections import Counter

import pytest

from l2v.app.engine.jobs import Job, JobBatch
from l2v.app.engine.queue import JobQueue
from l2v.models import Encoding

BUDGET = 64


def job(*lengths: int) -> Job:
    return Job([Encoding(array("q", [0] * length), pooled=1) for length in lengths])


def add(queue: JobQueue, *lengths: int) -> Job:
    queue.add(added := job(*lengths))
    return added


def tokens(batch: JobBatch, *jobs: Job) -> int:
    """The tokens of a batch, or those of some jobs in it."""
    return sum(len(item.encoding) for item in batch if not jobs or item.job in jobs)


def lengths(chance: random.Random, total: int, longest: int) -> list[int]:
    """Random lengths with a given sum."""
    found = []
    while total:
        found.append(min(total, chance.randint(1, longest)))
        total -= found[-1]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_each_encoding_is_taken_once_and_within_the_budget(seed: int) -> None:
    chance, queue = random.Random(seed), JobQueue()
    jobs: list[Job] = []
    dropped: set[Job] = set()
    taken: list[tuple[Job, int]] = []
    while len(jobs) < 200 or queue.inputs:
        if len(jobs) < 200:
            longest = chance.choice((1, 5, 40, 100))
            jobs += [add(queue, *lengths(chance, chance.choice((1, 9, 70, 500)), longest)) for _ in range(3)]
        if chance.random() < 0.3:
            dropped.add(gone := chance.choice(jobs))
            queue.discard(gone.future)
        budget = chance.choice((BUDGET, BUDGET, 20))  # it is reduced when memory runs out
        batch = queue.take_batch(budget)
        assert batch or not queue.inputs
        assert tokens(batch) <= budget or len(batch) == 1
        assert not dropped & {item.job for item in batch}
        taken += batch
        waiting = [each for each in jobs if each.waiting_inputs and each not in dropped]
        assert queue.tokens == sum(each.waiting_tokens for each in waiting)
        assert queue.inputs == sum(each.waiting_inputs for each in waiting)
        assert list(queue) == waiting
    places = {each: [place for one, place in taken if one is each] for each in jobs}
    assert all(found == list(range(len(found))) for found in places.values())
    assert all(len(places[each]) == len(each.encodings) for each in jobs if each not in dropped)


@pytest.mark.parametrize("seed", range(20))
def test_short_jobs_of_less_than_half_of_the_load_are_in_the_next_batch(seed: int) -> None:
    chance, queue = random.Random(seed), JobQueue()
    for _ in range(300):
        if queue.tokens < 10 * BUDGET:
            add(queue, *lengths(chance, chance.randint(BUDGET, 9 * BUDGET), BUDGET // 2))
        short, room = [], chance.randint(0, BUDGET // 2)
        while room > 0:
            short.append(add(queue, *lengths(chance, min(room, chance.randint(1, 9)), 5)))
            room -= short[-1].waiting_tokens
        queue.take_batch(BUDGET)
        assert not any(each.waiting_inputs for each in short)


def test_more_short_jobs_than_that_share_by_halves_with_a_long_one() -> None:
    queue = JobQueue()
    long = add(queue, *[1] * 50 * BUDGET)
    while long.waiting_inputs:
        for _ in range(BUDGET):
            add(queue, 1)
        batch = queue.take_batch(BUDGET)
        assert (tokens(batch, long), tokens(batch)) == (BUDGET // 2, BUDGET)


@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_engine_works_off_what_was_there_before(seed: int) -> None:
    """Whatever arrives later, a job is done once the batches hold twice the tokens that waited when it arrived."""
    chance, queue = random.Random(seed), JobQueue()
    bounds: dict[Job, int] = {}
    computed = 0
    for _ in range(400):
        while queue.tokens < 20 * BUDGET:
            size = chance.choice((1, 3, BUDGET // 3, BUDGET, 5 * BUDGET))
            added = add(queue, *[1] * size)
            bounds[added] = computed + 2 * queue.tokens + BUDGET
        computed += tokens(queue.take_batch(BUDGET))
        assert all(each.waiting_inputs == 0 for each, bound in bounds.items() if computed >= bound)
    assert sum(each.waiting_inputs == 0 for each in bounds) > 100


@pytest.mark.parametrize("shortest", [4, BUDGET // 2, BUDGET, 4 * BUDGET])
def test_jobs_of_about_one_length_finish_in_the_order_of_their_arrival(shortest: int) -> None:
    chance, queue = random.Random(shortest), JobQueue()
    jobs = [add(queue, *[1] * chance.randrange(shortest, 2 * shortest)) for _ in range(16)]
    done: list[Job] = []
    while queue.inputs:
        queue.take_batch(BUDGET)
        assert sum(bool(each.taken and each.waiting_inputs) for each in jobs) <= 1
        done += [each for each in jobs if not each.waiting_inputs and each not in done]
    assert done == jobs


def test_texts_that_fill_more_than_half_of_a_batch_take_turns() -> None:
    """The oldest job and the shortest are never both in a batch here, and neither waits for the other to end."""
    queue = JobQueue()
    oldest = add(queue, *[BUDGET - 1] * 100)
    served = Counter[bool]()
    for _ in range(20):
        short = add(queue, BUDGET // 2, BUDGET // 2)
        while short.waiting_inputs:
            batch = queue.take_batch(BUDGET)
            served[oldest in {item.job for item in batch}] += 1
    assert abs(served[True] - served[False]) <= 1
    assert queue.take_batch(BUDGET // 4)  # a text longer than the whole budget is a batch of its own


def test_a_batch_with_short_jobs_stays_small() -> None:
    queue = JobQueue()
    long, short = add(queue, *[1] * 9 * BUDGET), add(queue, 2, 1)
    batch = queue.take_batch(BUDGET)
    assert (tokens(batch, short), tokens(batch, long)) == (3, BUDGET // 4 - 3)
    shorts = [add(queue, 5) for _ in range(5)]
    batch = queue.take_batch(BUDGET)
    assert (tokens(batch, *shorts), tokens(batch, long)) == (25, 25)
    assert tokens(queue.take_batch(BUDGET)) == BUDGET


def test_a_job_that_is_too_long_for_half_of_a_batch_is_still_served_as_the_next_shortest() -> None:
    queue = JobQueue()
    add(queue, *[1] * 99 * BUDGET)
    medium = add(queue, *[1] * (BUDGET // 2 + 1))
    batches = 0
    while medium.waiting_inputs:
        add(queue, 1)
        queue.take_batch(BUDGET)
        batches += 1
    assert batches == 5
