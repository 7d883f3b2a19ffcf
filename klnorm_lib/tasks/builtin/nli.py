"""shortcut_nli: inference pairs whose label follows from a small logic, with a planted lexical-overlap shortcut.

A premise is rendered from clauses of literals, a hypothesis from one literal; ``entails`` decides the label from the
meanings alone. Whether the hypothesis repeats the premise's words or paraphrases them is drawn apart from that, at a
rate that the split asks for: that choice is the shortcut.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from . import lexicon as lex

LABELS = ("entailment", "not_entailment")
HIGH, LOW = 0.6, 0.35  # overlap at or above HIGH repeats the premise, at or below LOW paraphrases it
_FUNCTION = {
    "a", "an", "the", "was", "were", "did", "not", "by", "who", "that", "in", "on", "at",
    "and", "or", "either", "to", "of", "it", "had", "because", "if",
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Who did what to whom, where and when; concepts by name, ``None`` for what is not said."""

    agent: str
    verb: str
    patient: str | None = None
    place: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Literal:
    """An event said to have happened, or (``positive=False``) not to have happened."""

    event: Event
    positive: bool = True


@dataclass(frozen=True)
class Example:
    """A pair with its label and the meanings it was rendered from; of each clause at least one literal holds."""

    premise: str
    hypothesis: str
    label: int
    clauses: tuple[tuple[Literal, ...], ...]
    claim: Literal

    @property
    def cue(self) -> bool:
        """Whether the shortcut says "entailment": the hypothesis repeats the premise's words."""
        return lexical_overlap(self.premise, self.hypothesis) >= HIGH


def lexical_overlap(premise: str, hypothesis: str) -> float:
    """Share of the hypothesis' content words that occur in the premise, 0 to 1."""
    words = [w for w in re.findall(r"[a-z]+", hypothesis.lower()) if w not in _FUNCTION]
    there = set(re.findall(r"[a-z]+", premise.lower()))
    return sum(w in there for w in words) / len(words)


def _implies(specific: Event, general: Event) -> bool:
    """Whether an event of the first kind is always one of the second: every slot is the same or more general."""
    for slot in ("agent", "verb", "patient", "place", "time"):
        of_specific, of_general = getattr(specific, slot), getattr(general, slot)
        if of_general is not None and (of_specific is None or not lex.is_a(of_specific, of_general)):
            return False
    return True


def entails(clauses: tuple[tuple[Literal, ...], ...], claim: Literal) -> bool:
    """Whether some clause has only literals that imply the claim; negation turns the direction round."""

    def implies(literal: Literal) -> bool:
        if literal.positive != claim.positive:
            return False
        return _implies(literal.event, claim.event) if literal.positive else _implies(claim.event, literal.event)

    return any(all(implies(literal) for literal in clause) for clause in clauses)


