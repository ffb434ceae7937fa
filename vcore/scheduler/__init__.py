"""The scheduler: which requests compute how many tokens in each step, in which blocks, and when they end."""

from __future__ import annotations

from vcore.scheduler.scheduler import Scheduler
from vcore.scheduler.settings import SchedulerSettings, SchedulerStats

__all__ = ["Scheduler", "SchedulerSettings", "SchedulerStats"]
