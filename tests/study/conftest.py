"""One small encoder and one file for all tests of a session."""

import pytest

from tests.study import small


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return small.encoder(tmp_path_factory.mktemp("encoder") / "small")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    return small.csv(tmp_path_factory.mktemp("data") / "reviews.csv")
