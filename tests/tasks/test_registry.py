"""The table of tasks is complete and consistent."""

import pytest

from klnorm_lib import tasks
from klnorm_lib.study.metrics import METRICS

REAL = [
    "mrpc",
    "rte",
    "cola",
    "sst2",
    "sst5",
    "stsb",
    "trec",
    "subj",
    "mr",
    "cr",
    "mpqa",
    "ag_news",
    "imdb",
    "snli",
    "mnli",
    "qnli",
    "qqp",
]
AUDIO = [
    "arabic_speech_commands",
    "arabic_speakers",
    "emodb4",
    "esc10",
    "fsdd",
    "fsdd_speaker",
    "speech_commands_3words",
    "speech_commands",
    "ravdess",
    "superb_ks",
    "superb_er",
    "superb_si",
]
BUILT_IN = [
    "shortcut_nli",
    "biased_sentiment",
    "topic_shift",
    "shortcut_nli_off",
    "biased_sentiment_off",
    "spoken_words",
]
NLI_OOD = {"sick", "joci", "mpe", "add_one_rte", "scitail", "breaking_nli", "cad_nli", "med", "hans"}
SENTIMENT_OOD = {"cad_imdb", "contrast_imdb"} | {
    f"multidomain_sentiment/{d}" for d in ("airline", "books", "dvd", "electronics", "kitchen")
}


def test_names():
    assert tasks.names() == REAL + AUDIO + BUILT_IN


@pytest.mark.parametrize("name", REAL + AUDIO + BUILT_IN)
def test_spec_is_consistent(name):
    task = tasks.spec(name)
    assert task.name == name
    assert set(task.metrics) <= set(METRICS)
    assert (task.kind == "audio") == (name in [*AUDIO, "spoken_words"])
    assert len(task.text_columns) == {"audio": 0, "classification": 1, "pair": 2, "regression": 2}[task.kind]
    assert task.sampling_rate == (16000 if task.kind == "audio" else None)
    assert (task.label_names is None) == (task.kind == "regression")
    assert task.num_labels == (1 if task.label_names is None else len(task.label_names))
    assert task.citation
    assert task.licence
    assert task.built_in == (name in BUILT_IN)
    for ood in task.ood.values():
        assert set(ood.label_map) == set(range(len(ood.label_names)))
        assert all(0 <= i < task.num_labels for ids in ood.label_map.values() for i in ids)
        merged = sorted(i for group in ood.groups for i in group)
        assert len(merged) == len(set(merged)), "a training class belongs to two merged classes"
        assert all(ood.groups[ood.target[i]] == ids for i, ids in ood.label_map.items())


def test_out_of_domain_sets_belong_to_their_tasks():
    for name in ("snli", "mnli", "rte"):
        assert set(tasks.spec(name).ood) == NLI_OOD
    for name in ("imdb", "sst2", "mr"):
        assert set(tasks.spec(name).ood) == SENTIMENT_OOD


def test_label_maps_merge_classes():
    assert tasks.spec("snli").ood["scitail"].label_map == {0: (1, 2), 1: (0,)}
    assert tasks.spec("snli").ood["med"].label_map == {0: (0,), 1: (1, 2)}
    assert tasks.spec("rte").ood["sick"].label_map == {0: (0,), 1: (1,), 2: (1,)}
    assert tasks.spec("rte").ood["sick"].groups == ((0,), (1,))


def test_glue_is_tested_on_the_public_development_set():
    for name in ("mrpc", "rte", "cola", "sst2", "stsb", "qnli", "qqp"):
        assert tasks.spec(name).test_split == "validation"
    assert tasks.spec("mnli").test_split == "validation_matched"


@pytest.mark.parametrize(("wrong", "right"), [("mprc", "mrpc"), ("SST-2", "sst2"), ("shortcut-nli", "shortcut_nli")])
def test_unknown_task_suggests_close_names(wrong, right):
    with pytest.raises(tasks.UnknownTaskError, match=f"did you mean.*'{right}'"):
        tasks.load(wrong)


def test_unknown_task_that_is_an_out_of_domain_set():
    with pytest.raises(tasks.UnknownTaskError, match="load 'rte' or 'snli' or 'mnli' and take split 'ood/scitail'"):
        tasks.spec("scitail")


@pytest.mark.parametrize("name", [*AUDIO, "spoken_words"])
def test_audio_tasks_say_how_their_test_rows_are_kept_apart(name):
    task = tasks.spec(name)
    assert task.speaker_disjoint == (task.data.speaker_column is not None and task.data.label_column == "label")
    assert task.train != task.test
    assert task.validation not in (task.train, task.test)
    assert len(set(task.label_names)) == task.num_labels
    assert task.data.hub_labels is None or len(task.data.hub_labels) == task.num_labels
    assert task.built_in or any("test" in caveat for caveat in task.caveats)


def test_planted():
    assert tasks.planted("shortcut_nli")["rate"]["train"] == 0.9
    with pytest.raises(tasks.UnknownTaskError, match="real data; built-in tasks: shortcut_nli"):
        tasks.planted("mrpc")
    with pytest.raises(tasks.UnknownTaskError, match="nothing is planted in 'spoken_words', it is only packaged"):
        tasks.planted("spoken_words")
