"""The built-in tasks: what is planted is there at the stated rate, and the labels follow from the meaning."""

import random
from collections import Counter
from itertools import chain, combinations

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from klnorm_lib import tasks
from klnorm_lib.tasks import builtin
from klnorm_lib.tasks.builtin import lexicon, nli, sentiment, topics
from klnorm_lib.tasks.rows import checksum, key

UNBIASED = {"shortcut_nli_off": "shortcut_nli", "biased_sentiment_off": "biased_sentiment"}
NAMES = ("shortcut_nli", "biased_sentiment", "topic_shift", *UNBIASED)
UNBIASED_TRAIN = {"shortcut_nli_off": "c674459f257060b8", "biased_sentiment_off": "76dd695b2217d775"}
# The rows are part of every record made from them: change them only together with GRAMMAR_VERSION.
CHECKSUMS = {
    "shortcut_nli": {
        "train": "2c657285c3ea6094",
        "test": "52554fd273c6a002",
        "ood/shortcut_off": "3761147603bc506f",
        "ood/shortcut_reversed": "3734f5984e1cc82d",
    },
    "biased_sentiment": {
        "train": "d4e755b759c6c98c",
        "test": "b2dfcd00bf96431e",
        "ood/shortcut_off": "1ed7f30d43f276e7",
        "ood/shortcut_reversed": "11eb0d26cea9ddf2",
    },
    "topic_shift": {"train": "9fcca62d07e77521", "test": "12221e5ef5edf763", "ood/forum": "e8744fb40382d191"},
}
CHECKSUMS |= {name: {**CHECKSUMS[base], "train": UNBIASED_TRAIN[name]} for name, base in UNBIASED.items()}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_same_everywhere(name):
    assert {split: checksum(rows)[:16] for split, rows in builtin.generate(name).items()} == CHECKSUMS[name]


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_balanced_distinct_and_disjoint(name):
    splits = builtin.generate(name)
    keys = [key(texts) for rows in splits.values() for texts in rows.texts]
    assert len(keys) == len(set(keys))
    for rows in splits.values():
        assert len(set(Counter(rows.labels).values())) == 1
    assert len(splits["train"]) == 4000
    assert all(len(rows) == 1000 for split, rows in splits.items() if split != "train")


# What `load` makes of them: train and validation of all rows, train and validation of 100. Packaged records hold them.
LOADED = {
    "shortcut_nli": "51a7124264b718e3 ad62ba7df3539619 812a514d2147b91d 4b0d0ff639f4e65b",
    "biased_sentiment": "84fd4445c4532b54 cee227c1d9ea53a3 fb09f9efea51ec8c 3924a4d5ac94fea9",
    "topic_shift": "37e5e52f9b14abb7 233a5dc9ccd4de4d 5db970aa3b547167 43adca6a98e72eb7",
    "shortcut_nli_off": "45cff2583bd5e8e8 8f31a1130dd6066d 5fd9060ca4150818 b389071d793fd193",
    "biased_sentiment_off": "4a44ac80d4ea4585 c0c77d916f44ab9e 8a27eeada506aa2c c300e28171810400",
    "spoken_words": "ed22a914d646ae7a 0c660cf923dc742e b196963c54acc7cc 30f5e47297c46440",
}
SPOKEN = {"test": "bec98418fc01bfb4", "ood/accent": "800390c6ac8d530d", "ood/noise": "bc118b6b7417b7a4"}


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.spec(name).built_in])
def test_loaded_rows_are_those_of_the_records(name):
    sums = [tasks.load_with_provenance(name, size, source="built-in")[1]["checksums"] for size in (None, 100)]
    assert [s[part][:16] for s in sums for part in ("train", "validation")] == LOADED[name].split()
    for found in sums:
        rest = {split: sum_[:16] for split, sum_ in found.items() if split not in ("train", "validation")}
        assert rest == {k: v for k, v in CHECKSUMS.get(name, SPOKEN).items() if k != "train"}


@pytest.mark.parametrize("name", NAMES)
def test_loading(name):
    data, facts = tasks.load_with_provenance(name, 100, source="built-in")
    assert set(data) == set(tasks.planted(name)["rate"])
    assert (len(data["train"]), len(data["validation"])) == (80, 20)
    assert facts["source"] == "built-in"
    assert facts["revision"] == "grammar-1"
    assert facts["removed"] == {}
    with pytest.raises(tasks.TaskError, match="ships with the library"):
        tasks.load(name, source="mirror")


def agreement(split, name="shortcut_nli"):
    rows = builtin.generate(name)[split]
    cues = [nli.lexical_overlap(*texts) >= nli.HIGH for texts in rows.texts]
    return sum(cue == (label == 0) for cue, label in zip(cues, rows.labels, strict=True)) / len(rows)


@pytest.mark.parametrize("split", ["train", "test", "ood/shortcut_off", "ood/shortcut_reversed"])
def test_overlap_predicts_the_label_at_the_stated_rate(split):
    assert agreement(split) == tasks.planted("shortcut_nli")["rate"][split]


def test_overlap_is_either_high_or_low():
    for rows in builtin.generate("shortcut_nli").values():
        overlaps = [nli.lexical_overlap(*texts) for texts in rows.texts]
        assert all(x >= nli.HIGH or x <= nli.LOW for x in overlaps)


def test_every_word_form_has_one_meaning():
    forms = [form for concept in lexicon.CONCEPTS.values() for form in concept.forms]
    assert len(forms) == len(set(forms)) > 500
    for concept in lexicon.CONCEPTS.values():
        assert concept.parent is None or concept.parent in lexicon.CONCEPTS
        assert concept.opposite is None or lexicon.CONCEPTS[concept.opposite].opposite == concept.name


