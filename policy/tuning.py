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
    need_seconds_min: float = 10.0
    need_seconds_max: float = 180.0
    """The window of the arrivals that capacity follows is as long as they may wait and run; within what is known at 5 s."""
    needed_seconds: float = 30.0
    """Between two plans of a steady endpoint a minute may pass: what its last half was is not forgotten by the next one."""
    burst_ratio: float = 1.5
    """A short window so much above the minute's is a burst, and acts at once; less may be chance and waits for the hold.
    An honest Poisson stream of 16 requests per short window trips 1.5 about one time in forty."""
    backlog_boost_max: float = 4.0
    """Queue pressure alone asks for at most this many times the calm want, or one worker's perf if that is more, or for what the queue
    then keeps busy for as long as it took to come. A queue that grew while machines booted is history when they come: 60 s of boot at
    10 s target would otherwise rent six times what the arrivals need."""
    metrics_stale_seconds: float = 180.0
    """Engines that have nothing to tell still say so every minute; three missed words are an outage, not a calm."""
    metrics_stale_idle_seconds: float = 900.0
    """The same when only cold workers are left: of a sleeping endpoint engines need not speak more often than every ten
    minutes, for every word is a billed action."""

    cost_spread: float = 1.7
    """E[cost²] / E[cost]²: between requests of equal cost (1) and exponential ones (2); language models answer in between."""

    # what the last hours teach

    experience_seconds: float = 8 * 3600.0
    """What was seen so long ago counts for a third: a working day."""
    experience_seconds_min: float = 900.0
    """Before a quarter of an hour of traffic was seen nothing is concluded from it."""
    experience_seconds_young: float = 7200.0
    """So long what did not happen yet may only not have had its turn: late work is dearer."""
    late_share_max: float = 0.006
    """So much of the work may wait longer than target_queue_time: less than a hundredth, for the books see less than
    there is."""
    late_price: float = 130.0
    """A second of work that waits too long is worth so many seconds of a worker. What cannot be kept from being late for
    less is left to be late."""
    late_price_young: float = 3.0
    """So many times that to an endpoint that is young."""
    start_weight: float = 1.5
    """A start counts half as much again as its bill: one in fifty does not come back, and each is half a dozen calls and events."""
    experience_margin: float = 0.035
    """A way of holding is changed for another that is cheaper by more than this. With 0.02 five workers under jitter around one level
    were moved 9.7 times an hour, with this 7.4 times (24 seeds)."""
    habit_lead_seconds: float = 45.0
    """A start takes 23 s in the median and 46 s at the 95th percentile."""
    habit_lead_seconds_max: float = 1800.0
    """An hour ago is known for the next half hour, whatever a boot takes."""

    pool_lead_seconds: float = 1800.0
    """Cold workers are there so long before this time of yesterday's load comes round: three boots at the 95th percentile.
    A machine that was not needed again cost one boot; one that was missing cost every request of ten minutes."""

    # jitter

    up_tolerance: float = 0.1
    """A want within 10 % above what is there waits for `up_hold_seconds`: target_util leaves that much spare."""
    up_hold_seconds: float = 10.0
    """Two buckets: what was one of them by chance is gone by then."""
    hot_hold_seconds_unknown: float = 180.0
    """While too little was seen: three minutes of an idle worker cost two cents, a burst that finds none costs its requests. On half
    hours of bursts 90 s and 300 s let more of them wait, for about the same money."""
    hot_release_seconds: float = 10.0
    """What has just been added is given a moment to take its share of the queue before anything is drained."""
    total_hold_seconds: float = 9000.0
    """Ski rental again: a boot is billed for some 235 s, a disk costs 2.4 % of a running worker, so two and a half hours of
    disk are one boot. Simulated, an hour made bursty traffic boot ten times as often."""
    down_margin: float = 0.02
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
    shared_failures_max: int = 3
    """The same failure so often, on several hosts, and no worker ready: the workergroup pauses. Twice as many: a broken
    template costs twice as many launches."""
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
    look_seconds_steady: float = 120.0
    """Outbid and killed machines are noticed by engines within seconds, by their silence after `silent_seconds`; the listing
    is the second net, and no finer than the first."""
    look_seconds_idle: float = 900.0
    """With nothing running a listing only finds orphans."""
    look_early_share: float = 0.1
    """A steady endpoint's engine speaks every minute, and the listing is due every other one: they fall together so."""
    stop_repeat_seconds: float = 120.0
    destroy_repeat_seconds: float = 60.0
    """The market accepted, but the listing still shows it: ask again."""

    # updates

    update_share_max: float = 0.2
    """A fifth at a time: five rounds, and a bad template hurts a fifth."""
    update_attempts_max: int = 3


DEFAULT_TUNING = Tuning()
