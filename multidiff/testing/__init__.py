"""Checks that others can run on their own schedules, solvers, denoisers and domains."""

from __future__ import annotations
