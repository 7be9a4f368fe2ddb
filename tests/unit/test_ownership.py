"""Ownership as a state machine: any order of assignments, losses, memberships and claims, against a plain model."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from streams.sinks.base import CycleAborted
from streams.worker.ownership import Ownership, Term
from tests.examples import examples

PARTITIONS = st.sets(st.integers(0, 3), min_size=1)


class Orders(RuleBasedStateMachine):
    """The model is a history: of every term whether it has ended, and which memberships were noted before that."""

    terms = Bundle("terms")

    @initialize()
    def empty(self) -> None:
        self.ownership = Ownership()
        self.running: dict[int, Term] = {}
        self.seen: set[Term] = set()
        self.membership: int | None = None
        self.noted = 0
        self.noted_in_term: dict[Term, set[int]] = {}

    @rule(target=terms, partitions=PARTITIONS)
    def assigned(self, partitions: set[int]) -> object:
        begun = self.ownership.begin(sorted(partitions))
        assert partitions == begun.keys()
        assert not self.seen & set(begun.values()), "a term's number was used before"
        self.seen |= set(begun.values())
        self.running |= begun
        for term in begun.values():
            self.noted_in_term[term] = set() if self.membership is None else {self.membership}
        return multiple(*begun.values())

    @rule(partitions=PARTITIONS)
    def revoked_or_lost(self, partitions: set[int]) -> None:
        self.ownership.end(partitions)
        for partition in partitions:
            self.running.pop(partition, None)

    @rule(is_member=st.booleans())
    def polled(self, *, is_member: bool) -> None:
        self.noted += 1
        self.membership = self.noted if is_member else None
        self.ownership.note(self.membership)
        for term in self.running.values():
            self.noted_in_term[term].add(self.noted)

    @rule(cycle=st.lists(terms, max_size=4))
    def claimed(self, cycle: list[Term]) -> None:
        ended = [term for term in cycle if self.running.get(term.partition) != term]
        if ended:
            with pytest.raises(CycleAborted) as refused:
                self.ownership.claim(cycle)
            assert "partitions_lost" == refused.value.reason
            assert str(sorted({term.partition for term in ended})) in str(refused.value)
        elif self.membership is None:
            with pytest.raises(CycleAborted) as refused:
                self.ownership.claim(cycle)
            assert "left_group" == refused.value.reason
        else:
            membership = self.ownership.claim(cycle)
            assert self.membership == membership
            assert all(membership in self.noted_in_term[term] for term in cycle)

    @invariant()
    def at_most_one_term_of_a_partition_runs(self) -> None:
        for term in self.seen:
            assert (self.running.get(term.partition) == term) == self.ownership.runs(term)


Orders.TestCase.settings = settings(max_examples=examples(300), stateful_step_count=30, deadline=None)
TestOrders = Orders.TestCase


def test_a_partition_that_comes_back_at_once_is_of_another_term() -> None:
    ownership = Ownership()
    ownership.note("generation 1")
    before = ownership.begin([0])[0]
    ownership.end([0])
    after = ownership.begin([0])[0]
    assert not ownership.runs(before)
    assert "generation 1" == ownership.claim([after])
    with pytest.raises(CycleAborted, match=r"given away since: \[0\]"):
        ownership.claim([after, before])


def test_a_membership_noted_after_the_end_of_a_term_never_reaches_its_cycle() -> None:
    """Two threads, as in a worker: one ends terms and notes what comes then, one claims."""
    ownership = Ownership()
    rounds = 3_000
    term = ownership.begin([0])[0]
    ownership.note(0)
    found: list[tuple[int, object]] = []
    done = threading.Event()

    def commit() -> None:
        while not done.is_set():
            mine = current[0]
            try:
                found.append((mine.number, ownership.claim([mine])))
            except CycleAborted:
                continue

    current = [term]
    thread = threading.Thread(target=commit)
    thread.start()
    for number in range(1, rounds):
        ownership.end([0])
        ownership.note(number)
        current[0] = ownership.begin([0])[0]
    done.set()
    thread.join()
    # Term n began with membership n - 1 as the newest, and ended before membership n was noted.
    assert [(number, number - 1) for number, _ in found] == found
