"""The constants that change behaviour: one record, grouped by theme. Units are in the names.

Every docstring says what the constant does and what happens when it is doubled. `docs/reference/tuning.md` is
generated from this file. Users set the parameters of their endpoints instead.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoadTuning:
    """Load history and forecast."""

    short_window_seconds: float = 15.0
    """Window that detects bursts, three buckets long. Doubled: bursts are detected later, with fewer false alarms."""
    medium_window_seconds: float = 60.0
    """Window that bursts are compared with, and the history needed before a scale-down. Doubled: new endpoints scale
    down a minute later."""
    sustained_window_seconds: float = 300.0
    """Window of the load that the cold pool is sized for. Doubled: the pool follows growth more slowly and boots less
    often."""
    demand_window_seconds_min: float = 10.0
    """Lower bound for the window over which arrivals are averaged. Doubled: short requests get less capacity in
    bursts."""
    demand_window_seconds_max: float = 180.0
    """Upper bound for the same window. Doubled: endpoints with long requests react more slowly."""
    demand_hold_seconds: float = 30.0
    """Peak demand of the last seconds counts even without a plan in that time. Doubled: capacity for short peaks is
    kept 30 s longer."""
    burst_ratio: float = 1.5
    """The short window over the medium one that counts as a burst and scales up at once. Doubled: only larger bursts
    skip the hold; at 1.5, random arrivals of 16 requests per window trigger it one time in forty."""
    mean_cost_requests: float = 200.0
    """Requests that the mean request cost is smoothed over. Doubled: a change of cost is followed half as fast."""
    engine_gone_seconds: float = 180.0
    """An engine without reports for this long no longer counts in the backlog. Doubled: a stale backlog lasts
    longer."""
    queueing_engine_gone_seconds: float = 25.0
    """The same for an engine with queued requests, which reports every 10 s. Doubled: the queue of a failed engine
    keeps capacity for 25 s more."""
    metrics_stale_seconds: float = 180.0
    """Without an engine report for this long the load is unknown and capacity is not cut. Doubled: outages of reporting
    are noticed later; below 60 s, a normal heartbeat gap would count as an outage."""
    metrics_stale_idle_seconds: float = 900.0
    """The same for an endpoint with only cold workers, whose engines report every 10 min. Doubled: the cold pool is
    reduced for longer without a report."""
    cost_spread: float = 1.7
    """Assumed E[cost²] / E[cost]² of requests: 1 for equal costs, 2 for exponential ones. Doubled: larger changes of
    load count as random, and longer waits are expected."""


@dataclass(frozen=True, kw_only=True)
class BacklogTuning:
    """Extra capacity for a backlog."""

    backlog_boost_max: float = 4.0
    """The backlog multiplies the demand by at most this, unless the extra workers stay busy. Doubled: more workers for
    sudden queues, many of them ready only after the queue is gone."""
    backlog_slow_lead_targets: float = 3.0
    """If capacity takes more than this many queue-time targets to start, the backlog may take that long to clear.
    Doubled: more workers are started for slow machines."""


@dataclass(frozen=True, kw_only=True)
class KeepaliveTuning:
    """Evaluation of the keep-alive candidates and seasonality."""

    keepalive_memory_seconds: float = 8 * 3600.0
    """Age at which evaluated traffic counts for 1/e. Doubled: the rule adapts half as fast to a change of traffic."""
    keepalive_evidence_seconds_min: float = 900.0
    """Traffic needed before a candidate is chosen. Doubled: the default hold applies for 15 minutes more."""
    young_endpoint_seconds: float = 7200.0
    """Age below which late work costs more, because rare events have not occurred yet. Doubled: new endpoints keep more
    capacity for two more hours."""
    late_free_share: float = 0.6
    """Share of `error_budget` that may be late free of charge in the evaluation, which knows less than what happens.
    Doubled: fewer idle workers and about twice as many late requests."""
    late_budget_price: float = 1.3
    """Cost of a worker-second of late work, times `error_budget`, in worker-seconds: 130 at a budget of 1 %. Doubled:
    longer holds and more idle time."""
    late_work_price_young_factor: float = 3.0
    """Factor on the price of late work for young endpoints. Doubled: new endpoints keep workers for longer."""
    start_cost_factor: float = 1.5
    """Cost of a start over its bill: starts may fail and need API calls. Doubled: fewer starts, more idle time."""
    keepalive_switch_margin: float = 0.035
    """Relative saving needed to change the rule. Doubled: the rule changes less often and is up to 3.5 % dearer."""
    equal_cost_hold_seconds_max: float = 300.0
    """Among candidates of equal cost, no hold longer than this is chosen if a shorter one exists. Doubled: holds of 10
    min become possible where they bring no saving."""
    worker_rounding_share: float = 0.02
    """Demand above a whole number of workers by less than this share of a worker needs no further one. Doubled:
    slightly fewer workers in the evaluation."""
    seasonal_lead_seconds: float = 45.0
    """How long before seasonal load its workers are started. Doubled: workers idle 45 s before each hourly peak."""
    seasonal_lead_seconds_max: float = 1800.0
    """Upper bound for that lead where it follows the boot time. Doubled: slow machines are rented an hour early."""
    seasonal_rise_factor: float = 1.25
    """Rise of the seasonal level that schedules a plan. Doubled: smaller rises are met by the next regular plan."""
    cold_pool_lead_seconds: float = 1800.0
    """The cold pool covers yesterday's load within this time before and after now. Doubled: machines are rented an hour
    ahead of yesterday's peak and kept for an hour after it."""
    hot_hold_seconds_default: float = 180.0
    """Hold time until a candidate is chosen. Doubled: new endpoints keep idle workers for 3 minutes more."""


