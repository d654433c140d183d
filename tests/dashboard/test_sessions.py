"""Sessions begin with a key and end in time."""

from dashboard.pages.sessions import (
    SESSION_SECONDS,
    SESSIONS_MAX,
    Sessions,
    accepts_token,
)

KEYS = {"alice": "sk-alice", "bob": "sk-bob"}


def test_a_key_opens_the_session_of_its_account() -> None:
    sessions = Sessions(KEYS)
    cookie = sessions.open("sk-bob", 0.0)
    session = sessions.get(cookie, 1.0)
    assert session is not None
    assert session.account == "bob"
    assert "sk-bob" not in repr(session)


def test_a_wrong_key_opens_nothing() -> None:
    sessions = Sessions(KEYS)
    for key in ("", "sk-alic", "sk-alice ", "alice", "\ud800"):
        assert sessions.open(key, 0.0) is None
    for cookie in (None, "", "sk-alice", "\ud800"):
        assert sessions.get(cookie, 0.0) is None


def test_a_session_ends_when_it_is_closed_or_unused() -> None:
    sessions = Sessions(KEYS)
    cookie = sessions.open("sk-alice", 0.0)
    assert sessions.get(cookie, SESSION_SECONDS) is not None
    assert sessions.get(cookie, 2 * SESSION_SECONDS) is not None  # used in between
    assert sessions.get(cookie, 3 * SESSION_SECONDS + 1) is None
    other = sessions.open("sk-alice", 0.0)
    sessions.close(other)
    assert sessions.get(other, 0.0) is None


def test_the_number_of_sessions_is_bounded_and_the_longest_unused_ends() -> None:
    sessions = Sessions(KEYS)
    cookies = [sessions.open("sk-alice", 0.0) for _ in range(SESSIONS_MAX + 1)]
    assert sessions.get(cookies[0], 1.0) is None
    assert sessions.get(cookies[-1], 1.0) is not None


def test_a_form_needs_the_token_of_its_own_session() -> None:
    sessions = Sessions(KEYS)
    first = sessions.get(sessions.open("sk-alice", 0.0), 0.0)
    second = sessions.get(sessions.open("sk-alice", 0.0), 0.0)
    assert first is not None
    assert second is not None
    assert accepts_token(first, first.csrf)
    for token in (second.csrf, "", None, 7):
        assert not accepts_token(first, token)
