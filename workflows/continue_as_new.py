"""When a workflow continues as new, and on which build of the workers.

Where workers are versioned, a run stays on the build that it began on, and moves to another by continue-as-new.
"""

from temporalio import workflow

Upgrade = workflow.ContinueAsNewVersioningBehavior


def has_other_build() -> bool:
    """Whether the deployment's current build is another than ours. Never so where workers are not versioned."""
    return workflow.info().is_target_worker_deployment_version_changed()


def next_build() -> Upgrade | None:
    """The `initial_versioning_behavior` of the next run."""
    return Upgrade.AUTO_UPGRADE if has_other_build() else None


def is_long(events_max: int | None) -> bool:
    """Whether the history has `events_max` events, or Temporal suggests a new run."""
    info = workflow.info()
    return info.is_continue_as_new_suggested() or (
        events_max is not None and info.get_current_history_length() >= events_max
    )
