"""What a process of several is told, and what the ends of processes come to."""

import pytest

from streams.errors import UsageError
from streams.gateway.crew import Member
from streams.gateway.together import Together
from streams.listening import listening_together


def test_a_member_is_told_everything_in_a_word() -> None:
    member = Member(1, 5, 6, 7, (8_001, 8_002))
    assert Member.parse(str(member)) == member
    for wrong in ("", "1:2:3", "1:2:3:4:", "1:2:3:4:x", f"{member}\n"):
        with pytest.raises(UsageError):
            Member.parse(wrong)


def test_a_private_port_speaks_for_one_process_alone() -> None:
    together = Together(Member(0, 5, 6, 7, (8_001, 8_002)))
    assert [together.is_public(port) for port in (8_088, 8_001, 8_002)] == [True, False, False]


def test_sockets_share_a_port() -> None:
    sockets = listening_together("127.0.0.1", 0, 3)
    try:
        assert len({one.getsockname() for one in sockets}) == 1
    finally:
        for one in sockets:
            one.close()