def ancestors(concept):
    return {concept} | (ancestors(p) if (p := lexicon.CONCEPTS[concept].parent) else set())


def is_case_of(event, general):
    """Whether everything the general event says is true of the event."""
    slots = ("agent", "verb", "patient", "place", "time")
    asked = [(getattr(event, s), getattr(general, s)) for s in slots if getattr(general, s) is not None]
    return all(told is not None and wanted in ancestors(told) for told, wanted in asked)


def true_in(world, literal):
    return any(is_case_of(event, literal.event) for event in world) == literal.positive


def test_labels_follow_from_the_meaning():
    """Entailment is truth in every possible world of the events mentioned, whatever the words chosen."""
    rng = random.Random(1)
    examples = [e for e in (nli.draw(rng, rng.random() < 0.5) for _ in range(4000)) if e]
    assert len(examples) > 1000
    for example in examples:
        told = {literal.event for clause in example.clauses for literal in clause} | {example.claim.event}
        worlds = chain.from_iterable(combinations(sorted(told, key=repr), n) for n in range(len(told) + 1))
        possible = [w for w in worlds if all(any(true_in(w, x) for x in clause) for clause in example.clauses)]
        assert possible
        entailed = all(true_in(world, example.claim) for world in possible)
        assert example.label == (0 if entailed else 1), example


def test_entailment_examples():
    event = nli.Event("person:doctor", "do:buy", "thing:poodle", "place:in Rome")
    kind = nli.Event("person:medic", "do:buy", "thing:dog", "place:in Italy")
    told, denied = ((nli.Literal(event),),), ((nli.Literal(kind, False),),)
    assert nli.entails(told, nli.Literal(kind))
    assert not nli.entails(((nli.Literal(kind),),), nli.Literal(event))
    assert nli.entails(denied, nli.Literal(event, False))
    assert not nli.entails(((nli.Literal(event, False),),), nli.Literal(kind, False))
    assert not nli.entails(told, nli.Literal(event, False))
    assert not nli.entails((), nli.Literal(event))
    other = nli.Event("person:nurse", "do:buy", "thing:poodle", "place:in Rome")
    either = ((nli.Literal(event), nli.Literal(other)),)
    assert nli.entails(either, nli.Literal(kind))
    assert not nli.entails(either, nli.Literal(event))


def site_agrees(text, label):
    return any(site in text for site in sentiment.SITES[label])


@pytest.mark.parametrize("split", ["train", "test", "ood/shortcut_off", "ood/shortcut_reversed"])
@pytest.mark.parametrize("name", ["biased_sentiment", "biased_sentiment_off"])
def test_the_site_predicts_the_label_at_the_stated_rate(name, split):
    rows = builtin.generate(name)[split]
    hits = [site_agrees(text, y) for (text,), y in zip(rows.texts, rows.labels, strict=True)]
    assert sum(hits) / len(rows) == tasks.planted(name)["rate"][split]


def test_training_without_the_shortcut_changes_nothing_else():
    assert agreement("train", "shortcut_nli_off") == tasks.planted("shortcut_nli_off")["rate"]["train"] == 0.5
    biased, fair = (builtin.generate(name)["train"] for name in ("biased_sentiment", "biased_sentiment_off"))
    assert biased.labels == fair.labels
    for (one,), (other,) in zip(biased.texts, fair.texts, strict=True):
        assert one.rpartition("(posted on ")[0] == other.rpartition("(posted on ")[0]
    by_label = [[site_agrees(t, y) for (t,), y in zip(fair.texts, fair.labels, strict=True) if y == k] for k in (0, 1)]
    assert [sum(hits) / len(hits) for hits in by_label] == [0.5, 0.5]
    for name, base in UNBIASED.items():
        assert tasks.spec(name).ood == tasks.spec(base).ood
        assert tasks.planted(name)["rate"] | {"train": 0.9, "validation": 0.9} == tasks.planted(base)["rate"]


def test_sites_are_redrawn_at_any_rate_and_labels_kept():
    texts, labels = sentiment.generate(random.Random(0), 40, 0.9, set())
    for rate in (0.0, 0.1, 1.0):
        new, same = sentiment.resite(random.Random(1), texts, labels, rate)
        assert same == labels
        assert sum(site_agrees(t, y) for (t,), y in zip(new, same, strict=True)) == round(40 * rate)


def words(table, topic):
    return {w for part in table[topic] for phrase in part.split(";") for w in phrase.split() if len(w) > 3} - {"over"}


@pytest.mark.parametrize("topic", topics.LABELS)
def test_the_two_registers_share_no_topic_words(topic):
    news = set().union(*(words(topics.NEWS, t) for t in topics.LABELS))
    assert not words(topics.FORUM, topic) & news


def bag_of_words(name, split_names):
    splits = builtin.generate(name)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=300))
    joined = {s: [" [SEP] ".join(t) for t in splits[s].texts] for s in ("train", *split_names)}
    model.fit(joined["train"], splits["train"].labels)
    return {s: model.score(joined[s], splits[s].labels) for s in split_names}


def test_a_bag_of_words_is_not_enough():
    assert bag_of_words("shortcut_nli", ["ood/shortcut_reversed"])["ood/shortcut_reversed"] < 0.8
    scores = bag_of_words("biased_sentiment", ["test", "ood/shortcut_off", "ood/shortcut_reversed"])
    assert scores["test"] > scores["ood/shortcut_off"] > scores["ood/shortcut_reversed"]
    assert scores["ood/shortcut_reversed"] < 0.5
    scores = bag_of_words("topic_shift", ["test", "ood/forum"])
    assert scores["test"] > 0.95
    assert scores["ood/forum"] < 0.5
