"""How samples are shown in a notebook."""

from __future__ import annotations

from collections.abc import Callable

MOST = 8
"""Samples that are shown."""


def gallery(count: int, card: Callable[[int], str]) -> str:
    """HTML of the first samples side by side, and how many more there are.

    Args:
        count: of all samples.
        card: the HTML of one.
    """
    cards = "".join(card(k) for k in range(min(count, MOST)))
    more = f"<p>and {count - MOST} more</p>" if count > MOST else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{cards}</div>{more}'
