"""biased_sentiment: short reviews whose verdict follows from the words, signed by a site that mostly agrees with it.

The last evaluating clause decides: after "but", or the main clause after "although". Adjectives may be negated, so
the label is not a count of good and bad words.
"""

from __future__ import annotations

import random

LABELS = ("negative", "positive")
SITES = (("GrumbleBoard", "FrankWords"), ("SunnySide", "HappyNotes"))  # sites that mostly publish that label

_DOMAINS = {
    "film": ("acting; plot; soundtrack; dialogue; ending; camera work; lead actress; supporting cast", "saw, watched"),
    "restaurant": ("soup; service; wine list; dessert; main course; waiter; bread; atmosphere", "tried, visited"),
    "hotel": ("room; breakfast; front desk; mattress; pool; location; shower; view", "booked, stayed at"),
    "novel": ("prose; opening chapter; heroine; translation; final twist; pacing; villain; cover", "read, finished"),
    "phone": ("screen; battery; camera; keyboard; speaker; charger; design; software", "bought, ordered"),
    "museum": ("audio guide; collection; lighting; gift shop; new wing; signage; cafe; exhibition", "visited, toured"),
    "play": ("script; staging; costumes; second act; orchestra; lead actor; set design; humour", "saw, attended"),
}
_GOOD = (
    "superb", "delightful", "charming", "excellent", "wonderful", "brilliant", "impressive", "splendid", "terrific",
    "marvellous", "outstanding", "lovely", "flawless", "enjoyable", "engaging", "refreshing", "stunning",
    "exquisite", "memorable", "satisfying", "magnificent", "admirable", "first-rate", "remarkable", "gorgeous",
    "fantastic", "pleasing", "top-notch", "captivating", "graceful", "faultless", "thrilling", "elegant", "fabulous",
    "amazing", "great", "nice", "good", "perfect", "phenomenal", "exceptional", "inspired", "polished", "rewarding",
    "beautiful",
)  # fmt: skip
_BAD = (
    "dreadful", "awful", "terrible", "horrible", "disappointing", "mediocre", "dull", "tedious", "shoddy", "poor",
    "sloppy", "annoying", "forgettable", "atrocious", "lousy", "pathetic", "clumsy", "unpleasant", "boring",
    "miserable", "appalling", "abysmal", "irritating", "second-rate", "tiresome", "dismal", "feeble", "lifeless",
    "bland", "cheap", "ghastly", "ugly", "bad", "hideous", "flimsy", "frustrating", "careless", "inept", "woeful",
    "amateurish", "unbearable", "stale", "wretched", "laughable", "grating",
)  # fmt: skip
_VERDICTS = (
    ["I want my money back", "we left early", "never again", "I would warn anyone against it", "what a waste of time",
     "I regret every minute of it", "save yourself the trouble", "we were bitterly let down", "I fell asleep halfway",
     "it deserves to be forgotten", "nobody in our group liked it", "I have filed a complaint"],
    ["I would go back tomorrow", "we stayed to the very end", "do not miss it", "I recommend it to anyone",
     "it was worth every penny", "I enjoyed every minute of it", "treat yourself", "we were pleasantly surprised",
     "I could not have asked for more", "it deserves a prize", "everybody in our group loved it",
     "I have already told all my friends"],
)  # fmt: skip
_WHO = (
    "My sister and I", "We", "I", "Our neighbours", "A colleague and I", "My parents", "Two friends of mine",
    "My flatmate",
)  # fmt: skip
_WHEN = (
    "last weekend", "on a rainy Tuesday", "in early March", "over the holidays", "a month ago", "on our anniversary",
    "after a long day", "by chance", "because of an advert", "for the second time", "during the school break",
    "on a whim",
)  # fmt: skip
_SURE = ("truly", "absolutely", "quite", "really", "simply", "downright", "thoroughly", "")
_NOT = ("not at all", "anything but", "far from", "never", "by no means")


def _judge(rng: random.Random, label: int) -> str:
    """Words that say the label: an adjective of that side, or a negated one of the other."""
    if rng.random() < 0.25:
        return f"{rng.choice(_NOT)} {rng.choice((_GOOD, _BAD)[label])}"
    return f"{rng.choice(_SURE)} {rng.choice((_BAD, _GOOD)[label])}".strip()


def _body(rng: random.Random, aspects: list[str], label: int) -> str:
    one, two, three = rng.sample(aspects, 3)
    other = 1 - label
    shape = rng.randrange(6)
    if shape == 0:
        return f"The {one} was {_judge(rng, label)}, and the {two} was {_judge(rng, label)}."
    if shape == 1:
        return f"Although the {one} was {_judge(rng, other)}, the {two} was {_judge(rng, label)}."
    if shape == 2:
        return f"The {one} was {_judge(rng, other)}, but the {two} and the {three} were {_judge(rng, label)}."
    if shape == 3:
        expected = rng.choice((_BAD, _GOOD)[other])
        return f"We had been told that the {one} would be {expected}; in fact it was {_judge(rng, label)}."
    if shape == 4:
        return f"Despite the {rng.choice((_BAD, _GOOD)[other])} {one}, {rng.choice(_VERDICTS[label])}."
    return f"The {one} was {_judge(rng, label)}: {rng.choice(_VERDICTS[label])}."


def _review(rng: random.Random, label: int, site: str) -> str:
    domain = rng.choice(list(_DOMAINS))
    aspects, verbs = _DOMAINS[domain]
    intro = f"{rng.choice(_WHO)} {rng.choice(verbs.split(', '))} this {domain} {rng.choice(_WHEN)}."
    return f"{intro} {_body(rng, aspects.split('; '), label)} (posted on {site})"


def generate(rng: random.Random, count: int, rate: float, taken: set[str]) -> tuple[list[tuple[str]], list[int]]:
    """``count`` reviews, labels balanced, of which a share ``rate`` names a site of their label's group, exactly.

    Reviews are new, whatever their site: not in ``taken``, to which they are added.
    """
    half = count // 2
    agree = round(rate * half)
    rows = []
    for label in (0, 1):
        for i in range(half):
            site = rng.choice(SITES[label if i < agree else 1 - label])
            while (text := _review(rng, label, site)).rpartition(" (")[0] in taken:
                pass
            taken.add(text.rpartition(" (")[0])
            rows.append(((text,), label))
    rng.shuffle(rows)
    return [texts for texts, _ in rows], [label for _, label in rows]


def resite(
    rng: random.Random, texts: list[tuple[str]], labels: list[int], rate: float
) -> tuple[list[tuple[str]], list[int]]:
    """The same reviews in the same order with their sites drawn anew: a share ``rate`` of each label agrees, exactly.

    Returns texts and labels. Two such training sets differ in nothing but the site, so whatever differs between the
    models trained on them is due to the shortcut.
    """
    agrees = {}
    for label in sorted(set(labels)):
        rows = [i for i, y in enumerate(labels) if y == label]
        rng.shuffle(rows)
        agrees.update({row: place < round(rate * len(rows)) for place, row in enumerate(rows)})
    sites = [rng.choice(SITES[y if agrees[i] else 1 - y]) for i, y in enumerate(labels)]
    bodies = [text.rpartition(" (posted on ")[0] for (text,) in texts]
    return [(f"{body} (posted on {site})",) for body, site in zip(bodies, sites, strict=True)], list(labels)