@dataclass(frozen=True, kw_only=True)
class HysteresisTuning:
    """Hysteresis of scaling up and down."""

    scale_up_tolerance: float = 0.1
    """A shortage within this share of the capacity waits for `scale_up_hold_seconds`. Doubled: fewer starts, slightly
    more waiting under growing load."""
    scale_up_hold_seconds: float = 10.0
    """How long a small shortage must last. Doubled: small rises of load are followed 10 s later."""
    scale_down_margin: float = 0.02
    """Capacity left after a drain must exceed the held demand by this share. Doubled: slightly later drains."""
    total_hold_seconds: float = 9000.0
    """How long unused cold workers are kept: their disk then costs as much as one boot. Doubled: more storage cost,
    fewer boots for rare traffic; with one hour, bursty traffic boots ten times as often."""


@dataclass(frozen=True, kw_only=True)
class BootTuning:
    """Boots and starts."""

    overdue_factor: float = 2.0
    """A boot or start over this many times its mean is no capacity. Doubled: a slow machine is replaced later."""
    boot_seconds_default: float = 300.0
    """Expected boot time before any was measured. Doubled: the first machines count as overdue later."""
    start_seconds_default: float = 45.0
    """Expected start time before any was measured. Doubled: more workers are started for a queue."""
    boot_deadline_factor: float = 3.0
    """A boot fails after this many times the mean. Doubled: a failed boot is paid for longer."""
    boot_deadline_seconds_min: float = 300.0
    """Lower bound for that deadline. Doubled: failed boots of small images are noticed after 10 min."""
    boot_deadline_seconds_max: float = 1800.0
    """Upper bound for that deadline. Doubled: a failed boot of a large image may cost an hour."""
    boot_deadline_seconds_default: float = 1200.0
    """The deadline before any boot was measured. Doubled: the first failed boot costs 40 min."""
    start_deadline_factor: float = 4.0
    """A start fails after this many times the mean. Doubled: a failed start is noticed later."""
    start_deadline_seconds_min: float = 90.0
    """Lower bound for that deadline. Doubled: failed starts are noticed after 3 min."""
    start_deadline_seconds_max: float = 900.0
    """Upper bound for that deadline. Doubled: a failed start may take 30 min."""
    start_deadline_seconds_default: float = 300.0
    """The deadline before any start was measured. Doubled: the first failed start takes 10 min."""
    start_stuck_seconds: float = 45.0
    """A start that is queued at the marketplace for this long waits for an occupied GPU. Doubled: it is given up 45 s
    later."""
    start_retry_seconds: float = 300.0
    """Pause before such a worker is started again. Doubled: fewer attempts; the GPU may be free unnoticed for
    longer."""
    start_attempts_max: int = 2
    """Attempts to start a worker before it is released. Doubled: an occupied machine is paid for longer."""
    stop_retry_seconds: float = 120.0
    """A stop that is not listed as done is repeated after this time. Doubled: a lost stop costs 2 min more."""
    destroy_retry_seconds: float = 60.0
    """The same for a release. Doubled: a lost release costs a minute more."""
    late_report_seconds: float = 30.0
    """Reports of an ended process may arrive for this long. Doubled: a machine that runs although it was stopped is
    noticed 30 s later."""
    process_order_seconds: float = 1.0
    """Processes that started within this time have no known order: start times are known to the delay of a report.
    Doubled: a quick restart may be missed."""
    create_grace_seconds: float = 30.0
    """A listing may miss an instance for this long after its creation. Doubled: a launch that failed silently is
    noticed 30 s later."""


