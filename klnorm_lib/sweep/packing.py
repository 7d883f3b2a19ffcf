"""Several runs on one graphics card: which process uses which card, and how much of its memory.

A process takes the first free of as many slots as there are processes on its machine. A slot is a locked file, so
that the operating system frees it when the process ends, killed ones included. Slots go round the cards in turn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

SHARE = 0.95  # of a card's memory, for all processes on it together
_taken: dict[str, tuple[int, FileLock | None]] = {}


@dataclass(frozen=True)
class Packing:
    """``jobs`` processes a machine, slots in ``folder``; ``cards`` are those of the machine, ``None``: look there."""

    jobs: int
    folder: str
    cards: tuple[str, ...] | None = None


def visible_cards(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names of the cards that this process may use: those of ``CUDA_VISIBLE_DEVICES`` if it is set, else all."""
    named = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(card.strip() for card in named.split(",") if card.strip())
    return tuple(str(number) for number in range(torch.cuda.device_count()))


def assign(slot: int, jobs: int, cards: Sequence[str]) -> tuple[str, float]:
    """Card of a slot (from 0) and the share of its memory that one process may take.

    Slot s has card s mod n; the processes on a card share it equally.
    Raises ``ValueError`` without cards or for a slot that there is not.
    """
    if not cards or not 0 <= slot < jobs:
        raise ValueError(f"slot {slot} of {jobs} on {len(cards)} cards: a card and a slot below {jobs} are needed")
    turn = slot % len(cards)
    sharing = len(range(turn, jobs, len(cards)))
    return cards[turn], SHARE / sharing


def take_slot(packing: Packing) -> int:
    """The slot of this process: the first that no living process has, the same at every call."""
    if packing.folder not in _taken:
        Path(packing.folder).mkdir(parents=True, exist_ok=True)
        for slot in range(packing.jobs):
            lock = FileLock(Path(packing.folder) / f"{slot}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            _taken[packing.folder] = slot, lock
            break
        else:  # more processes than were announced: share a slot
            _taken[packing.folder] = os.getpid() % packing.jobs, None
    return _taken[packing.folder][0]


def use_card(packing: Packing) -> None:
    """Give this process its card and its share of the memory, before anything touches the card; without cards, nothing.

    A process that has a slot keeps it.
    """
    if packing.folder in _taken:
        return
    cards = visible_cards() if packing.cards is None else packing.cards
    if not cards:
        return
    card, share = assign(take_slot(packing), packing.jobs, cards)
    os.environ["CUDA_VISIBLE_DEVICES"] = card
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share, 0)