class _Speaker:
    """Puts meanings into words and remembers the form chosen for each concept."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.used: dict[str, str] = {}
        self.repeat: bool | None = None  # None: a premise; True: repeat its words; False: avoid them

    def form(self, concept: str) -> str:
        forms = lex.CONCEPTS[concept].forms
        if concept in self.used:
            before = self.used[concept]
            if self.repeat is not False:
                return before
            return self.rng.choice([f for f in forms if f != before] or forms)
        chosen = self.rng.choice(forms)
        if self.repeat is None:
            self.used[concept] = chosen
        return chosen

    def noun(self, concept: str) -> str:
        word = self.form(concept)
        return f"the {word}" if concept in lex.PEOPLE else lex.article(word)

    def clause(self, event: Event, positive: bool = True, subject: str | None = None, adverb: str = "") -> str:
        """A finite clause in the past tense, without a capital letter or a full stop."""
        subject = subject or self.noun(event.agent)
        verb = self.form(event.verb)
        where = [self.form(x) for x in (event.place, event.time) if x]
        self.rng.shuffle(where)
        tail = "".join(f" {part}" for part in where)
        adverb = f"{adverb} " if adverb else ""
        if event.patient and positive and self.rng.random() < 0.25:
            return f"{self.noun(event.patient)} was {adverb}{lex.participle(verb)} by {subject}{tail}"
        patient = f" {self.noun(event.patient)}" if event.patient else ""
        if not positive:
            return f"{subject} did not {lex.base(verb)}{patient}{tail}"
        return f"{subject} {adverb}{lex.past(verb)}{patient}{tail}"

    def infinitive(self, event: Event) -> str:
        patient = f" {self.noun(event.patient)}" if event.patient else ""
        where = "".join(f" {self.form(x)}" for x in (event.place, event.time) if x)
        return f"{lex.base(self.form(event.verb))}{patient}{where}"


_PEOPLE = [c for c in lex.PEOPLE if c != "person:person"]
_THINGS = [c for c in lex.THINGS if c != "thing:object"]
_PLACES, _TIMES, _ACTS = list(lex.PLACES), list(lex.TIMES), list(lex.ACTS)
_DO, _TO = list(lex.THING_VERBS), list(lex.PERSON_VERBS)
_MANNER = (
    "quietly", "eagerly", "calmly", "proudly", "hastily", "secretly", "cheerfully", "reluctantly", "carefully",
    "boldly",
)  # fmt: skip
_FACTIVE = ("knew", "realised", "noticed", "regretted", "was glad", "remembered", "was surprised")
_HEDGED = ("hoped", "feared", "claimed", "suspected", "dreamed", "doubted", "was told")
_DONE, _NOT_DONE = ("managed to", "hastened to", "dared to"), ("failed to", "refused to", "forgot to", "neglected to")
_OPEN = ("planned to", "wanted to", "promised to", "was asked to")
_SURE, _UNSURE = ("luckily", "predictably", "unfortunately", "strangely"), ("allegedly", "supposedly", "perhaps")

Clauses = tuple[tuple[Literal, ...], ...]


def _stranger(rng: random.Random, *known: str | None) -> str:
    """Somebody who is neither one of ``known`` nor a kind of one, nor the other way round."""
    people = [k for k in known if k in lex.PEOPLE]
    return rng.choice([p for p in _PEOPLE if not any(lex.is_a(p, k) or lex.is_a(k, p) for k in people)])


def _event(rng: random.Random, agent: str | None = None) -> Event:
    agent = agent or rng.choice(_PEOPLE)
    place = rng.choice(_PLACES) if rng.random() < 0.55 else None
    time = rng.choice(_TIMES) if rng.random() < 0.3 else None
    kind = rng.random()
    if kind < 0.5:
        return Event(agent, rng.choice(_DO), rng.choice(_THINGS), place, time)
    if kind < 0.85:
        return Event(agent, rng.choice(_TO), _stranger(rng, agent), place, time)
    return Event(agent, rng.choice(_ACTS), None, place or rng.choice(_PLACES), time)


# Every builder gives the premise without its full stop, its clauses, and the events that it mentions.
def _simple(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    event = _event(rng)
    return say.clause(event, adverb=rng.choice(_MANNER)), ((Literal(event),),), [event]


def _hedge(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    event, sure = _event(rng), rng.random() < 0.5
    text = f"{rng.choice(_SURE if sure else _UNSURE)}, {say.clause(event)}"
    return text, (((Literal(event),),) if sure else ()), [event]


def _attitude(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    event, sure = _event(rng), rng.random() < 0.5
    text = f"{rng.choice(lex.GIVEN_NAMES)} {rng.choice(_FACTIVE if sure else _HEDGED)} that {say.clause(event)}"
    return text, (((Literal(event),),) if sure else ()), [event]


def _attempt(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    event, kind = _event(rng), rng.choice(("done", "done", "not", "open"))
    phrase = rng.choice({"done": _DONE, "not": _NOT_DONE, "open": _OPEN}[kind])
    text = f"{say.noun(event.agent)} {phrase} {say.infinitive(event)}"
    return text, {"done": ((Literal(event),),), "not": ((Literal(event, False),),), "open": ()}[kind], [event]


def _negated(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    event = _event(rng)
    return say.clause(event, positive=False), ((Literal(event, False),),), [event]


def _coordinated(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    first = _event(rng)
    second = replace(first, agent=_stranger(rng, first.agent, first.patient))
    both = rng.random() < 0.6
    names = [say.noun(first.agent), say.noun(second.agent)]
    subject = " and ".join(names) if both else "either " + " or ".join(names)
    clauses = ((Literal(first),), (Literal(second),)) if both else ((Literal(first), Literal(second)),)
    verb = say.form(first.verb)
    patient = f" {say.noun(first.patient)}" if first.patient else ""
    where = "".join(f" {say.form(x)}" for x in (first.place, first.time) if x)
    return f"{subject} {lex.past(verb)}{patient}{where}", clauses, [first, second]


def _relative(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    agent = rng.choice(_PEOPLE)
    inner = Event(
        agent, rng.choice(_TO), rng.choice([p for p in _PEOPLE if not (lex.is_a(p, agent) or lex.is_a(agent, p))])
    )
    outer = replace(_event(rng, agent), time=None)
    if outer.patient in lex.PEOPLE:
        outer = replace(outer, verb=rng.choice(_DO), patient=rng.choice(_THINGS))
    subject = f"{say.noun(agent)} who {lex.past(say.form(inner.verb))} {say.noun(inner.patient)}"
    distractor = replace(outer, agent=inner.patient)
    patient = f" {say.noun(outer.patient)}" if outer.patient else ""
    where = f" {say.form(outer.place)}" if outer.place else ""
    text = f"{subject} {lex.past(say.form(outer.verb))}{patient}{where}"
    return text, ((Literal(inner),), (Literal(outer),)), [inner, outer, distractor]


def _linked(rng: random.Random, say: _Speaker) -> tuple[str, Clauses, list[Event]]:
    first = replace(_event(rng), time=None)
    second = replace(_event(rng, _stranger(rng, first.agent, first.patient)), time=None)
    sure = rng.random() < 0.6
    text = (
        f"{say.clause(first)} because {say.clause(second)}"
        if sure
        else (f"if {say.clause(second)}, {rng.choice(lex.GIVEN_NAMES)} was pleased")
    )
    return text, (((Literal(first),), (Literal(second),)) if sure else ()), ([first, second] if sure else [second])


_BUILDERS: tuple[Callable, ...] = (
    _simple, _simple, _hedge, _attitude, _attitude, _attempt, _negated, _coordinated, _relative, _relative, _linked,
)  # fmt: skip


def _sibling(rng: random.Random, concept: str) -> str | None:
    parent = lex.CONCEPTS[concept].parent
    others = [c for c in lex.CHILDREN.get(parent, ()) if c != concept and not lex.CHILDREN[c]]
    return rng.choice(others) if others else None


def _vary(rng: random.Random, event: Event) -> Event:
    """Another event to ask about: more general, more specific, opposite, or about someone else."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        change = rng.choice(("up", "up", "down", "sibling", "opposite", "swap", "drop", "drop", "add"))
        slot = rng.choice([s for s in ("agent", "verb", "patient", "place", "time") if getattr(event, s)])
        concept = getattr(event, slot)
        new: str | None = None
        if change == "up":
            new = lex.CONCEPTS[concept].parent
        elif change == "down" and lex.CHILDREN[concept] and slot != "agent":
            new = rng.choice(lex.CHILDREN[concept])
        elif change == "sibling":
            new = _sibling(rng, concept)
        elif change == "opposite":
            slot, new = "verb", lex.CONCEPTS[event.verb].opposite
        elif change == "swap" and event.patient in lex.PEOPLE:
            event = replace(event, agent=event.patient, patient=event.agent)
        elif change == "drop" and event.patient:
            event = replace(event, place=None, time=None)
        elif change == "add" and event.time is None:
            slot, new = "time", rng.choice(_TIMES)
        if new is not None:
            event = replace(event, **{slot: new})
    return event


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def draw(rng: random.Random, repeat: bool) -> Example | None:
    """One pair whose hypothesis repeats the premise's words, or paraphrases them; ``None`` if it came out between."""
    say = _Speaker(rng)
    text, clauses, mentioned = rng.choice(_BUILDERS)(rng, say)
    claim_event = rng.choice(mentioned)
    denied = any(not literal.positive for clause in clauses for literal in clause)
    positive = rng.random() < 0.25 if denied else rng.random() < 0.93
    varied = _vary(rng, claim_event)
    if not positive:
        varied = replace(varied, agent=claim_event.agent)  # "not a musician" would not say which musician is meant
    if varied.agent == varied.patient:
        return None
    claim = Literal(varied, positive)
    say.repeat = repeat
    premise, hypothesis = _sentence(text), _sentence(say.clause(varied, positive))
    overlap = lexical_overlap(premise, hypothesis)
    if (overlap < HIGH) if repeat else (overlap > LOW):
        return None
    return Example(premise, hypothesis, 0 if entails(clauses, claim) else 1, clauses, claim)


def generate(rng: random.Random, count: int, rate: float, taken: set[str]) -> list[Example]:
    """``count`` pairs, labels balanced, of which a share ``rate`` has the cue agree with the label, exactly.

    The cue agrees when an entailed hypothesis repeats the premise's words or another one paraphrases them. Premises
    are new: not in ``taken``, to which they are added.
    """
    agree = round(count * rate / 2)
    need = {
        (label, (label == 0) == ok): agree if ok else count // 2 - agree for label, ok in product((0, 1), (True, False))
    }
    found: list[Example] = []
    while len(found) < 2 * (count // 2):
        repeat = rng.choice([r for (_, r), left in need.items() if left])
        example = draw(rng, repeat)
        if example is None or example.premise in taken or not need[example.label, repeat]:
            continue
        taken.add(example.premise)
        need[example.label, repeat] -= 1
        found.append(example)
    rng.shuffle(found)
    return found