@dataclass(frozen=True, kw_only=True)
class FailureTuning:
    """Failed hosts and workers."""

    host_block_seconds: float = 3600.0
    """A host is not rented for this long after a failure. Doubled: fewer failures on bad hosts, fewer offers."""
    offer_gone_block_seconds: float = 300.0
    """The same after another customer rented the offer; longer than any cached list of offers. Doubled: a host that is
    free again is found 5 min later."""
    failures_per_hour_max: int = 5
    """Failed hosts within an hour, without a ready worker, that pause recruiting. Doubled: a broken template costs
    twice as many launches."""
    shared_failures_max: int = 3
    """Equal failures on several hosts, without a ready worker, that pause recruiting. Doubled: a broken template costs
    twice as many launches."""
    shared_failure_hosts_min: int = 2
    """Hosts with the same failure from which on the template, not the host, is the cause. Doubled: more good hosts are
    blocked for a broken template."""
    failures_pause_seconds: float = 600.0
    """Time between attempts during that pause. Doubled: a repaired template is noticed up to 20 min later."""
    boot_error_seconds: float = 60.0
    """A boot whose host reports an error of the container for this long has failed. Doubled: a template with a wrong
    image is noticed a minute later."""
    unresponsive_seconds: float = 120.0
    """A ready worker without reports for this long is suspected. Doubled: a dead worker counts as capacity for 2 min
    more; below 60 s, a missed engine report would suspect all."""
    suspect_reboot_seconds: float = 20.0
    """A suspected worker is rebooted after this time. Doubled: repairs begin later, fewer reboots during network
    faults."""
    repair_share_max: float = 0.2
    """Share of suspected workers that may be repaired at once, repairs of errors included: more suspicion means a
    network fault. Doubled: a network fault reboots more healthy workers."""
    reboots_max: int = 1
    """Reboots before a worker is replaced. Doubled: a broken machine is kept for one more reboot."""
    reboot_forgiven_seconds: float = 3600.0
    """After this time in service earlier reboots do not count. Doubled: a machine with rare failures is replaced
    earlier."""
    operation_retry_seconds: float = 5.0
    """First pause after a failed marketplace operation; each failure doubles it. Doubled: retries are later."""
    operation_retry_seconds_max: float = 300.0
    """Upper bound for that pause. Doubled: recovery after a marketplace outage takes up to 10 min."""


@dataclass(frozen=True, kw_only=True)
class MachineStatsTuning:
    """Statistics of machine kinds and bounds for reported perfs."""

    boot_smoothing: float = 0.3
    """Weight of the newest boot or start in the mean. Doubled: means follow changes faster and vary more."""
    boot_spread_seconds: float = 3600.0
    """Service time over which the dollars of a boot are spread when offers are compared. Doubled: the boot time counts
    half as much beside the price."""
    perf_samples_max: int = 20
    """Number of benchmarks that the mean perf of a kind covers. Doubled: a new template shows half as fast."""
    perf_over_kind_max: float = 3.0
    """Largest accepted perf over that of the same machine kind. Doubled: a false report attracts twice the traffic."""
    perf_over_workergroup_max: float = 50.0
    """Largest accepted perf over that of other kinds. Doubled: a false report attracts twice the traffic."""
    perf_bound_peers_min: int = 2
    """Workers to compare with before a bound applies. Doubled: small fleets have no bound."""
    perf_bound_samples_min: int = 3
    """Benchmarks of a kind before its mean is a bound. Doubled: new kinds stay without a bound for longer."""
    perf_bound_log_share: float = 0.2
    """Relative change of a bound that is logged again. Doubled: fewer log lines."""


@dataclass(frozen=True, kw_only=True)
class PollingTuning:
    """Listings, offers and bills of the marketplace."""

    offers_age_seconds_max: float = 60.0
    """Age up to which offers are used. Doubled: fewer searches, more launches that fail because the offer is gone."""
    listing_seconds_min: float = 3.0
    """Shortest time between listings while a worker changes its state. Doubled: state changes are noticed 3 s later."""
    listing_seconds_max: float = 30.0
    """Longest time between listings while a worker changes its state. Doubled: half as many calls during long boots."""
    listing_seconds_steady: float = 120.0
    """Time between listings of a steady fleet. Doubled: lost machines are noticed by the listing 2 min later; engines
    notice earlier."""
    listing_seconds_idle: float = 900.0
    """Time between listings without running workers. Doubled: orphaned instances cost 15 min more."""
    listing_early_share: float = 0.1
    """A listing may run early by this share of its interval, with another plan. Doubled: more listings."""
    bill_delay_seconds: float = 7200.0
    """Bills may change for this long after an instance is gone. Doubled: accounts stay open for 2 h more."""
    bill_missing_seconds: float = 86_400.0
    """Without a bill for this long the estimate is final. Doubled: accounts without a bill stay open for a day more."""


