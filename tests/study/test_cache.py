"""Things made once: only where a study asks for it, and only so many of them."""

from klnorm_lib.study import cache


def test_nothing_is_kept_unless_asked_for():
    made = []
    for _ in range(2):
        cache.once("rows", lambda: made.append(1))
    assert len(made) == 2


def test_within_the_block_it_is_made_once_and_after_it_afresh():
    made = []
    with cache.keeping():
        assert [cache.once("rows", lambda: made.append(1) or len(made)) for _ in range(3)] == [1, 1, 1]
    cache.once("rows", lambda: made.append(1))
    assert len(made) == 2


def test_another_mirror_is_another_thing(monkeypatch):
    with cache.keeping():
        monkeypatch.setenv("KLNORM_MIRROR", "one")
        cache.once("rows", lambda: "from one")
        monkeypatch.setenv("KLNORM_MIRROR", "two")
        assert cache.once("rows", lambda: "from two") == "from two"


def test_the_oldest_goes_first():
    with cache.keeping():
        for i in range(cache.ENTRIES + 1):
            cache.once(i, lambda i=i: i)
        assert cache.once(0, lambda: "again") == "again"
        assert cache.once(cache.ENTRIES, lambda: "again") == cache.ENTRIES
