"""What files share: the order in which they are handed to workers, and one small encoder and one file of rows."""

import pytest

# Of ten seconds and more: begun last, one of these would keep one worker busy while the other waits.
LONGEST = (
    "tests/sweep/test_engines.py",
    "tests/test_own_script.py",
    "tests/methods/test_common.py",
    "tests/methods/test_new_method.py",
    "tests/study/test_stats_coverage.py",
    "tests/study/test_run.py",
    "tests/pretraining/test_speech_pretrain.py",
    "tests/study/test_hash.py",
    "tests/study/test_setfit.py",
    "tests/pages/test_results.py",
)


def pytest_collection_modifyitems(config, items):
    """The longest files first; the order within a file stays."""
    if gone := [name for name in LONGEST if not (config.rootpath / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py puts {', '.join(gone)} first, which is not there")
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))


# Imported late: the process that only hands out the files has no need of torch.
@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    from tests.study import small

    return small.encoder(tmp_path_factory.mktemp("encoder") / "small")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    from tests.study import small

    return small.csv(tmp_path_factory.mktemp("data") / "reviews.csv")