@dataclass(frozen=True, kw_only=True)
class UpdateTuning:
    """Rolling updates."""

    update_share_max: float = 0.2
    """Share of workers updated at once. Doubled: faster updates, and a broken template affects twice as many."""
    update_attempts_max: int = 3
    """Failed updates before a worker is replaced. Doubled: a worker that cannot be updated is replaced later."""


@dataclass(frozen=True, kw_only=True)
class RoutingTuning:
    """Queue discipline, worker selection and service times."""

    queue_wait_share: float = 0.5
    """Share of `target_queue_time` after which a queued request is late and yields. Doubled: requests yield only at the
    target, and wait on the worker beyond it."""
    overtakes_max: int = 9
    """Requests served before late ones until a late one is served. Doubled: late requests wait about twice as long."""
    prefetch_means: float = 0.1
    """A busy worker gets a request if it will be free within this many mean service times. Doubled: less idle time
    between requests, more requests behind a slow one."""
    prefetch_finish_means: float = 2.5
    """The same if the request will finish within this many mean service times. Doubled: longer queues."""
    prefetch_report_delays: float = 2.0
    """Report delays added to both limits. Doubled: workers idle less where reports are slow, with longer queues."""
    service_time_decay: float = 0.998
    """Weight of the service-time histogram after each request: about 500 count. Doubled: not allowed, at most 1."""
    service_time_prior_requests: float = 20.0
    """Weight of the prior for service times, in requests. Doubled: the estimates need twice as many requests."""
    service_time_samples_min: int = 20
    """Ended requests before the mean service time is used. Doubled: prefetch begins later."""
    service_time_tail: float = 0.25
    """Expected remaining time of the oldest request over its age. Doubled: long requests keep others away longer."""
    service_time_remaining_min: float = 0.02
    """Lower bound for the remaining time, as a share of the age. Doubled: little effect."""
    priority_factor: float = 4.0
    """While requests of several priority classes queue, each class gets this many times the share of the next lower
    one. Doubled: lower classes wait longer."""
    key_burst_seconds: float = 10.0
    """Seconds of a key's rate limit that it may use at once. Doubled: larger bursts pass."""
    affinity_saved_share: float = 0.5
    """Share of a request's cost that the worker with its prefix in the cache saves. The request goes elsewhere when the
    queue there takes longer. Doubled: a request waits for its worker up to its own whole duration."""
    affinity_owners: int = 4
    """Workers of one affinity key. The next one is used when the queue of the one before is too long. Doubled: keys
    with much traffic are cached on more workers, which leaves less room for others."""


@dataclass(frozen=True, kw_only=True)
class SignallingTuning:
    """When an engine reports to the workflow. Each report is a billed action."""

    urgent_gap_seconds: float = 0.1
    """Shortest time between urgent reports of the same cause. Doubled: bursts are reported up to 0.1 s later."""
    metrics_slice_seconds: float = 5.0
    """Time between comparisons of the arrivals with the last report. Doubled: changes of load are reported later."""
    metrics_heartbeat_seconds: float = 60.0
    """A report is sent after this time without a change. Doubled: half as many billed actions, unresponsive workers and
    outages are noticed later."""
    metrics_heartbeat_idle_seconds: float = 600.0
    """The same for endpoints with only cold workers. Doubled: fewer billed actions; must stay below
    `metrics_stale_idle_seconds`."""
    metrics_heartbeat_queue_seconds: float = 10.0
    """The same while requests are queued. Doubled: must stay below `queueing_engine_gone_seconds`."""
    rate_change: float = 0.1
    """Relative change of the arrival rate that is reported. Doubled: fewer reports, slower reaction."""
    rate_rise_deviations: float = 0.5
    """Rise of the rate, in standard deviations, that is reported. Doubled: fewer reports of random rises."""
    rate_fall_deviations: float = 1.0
    """Fall of the rate, in standard deviations, that is reported. Doubled: fewer reports, later scale-down."""
    queue_change: float = 0.25
    """Relative change of the queue that is reported. Doubled: fewer reports while a queue grows."""
    queue_change_seconds: float = 1.0
    """Smallest change of the expected queue time that is reported. Doubled: fewer reports of small queues."""
    queue_ignored_share: float = 0.5
    """Queue times below this share of `target_queue_time` count as zero. Doubled: queues below the target do."""
    activity_margin_seconds: float = 2.0
    """A last request is reported this long before the inactivity timeout ends. Doubled: reports are earlier."""
    escalation_backlog_factor: float = 2.0
    """Growth of the backlog that is reported again at once. Doubled: a growing queue is reported less often."""
    escalation_queue_time_factor: float = 1.5
    """Growth of the queue time that is reported again at once. Doubled: a growing queue is reported less often."""


