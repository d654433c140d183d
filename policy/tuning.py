"""Every constant of the policy in one place, each with its argument.

Seconds and ratios. A change here changes behaviour everywhere and nothing else does: the simulator tunes this record.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How quick, how patient and how careful the planner is."""

    # what load is predicted from

    short_seconds: float = 15.0
    """Three buckets. One bucket of 5 s holds too few requests to tell a burst from chance."""
    medium_seconds: float = 60.0
    """The level that capacity follows in calm times: long enough that Poisson noise of 1 request/s is ±13 %."""
    sustained_seconds: float = 300.0
    """The level that cold capacity follows. A cold worker costs a whole boot: five minutes of load pay for it, a spike
    of 15 s does not."""
    short_discount: float = 1.25
    """The short window counts for a fifth less, as allowance for chance: its quotient and the minute's mean are compared,
    never switched between, so that one more request can only raise the forecast."""
    burst_ratio: float = 1.5
    """A short window so much above the minute's is a burst, and acts at once; less may be chance and waits for the hold.
    An honest Poisson stream of 16 requests per short window trips 1.5 about one time in forty."""
    backlog_boost_max: float = 4.0
    """Queue pressure alone asks for at most this many times the calm want, or one worker's perf if that is more. A queue that grew while machines booted is
    history when they come: 60 s of boot at 10 s target would otherwise rent six times what the arrivals need."""
    metrics_stale_seconds: float = 180.0
    """Engines that have nothing to tell still say so every minute; three missed words are an outage, not a calm."""
    metrics_stale_idle_seconds: float = 900.0
    """The same when only cold workers are left: of a sleeping endpoint engines need not speak more often than every ten
    minutes, for every word is a billed action."""

    # chance and habit

    proof_windows: tuple[float, ...] = (10.0, 15.0, 30.0)
    """A big burst proves itself in ten seconds, a small rise takes thirty; the minute's mean needs no proof."""
    proof_deviations: float = 2.0
    """One honest window in forty looks so much higher than its level by chance."""
    cost_spread: float = 1.7
    """E[cost²] / E[cost]²: between requests of equal cost (1) and exponential ones (2); language models answer in between."""
    spare_deviations: float = 0.3
    """Capacity over the mean, in standard deviations of what independent requests would keep busy: a short wait is the
    cheaper spare, and `target_util` is the user's way to buy more."""
    burst_deviations: float = 2.0
    """The same for what scatters beyond chance: bursts come again, and in the middle of one nobody can be started in time.
    Simulated on six tuning workloads, one spare for both (1.0, at target_util 0.9) attained 98.4 % on average at 2.27 times
    the clairvoyant's cost, 0.3 and 2.0 (at 1.0) 98.7 % at 2.16; the worst workload, whose bursts come out of nothing, stayed
    at 95 % with either."""
    dispersion_seconds: float = 15.0
    dispersion_max: float = 16.0
    """A burst once in five minutes is not answered with four times the spare for ever."""
    recurrence_hours: int = 2
    """What came at this minute in two hours running is taken to come again; 0 switches it off."""
    recurrence_lead_seconds: float = 45.0
    """A start takes 23 s in the median and 46 s at the 95th percentile."""

    # jitter

    up_tolerance: float = 0.1
    """A want within 10 % above what is there waits for `up_hold_seconds`: target_util leaves that much spare."""
    up_hold_seconds: float = 30.0
    """Two short windows: noise has changed its mind by then, growth has not."""
    hot_hold_seconds_min: float = 60.0
    """As long as the window that the forecast looks back over: chance that has left the window has then left the hold."""
    hot_hold_seconds_max: float = 600.0
    """A start longer than ten minutes is a fault, not a cost to hedge."""
    hot_hold_starts: float = 2.0
    """Ski rental: staying hot through a gap pays if the gap is shorter than a start takes, for the start is billed too.
    Twice that, because a start also costs waiting, which nobody bills."""
    total_hold_seconds: float = 9000.0
    """Ski rental again: a boot is billed for some 235 s, a disk costs 2.4 % of a running worker, so two and a half hours of
    disk are one boot. Simulated, an hour made bursty traffic boot ten times as often."""
    down_margin: float = 0.1
    """What is left after a drain must exceed the held want by this: at the very edge the next request would wake it."""

    # machines that do not come

    overdue_factor: float = 2.0
    """Nine of ten boots and starts take less than twice their mean (medians 180 s and 23 s, 95th percentiles 600 s and 46 s)."""

    boot_seconds_unknown: float = 300.0
    """What a boot is expected to take while none was seen: an image of 10 GB and a model of 15 GB at 1 Gbit/s."""
    start_seconds_unknown: float = 45.0
    """The same for a start: no pull, the model is on the disk."""
    boot_deadline_factor: float = 3.0
    """Boots of one kind vary about twofold with the host's line; three times the mean is a fault."""
    boot_deadline_seconds_min: float = 300.0
    boot_deadline_seconds_max: float = 1800.0
    boot_deadline_seconds_unknown: float = 1200.0
    """Without any experience: patient enough for a 70B model, and a wasted $0.10 on a 4090."""
    start_deadline_factor: float = 4.0
    start_deadline_seconds_min: float = 90.0
    start_deadline_seconds_max: float = 900.0
    start_deadline_seconds_unknown: float = 300.0
    start_stuck_seconds: float = 45.0
    """A stopped machine whose GPU was rented to someone else stays queued for ever; a free one runs within seconds."""
    start_pause_seconds: float = 300.0
    start_attempts_max: int = 2
    """The second attempt comes minutes later; a GPU that is still taken then stays taken."""
    host_failure_seconds: float = 3600.0
    """A box that failed its first boot often fails its second: the host is to blame, not the image. One try per host
    and hour."""
    offer_gone_seconds: float = 300.0
    """Someone else was quicker. The offer list is a minute old at most, so this outlives every copy of it."""
    failures_per_hour_max: int = 5
    """So many different hosts failing in an hour, and no worker ready: the template is broken, and every further try
    only costs money."""
    failures_pause_seconds: float = 600.0
    """Then one try in ten minutes: enough to notice that the template was mended."""
    silent_seconds: float = 120.0
    """A ready worker reports at least every 10 s, engines pass it on at least every minute: two minutes without a
    word, as of the last word of the engines, is silence of the worker and not of the line."""
    suspect_seconds: float = 20.0
    """Clients say that it does not answer. It is out of rotation at once; a reboot waits for two missed reports."""
    repair_share_max: float = 0.2
    """When more than a fifth looks broken at once the fault is ours or the line's; rebooting all would make it real."""
    reboots_max: int = 1
    """A reboot cures a wedged process. What a reboot did not cure is the machine."""

    # looks and searches

    offers_fresh_seconds: float = 60.0
    """On a busy market a good offer lives minutes."""
    look_seconds_min: float = 3.0
    look_seconds_max: float = 30.0
    """While something boots or stops: a quarter of its age, within these."""
    look_seconds_steady: float = 60.0
    """Outbid and killed machines are noticed by engines within seconds; the listing is the second net."""
    look_seconds_idle: float = 900.0
    """With nothing running a listing only finds orphans."""
    stop_repeat_seconds: float = 120.0
    destroy_repeat_seconds: float = 60.0
    """The market accepted, but the listing still shows it: ask again."""

    # updates

    update_share_max: float = 0.2
    """A fifth at a time: five rounds, and a bad template hurts a fifth."""
    update_attempts_max: int = 3


DEFAULT_TUNING = Tuning()
