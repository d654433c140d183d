"""Changes the named keys of the record, and counts what they use."""

from collections.abc import Iterable
from dataclasses import replace

from controller.state import ENGINE_LIVE_SECONDS, EndpointStateBook, KeyRecord, Record
from stoker_wire.messages import KeyUse, MemoKey
from stoker_wire.security.client_key import ClientKey, KeyEdit, KeyLimits

DAY_SECONDS = 86_400.0
SPENT_STEPS = 50
"""Spending is published in steps of this share of the limit, because each change of the memo is a history event."""


def edit(book: EndpointStateBook, change: KeyEdit, now: float) -> str:
    """Creates, changes or revokes a key. `workflows.message_validation.key_edit` has checked that this is possible."""
    keys, name = book.record.keys, change.name
    known = keys.get(name)
    if change.op == "revoke":
        keys.pop(name, None)
        book.log.note(now, "config", f"key {name!r} revoked")
    elif known is None:
        made = ClientKey(name=name, digest=change.digest or "", created_at=now, **change.limits.model_dump())
        keys[name] = KeyRecord(key=made)
        book.log.note(now, "config", f"key {name!r} created: {_said(made)}")
    else:
        changed = ClientKey.model_validate(known.key.model_dump() | change.given())
        if changed != known.key:
            keys[name] = replace(known, key=changed)
            book.log.note(now, "config", f"key {name!r} changed: {_said(changed)}")
    return ""


def count_use(record: Record, uses: Iterable[KeyUse], now: float) -> None:
    """Adds what an engine reported to the current day. The day is the controller's: engines' clocks differ."""
    by_digest = {each.key: each for each in uses}
    if not by_digest:
        return
    today = int(now // DAY_SECONDS)
    for name, known in record.keys.items():
        use = by_digest.get(known.key.digest)
        if use is None:
            continue
        fresh = today > known.day
        record.keys[name] = replace(
            known,
            day=max(today, known.day),
            dollars=use.dollars + (0.0 if fresh else known.dollars),
            load=use.load + (0.0 if fresh else known.load),
        )


def memo_keys(record: Record) -> tuple[MemoKey, ...]:
    """The keys as engines read them."""
    return tuple(
        MemoKey(
            n=name,
            h=each.key.digest,
            r=each.key.load_per_second,
            b=each.key.dollars_per_day,
            p=each.key.priority,
            t=round(each.key.created_at, 1),
            s=spent_in_steps(each.dollars, each.key.dollars_per_day),
            d=each.day if each.key.dollars_per_day is not None else 0,
        )
        for name, each in record.keys.items()
    )


def spent_in_steps(dollars: float, limit: float | None) -> float:
    """The dollars, rounded down to a step of the limit, so that a limit that is used up is exactly reached."""
    if limit is None:
        return 0.0
    steps = min(int(dollars / limit * SPENT_STEPS), SPENT_STEPS)
    return limit if steps == SPENT_STEPS else steps * limit / SPENT_STEPS


def engines_sharing(record: Record) -> int:
    """Number of engines that share the rate limits: those that reported lately, without those that stopped."""
    if not any(each.key.load_per_second is not None for each in record.keys.values()):
        return 1
    newest = max((engine.heard_at for engine in record.engines.values()), default=0.0)
    live = [
        engine
        for engine in record.engines.values()
        if not engine.left and newest - engine.heard_at <= ENGINE_LIVE_SECONDS
    ]
    return max(1, len(live))


def _said(limits: KeyLimits) -> str:
    parts = [f"priority {limits.priority.value}"]
    if limits.load_per_second is not None:
        parts.append(f"{limits.load_per_second:g} load/s")
    if limits.dollars_per_day is not None:
        parts.append(f"${limits.dollars_per_day:g} a day")
    return ", ".join(parts)