@dataclass(frozen=True, kw_only=True)
class WorkerHealthTuning:
    """The engine's view of workers and requests."""

    worker_failures_free: int = 2
    """Failures in a row without a pause. Doubled: a broken worker receives two more requests."""
    worker_pause_seconds_max: float = 30.0
    """Longest pause of a failing worker. Doubled: a recovered worker gets requests up to 30 s later."""
    worker_unheard_suspect_seconds: float = 20.0
    """A worker without reports for this long gets no requests. Doubled: a dead worker gets requests for 20 s more."""
    worker_repeat_seconds: float = 30.0
    """An unchanged worker is included in a report after this time. Doubled: smaller reports; must stay below
    `unresponsive_seconds`."""
    worker_over_memo_max: float = 1.25
    """Perf over that in the memo that is accepted from a new benchmark. Doubled: a false report attracts more traffic
    for one report."""
    request_breaks_max: int = 2
    """Workers that may fail with a request before it is refused. Doubled: a harmful one breaks twice as many."""
    request_refused_seconds: float = 3600.0
    """How long such a request is refused. Doubled: more memory, harmful requests stay refused for longer."""
    request_blame_seconds: float = 10.0
    """A request that left a worker within this time of its failure is a possible cause. Doubled: more requests are
    suspected wrongly."""
    request_verdict_seconds: float = 2.0
    """A worker that reports well this long after it failed a request is healthy. Doubled: the cause is decided
    later."""
    reroute_pause_seconds: float = 1.0
    """A request routed twice within this time is queued: the official client retries without a pause. Doubled: retries
    wait longer."""
    routed_memory_seconds: float = 600.0
    """How long the worker of a request is remembered. Doubled: more memory; the official client retries within this
    time."""
    routed_ended_memory_seconds: float = 5.0
    """The same after the request ended. Doubled: more memory."""
    sweep_gap_seconds: float = 5.0
    """A longer gap between two sweeps is an absence of the engine, not of the workers. Doubled: a stalled engine may
    suspect healthy workers."""
    request_end_report_seconds: float = 4.0
    """A failed worker reports the end of its requests within this time. Doubled: the cause is decided later."""
    ticket_shown_seconds: float = 3.0
    """A worker reports a new request within this time, else the ticket counts as unused. Doubled: load of unused
    tickets blocks a worker for 3 s more."""


@dataclass(frozen=True, kw_only=True)
class ControllerTuning:
    """When the controller plans, and what-if analysis."""

    replan_rate_change: float = 0.15
    """Relative change of the arrival rate since the last plan that makes a new plan due. Doubled: fewer plans, slower
    reaction to growing load."""
    replan_rate_seconds: float = 30.0
    """Window of that arrival rate. Doubled: fewer plans for random changes, slower reaction."""
    whatif_lag_seconds: float = 15.0
    """What-if fleets run this long behind the latest report, so that every engine has reported the time. Doubled:
    results are 15 s older."""
    whatif_advance_seconds: float = 10.0
    """Shortest time between two advances of what-if fleets. Doubled: half as many events in the workflow's history."""
    whatif_step_seconds: float = 5.0
    """Time step of what-if fleets. Doubled: short bursts are averaged out."""
    whatif_steps_max: int = 48
    """Largest number of steps per advance; after a long pause steps are longer. Doubled: more computing per advance."""
    whatif_offers_per_kind_max: int = 24
    """Offers of one machine kind in the what-if market. Doubled: a what-if fleet may grow faster."""
    whatif_storage_share: float = 0.024
    """Assumed storage price as a share of the running price, where none is known. Doubled: cold workers look dearer."""


@dataclass(frozen=True, kw_only=True)
class Tuning(
    LoadTuning,
    BacklogTuning,
    KeepaliveTuning,
    HysteresisTuning,
    BootTuning,
    FailureTuning,
    MachineStatsTuning,
    PollingTuning,
    UpdateTuning,
    RoutingTuning,
    SignallingTuning,
    WorkerHealthTuning,
    ControllerTuning,
):
    """All constants that change behaviour."""


DEFAULT_TUNING = Tuning()
