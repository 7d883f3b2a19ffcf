"""topic_shift: name the topic of a sentence, trained on news, tried on forum posts in other words and syntax."""

from __future__ import annotations

import random

LABELS = ("sport", "food", "money", "health", "technology")

# Per topic: people, things, and what was done to them. The words of the two registers are disjoint.
NEWS = {
    "sport": (
        "the midfielder; the national coach; the defending champion; the veteran striker; the relay team; the rowing "
        "crew; the wrestler; the sprinter; the tennis federation; the league leaders",
        "the championship; the qualifying tournament; the away fixture; the world record; the cup final; the medal "
        "table; the transfer window; the decisive set; the relegation battle; the stadium opening",
        "dominated; contested; withdrew from; prepared for; commented on; celebrated after; trained for",
    ),
    "food": (
        "the head chef; the dairy cooperative; the vineyard owner; the restaurant guild; the pastry academy; the spice "
        "merchant; the olive growers; the culinary institute; the fishmonger association; the cheese makers",
        "the regional cuisine; the tasting menu; the saffron harvest; the seasonal produce; the sourdough tradition; "
        "the banquet; the organic vegetables; the truffle market; the vintage; the cured ham",
        "presented; praised; prepared; promoted; sampled; served; revived",
    ),
    "money": (
        "the central bank; the finance ministry; the pension fund; the shareholders; the credit agency; the insurer; "
        "the auditors; the commodity traders; the treasury; the investment trust",
        "the interest rate; the quarterly earnings; the bond auction; the budget deficit; the merger; the tax reform; "
        "the currency reserves; the dividend; the mortgage index; the fiscal outlook",
        "revised; reported on; warned about; approved; postponed; analysed; reacted to",
    ),
    "health": (
        "the surgeons; the health ministry; the epidemiologists; the paediatric ward; the nursing council; the "
        "university hospital; the vaccine panel; the cardiologists; the ambulance service; the midwives",
        "the influenza outbreak; the clinical trial; the antibiotic shortage; the screening programme; the transplant "
        "list; the mortality figures; the treatment guideline; the diabetes study; the emergency clinic; the therapy",
        "monitored; evaluated; expanded; described; responded to; announced; supervised",
    ),
    "technology": (
        "the semiconductor maker; the software vendor; the robotics laboratory; the satellite operator; the chip "
        "designer; the telecom regulator; the engineers; the cloud provider; the cybersecurity agency; the start-up",
        "the operating system; the fibre network; the encryption standard; the quantum processor; the data centre; "
        "the language model; the autonomous vehicle; the microchip plant; the navigation satellite; the prototype",
        "unveiled; tested; upgraded; licensed; demonstrated; deployed; patented",
    ),
}
FORUM = {
    "sport": (
        "my gym buddy; our goalie; this ref; my karate kid brother; some cyclist; my yoga mate",
        "leg day; a kickabout; a penalty shootout; my marathon pb; a slam dunk; five push ups; a bike ride; a muddy "
        "match; my jersey; a hat trick",
        "smashed; totally bottled; bragged over; cheered at; ranted over",
    ),
    "food": (
        "my nan; this barista; my hungry flatmate; the pizza guy; my vegan cousin; some foodie",
        "a soggy burger; leftover curry; my pancakes; instant noodles; a giant sandwich; burnt toast; cheesy nachos; "
        "a milkshake; chewy brownies; garlic sauce",
        "gobbled; scoffed; burned; microwaved; drooled over",
    ),
    "money": (
        "my landlord; the cashier; my broke roommate; that loan shark; my stingy uncle; the cash machine",
        "my rent; twenty quid; a payday; my overdraft; pocket cash; a dodgy refund; my savings jar; a huge bill; the "
        "wages; a bargain",
        "moaned over; blew; owed me; nicked; paid back",
    ),
    "health": (
        "my dentist; my sneezing toddler; our gp; my poorly mum; the chemist lady; my physio",
        "a runny nose; a nasty cough; my sore knee; a splitting headache; my hay fever; stitches; a wobbly tooth; "
        "painkillers; a tummy bug; a rash",
        "fussed over; googled; got over; complained over; put cream on",
    ),
    "technology": (
        "my laptop nerd; the wifi guy; my gamer boyfriend; this coder; some hacker; my techie dad",
        "a frozen screen; my dead phone; a buggy app; an old router; my usb stick; a glitchy update; a forgotten "
        "password; noisy headphones; a broken joystick; spam emails",
        "rebooted; swore at; unplugged; reinstalled; fiddled with",
    ),
}
_CITIES = (
    "Geneva", "Bogota", "Lagos", "Helsinki", "Osaka", "Leeds", "Tunis", "Prague", "Riga", "Quito", "Perth", "Turin",
    "Dakar", "Austin", "Hanoi",
)  # fmt: skip
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_NEWS_TAILS = (
    "according to a statement", "officials said", "after weeks of negotiation", "despite earlier doubts",
    "it emerged from a report", "for the first time in a decade", "amid growing public interest",
    "as observers had expected",
)  # fmt: skip
_OPEN = (
    "lol", "ok so", "guys", "not gonna lie", "honestly", "help", "anyone else", "rant time", "true story", "hey all",
)  # fmt: skip
_CLOSE = (
    "smh", "any tips?", "what now??", "send help", "so yeah", "thoughts?", "best day ever", "cannot even", "haha",
    "again!!",
)  # fmt: skip
_TIME = ("last night", "this morning", "just now", "like twice", "all week", "since lunch", "at 3am", "for ages")


def _split(words: str) -> list[str]:
    return [w.strip() for w in words.split(";")]


def _news(rng: random.Random, topic: str) -> str:
    who, what, did = map(_split, NEWS[topic])
    subject, thing, verb = rng.choice(who), rng.choice(what), rng.choice(did)
    city, day, tail = rng.choice(_CITIES), rng.choice(_DAYS), rng.choice(_NEWS_TAILS)
    text = rng.choice(
        (
            f"{city}, {day}: {subject} {verb} {thing}, {tail}.",
            f"in {city}, {subject} {verb} {thing} on {day}, {tail}.",
            f"on {day} {subject}, based in {city}, {verb} {thing}, {tail}.",
            f"{subject} from {city} {verb} {thing} on {day}, {tail}.",
        )
    )
    return text[0].upper() + text[1:]


def _forum(rng: random.Random, topic: str) -> str:
    who, what, did = map(_split, FORUM[topic])
    subject, thing, verb = rng.choice(who), rng.choice(what), rng.choice(did)
    opening, close, time = rng.choice(_OPEN), rng.choice(_CLOSE), rng.choice(_TIME)
    return rng.choice(
        (
            f"{opening}, {subject} {verb} {thing} {time}... {close}",
            f"{opening} why does it always end with {thing} when {subject} turns up {time}? {close}",
            f"me + {thing} {time} = {close} ({opening}, {subject} {verb} it)",
            f"{subject} {verb} {thing} {time} and i'm like: {opening}, {close}",
        )
    )


def generate(rng: random.Random, count: int, register: str, taken: set[str]) -> tuple[list[tuple[str]], list[int]]:
    """``count`` new sentences of a register ("news" or "forum"), topics balanced; none in ``taken``, which grows."""
    write = {"news": _news, "forum": _forum}[register]
    rows = []
    for label, topic in enumerate(LABELS):
        for _ in range(count // len(LABELS)):
            while (text := write(rng, topic)) in taken:
                pass
            taken.add(text)
            rows.append(((text,), label))
    rng.shuffle(rows)
    return [texts for texts, _ in rows], [label for _, label in rows]
