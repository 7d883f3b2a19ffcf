"""Windows of text: a function of (seed, number) alone, inside one document, from every part of the corpora."""

import lzma

import pytest
from transformers import AutoTokenizer

from klnorm_lib.encoders import windows as module
from klnorm_lib.encoders.corpora import documents
from klnorm_lib.encoders.windows import checksums, corpus, windows
from tests import language


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return language.corpus(tmp_path_factory.mktemp("windows") / "wiki")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(language.model(tmp_path_factory.mktemp("windows") / "model"))


def test_the_first_windows_do_not_depend_on_how_many_there_are(text, tokenizer):
    few, many = windows([text], tokenizer, 5, 16, seed=3), windows([text], tokenizer, 20, 16, seed=3)
    assert many[:5] == few
    assert windows([text], tokenizer, 5, 16, seed=4) != few
    assert len({tuple(ids) for ids in many}) > 15


def test_a_window_is_a_run_of_words_of_one_document(text, tokenizer):
    held = [" ".join(document.split()) for document in documents([text])]
    for ids in windows([text], tokenizer, 30, 16):
        assert len(ids) == 16
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        words = tokenizer.decode(ids, skip_special_tokens=True)
        assert any(words in document for document in held), words


def test_a_short_document_gives_a_short_window_from_its_beginning(tmp_path, tokenizer):
    (tmp_path / "one.txt").write_text("the film was good and " * 10)
    found = windows([tmp_path / "one.txt"], tokenizer, 4, 64)
    assert {len(ids) for ids in found} == {52}


def test_long_documents_are_met_more_often(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("good " * 60)
    (tmp_path / "b.txt").write_text("bad " * 900)
    found = windows([tmp_path], tokenizer, 200, 8)
    share = sum(tokenizer.convert_tokens_to_ids("bad") in ids for ids in found) / 200
    assert 0.86 < share < 0.98  # 3600 of 3900 characters


def test_held_out_documents_are_not_trained_on(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "HELD_OUT", 3)
    blocks = [f"<doc>\n{word * 60}\n</doc>\n" for word in ("film ", "book ", "room ")]
    (tmp_path / "c.txt.xz").write_bytes(lzma.compress("".join(blocks).encode()))
    # An empty document, too short, is between two blocks: the third that is read is "room".
    room = tokenizer.convert_tokens_to_ids("room")
    assert all(room in ids for ids in windows([tmp_path], tokenizer, 10, 8, part="heldout"))
    assert not any(room in ids for ids in windows([tmp_path], tokenizer, 30, 8, part="train"))
    assert any(room in ids for ids in windows([tmp_path], tokenizer, 30, 8))


def test_a_corpus_of_the_mirror_is_found_by_its_name(tmp_path, monkeypatch):
    language.corpus(tmp_path / "corpora" / "wiki_small")
    monkeypatch.delenv("KLNORM_MIRROR", raising=False)
    with pytest.raises(FileNotFoundError, match="KLNORM_MIRROR is not set"):
        corpus("wiki_small")
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
    assert corpus("wiki_small") == tmp_path / "corpora" / "wiki_small"
    with pytest.raises(FileNotFoundError, match="wiki_large"):
        corpus("wiki_large")


def test_checksums_see_every_byte_and_name(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = checksums([tmp_path])
    assert list(before) == [tmp_path.name]
    (tmp_path / "a.txt").write_text("two")
    changed = checksums([tmp_path])
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({str(before), str(changed), str(checksums([tmp_path]))}) == 3
    with pytest.raises(FileNotFoundError, match="none here"):
        checksums([tmp_path / "none here"])


@pytest.mark.parametrize(
    ("fields", "what"),
    [({"n": 0}, "n=0"), ({"length": 4}, "length=4"), ({"part": "test"}, "unknown part 'test'")],
)
def test_what_cannot_be_is_refused(text, tokenizer, fields, what):
    with pytest.raises(ValueError, match=what):
        windows([text], tokenizer, **{"n": 2, "length": 16, **fields})


def test_too_little_text_is_told(tmp_path, tokenizer):
    (tmp_path / "short.txt").write_text("the film was good")
    with pytest.raises(ValueError, match="too little text in .*short.txt"):
        windows([tmp_path / "short.txt"], tokenizer, 1, 16)
