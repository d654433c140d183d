"""Frames are followed wherever the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from stoker_wire.http.websocket import FrameTracker, close_frame, split_protocols


def frame(payload, *, opcode=2, masked=False):
    size = len(payload)
    first = bytes((0x80 | opcode,))
    bit = 0x80 if masked else 0
    if size < 126:
        head = first + bytes((size | bit,))
    elif size < 65536:
        head = first + bytes((126 | bit,)) + size.to_bytes(2)
    else:
        head = first + bytes((127 | bit,)) + size.to_bytes(8)
    return head + (b"\1\2\3\4" if masked else b"") + payload


FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([0, 1, 125, 126, 65535, 65536]).map(bytes),
        opcode=st.sampled_from([0, 1, 2, 9, 10]),
        masked=st.booleans(),
    ),
    max_size=5,
)


@given(FRAMES, st.lists(st.integers(1, 70_000), max_size=8))
def test_a_close_frame_is_seen_only_where_one_is(frames, cuts):
    stream = b"".join(frames)
    tracker, at = FrameTracker(), 0
    for cut in [*cuts, len(stream) + 1]:
        tracker.feed(stream[at : at + cut])
        at += cut
    assert tracker.between_frames
    assert not tracker.closed
    tracker.feed(close_frame(1000, "done"))
    assert tracker.closed
    assert tracker.between_frames


def test_inside_a_frame_no_other_frame_may_be_inserted():
    data = frame(bytes(200), masked=True)
    for cut in (1, 2, 3, 7, 8, 9, len(data) - 1):
        tracker = FrameTracker()
        tracker.feed(data[:cut])
        assert not tracker.between_frames
        tracker.feed(data[cut:])
        assert tracker.between_frames


def test_the_reason_of_a_close_frame_is_cut_between_characters():
    built = close_frame(1008, "é" * 100)
    assert built[1] == 2 + 122
    assert built[4:].decode() == "é" * 61


def test_a_secret_among_the_subprotocols_is_taken_out():
    offers = ["chat, stoker", "stoker.ticket.abc.def"]
    assert split_protocols(offers, "stoker.ticket.") == (["chat"], "abc.def")
    assert split_protocols([], "stoker.ticket.") == ([], "")
