"""What is committed of a growth, and that state of before there was such a thing is state of the first layout."""

import json
from itertools import compress

import numpy as np
import pytest

from streams.batch.key_hash import murmur2, murmur2_all
from streams.growth.committed import standing_of
from streams.growth.coupling import Coupling
from streams.growth.home import Home
from streams.growth.layout import Layout
from streams.growth.layouts import Layouts
from streams.growth.stages import Phase, Standing
from streams.growth.state import NO_GROWTH, ForwardedReading, GrowthState
from streams.kafka.positions import metadata_of, position_of
from streams.sinks.base import Committed
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity

KEYS = [b"device-%d" % number for number in range(500)]
READ = ForwardedReading(7, Coupling(3, 4, reach=9, is_idle=True))
GROWN = GrowthState(parent=1, readings=(READ,), settled=2)
OF_TWO_INPUTS = GROWN.reading(1, ForwardedReading(8, Coupling(5, 6)))


def checkpoint(growth: GrowthState = NO_GROWTH, epoch: int = 1) -> Checkpoint:
    return Checkpoint(4, 40, 400, 9, 2, identity=Identity(epoch=epoch, partitions=3), growth=growth)


@pytest.mark.parametrize("growth", [GROWN, OF_TWO_INPUTS])
def test_a_checkpoint_keeps_what_is_known_of_a_growth(growth: GrowthState) -> None:
    found = checkpoint(growth, epoch=2)
    assert Checkpoint.unpack(found.pack()) == found


def test_what_is_read_of_an_input_is_known_by_its_number() -> None:
    assert (OF_TWO_INPUTS.of(0), OF_TWO_INPUTS.of(1).forwarded_next) == (READ, 8)
    assert OF_TWO_INPUTS.of(2) == NO_GROWTH.of(0) == ForwardedReading()
    assert NO_GROWTH.reading(1, READ).readings == (ForwardedReading(), READ)


def test_the_state_of_one_input_is_written_as_before_there_were_several() -> None:
    coupling = {"own": 3, "parent": 4, "reach": 9, "is_idle": True, "is_settled": False}
    assert GROWN.as_json() == {"parent": 1, "forwarded_next": 7, "coupling": coupling, "settled": 2}


def test_a_checkpoint_of_a_flow_that_never_grew_is_as_it_was_before_there_were_growths() -> None:
    packed = json.loads(checkpoint().pack())
    assert "growth" not in packed
    assert Checkpoint.unpack(json.dumps(packed).encode()).growth == NO_GROWTH
    assert packed["identity"]["epoch"] == 1


@pytest.mark.parametrize("broken", [{"growth": {"parent": 1}}, {"growth": {"coupling": 1, "own": 2}}])
def test_a_checkpoint_with_another_growth_is_none_of_ours(broken: dict[str, object]) -> None:
    packed = json.loads(checkpoint().pack()) | broken
    with pytest.raises(ValueError, match="growth"):
        Checkpoint.unpack(json.dumps(packed).encode())


def test_a_section_of_the_journal_is_written_only_where_there_is_something_to_say() -> None:
    assert NO_GROWTH.packed == b""
    assert GrowthState.unpack(GROWN.packed) == GROWN
    assert GrowthState.unpack(OF_TWO_INPUTS.packed) == OF_TWO_INPUTS
    with pytest.raises(ValueError, match="not a growth's state"):
        GrowthState.unpack(b"[]")


def test_an_offset_says_how_its_partition_stands() -> None:
    grown = Committed(5, 42, epoch=2, ready=2, cleared=2, settled=1)
    assert position_of(5, metadata_of(grown)) == grown
    assert standing_of(grown) == Standing(2, 2, 2, 1)
    assert "epoch" not in metadata_of(Committed(5, 42))
    assert standing_of(position_of(5, "streams-cycle:42")) == Standing(1)  # of before there were growths
    assert standing_of(position_of(5, "streams-cycle:42;epoch=0")) == Standing(0)  # it has not taken all over yet
    assert standing_of(position_of(5, "by hand")) == standing_of(None) == Standing(0)
    assert position_of(5, "streams-cycle:42;epoch=two").epoch is None


def test_layouts_are_known_by_epoch() -> None:
    first = Layouts.first(3)
    grown = first.grown(12, Phase.BEGUN)
    assert first.growth is None
    assert (first.before, grown.before, grown.known[-1]) == (Layout(1, 3), Layout(1, 3), Layout(2, 12))
    assert (grown.of(2), grown.of(3), grown.of(0)) == (Layout(2, 12), None, None)
    assert (grown.is_child(2), grown.is_child(3), grown.is_child(12)) == (False, True, False)
    assert list(grown.grown(24, Phase.PLANNED).counts_before(3)) == [3, 12]
    with pytest.raises(ValueError, match="no layouts"):
        Layouts((Layout(2, 3),))
    with pytest.raises(ValueError, match="phase"):
        Layouts((Layout(1, 3),), Phase.BEGUN)


def kept(home: Home) -> set[bytes]:
    found = home.kept(KEYS)
    return set(KEYS) if found is None else {key for key, is_kept in zip(KEYS, found.tolist(), strict=True) if is_kept}


def test_a_parent_keeps_its_keys_and_what_it_has_of_strangers_and_nothing_of_keys_that_moved() -> None:
    home = Home(1, lambda keys: murmur2_all(keys) % 3 == 1)
    assert kept(home) == set(KEYS)
    assert not home.has_moved
    home.enter(Layout(2, 12), [3])
    moved = {key for key in KEYS if murmur2(key) % 3 == 1 and murmur2(key) % 12 != 1}
    assert kept(home) == set(KEYS) - moved
    assert set(compress(KEYS, home.has(KEYS))) == {key for key in KEYS if murmur2(key) % 12 == 1}


def test_a_child_keeps_its_own_keys_whatever_its_parent_had() -> None:
    of_child = {key for key in KEYS if murmur2(key) % 12 == 4}
    adopting, restored = (
        Home(4, lambda keys: np.zeros(len(keys), dtype=np.bool_)),
        Home(4, lambda keys: np.zeros(len(keys), dtype=np.bool_)),
    )
    adopting.adopt(Layout(2, 12))
    restored.enter(Layout(2, 12), [3])
    assert kept(adopting) == kept(restored) == of_child
    restored.enter(Layout(3, 24), [3, 12])
    assert kept(restored) == {key for key in KEYS if murmur2(key) % 24 == 4}


def test_a_key_that_some_layout_has_put_here_is_no_stranger() -> None:
    keys = [b"device-%d" % number for number in range(60)]
    first = Home(1, lambda keys: murmur2_all(keys) % 3 == 1)
    assert first.strangers(keys) == [], "in the first layout nothing is forwarded"
    first.enter(Layout(3, 24), [3, 12])
    assert first.strangers(keys) == [key for key in keys if murmur2(key) % 3 != 1]
    child = Home(4, lambda keys: np.zeros(len(keys), dtype=np.bool_))
    child.enter(Layout(3, 24), [3, 12])
    assert child.strangers(keys) == [key for key in keys if murmur2(key) % 12 != 4]
    assert child.strangers([]) == []
