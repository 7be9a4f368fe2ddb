"""The native decoder against fastavro on mutated records; the long form is `make fuzz-native`."""

import random
from dataclasses import replace
from typing import Any, cast

import pytest

from streams.avro.native import choose
from streams.avro.native_library import Decoded, DecodingProgram
from tests.examples import examples
from tests.native_fuzz import Differs, Tally, check, run, subjects

pytestmark = pytest.mark.native


def test_what_the_native_decoder_accepts_of_mutated_records_is_what_fastavro_reads() -> None:
    native = choose("on").native
    assert native is not None
    *_, tally = run(native, seed=1, records=examples(200_000))
    assert tally.records == examples(200_000)
    assert tally.accepted > tally.records // 8
    assert tally.doubted > tally.records // 4
    assert tally.valid > tally.accepted // 2


class _OneOff:
    """Reads one number of a batch wrong."""

    def __init__(self, program: DecodingProgram) -> None:
        self._program = program

    def decode(self, *arguments: Any) -> Decoded:
        found = self._program.decode(*arguments)
        assert found is not None
        found.longs[1][-1:] += 1
        return found


def test_a_decoder_that_reads_one_number_wrong_is_found_out() -> None:
    native = choose("on").native
    assert native is not None
    subject = subjects(native, random.Random(1))[0]
    check(subject, subject.whole, Tally())
    wrong = replace(
        subject, program=replace(subject.program, program=cast("DecodingProgram", _OneOff(subject.program.program)))
    )
    with pytest.raises(Differs, match="sequence differs"):
        check(wrong, subject.whole, Tally())
