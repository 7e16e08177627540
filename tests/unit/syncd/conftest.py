"""An opened directory of a mirror, for tests of what is done in one without a journal."""

import pathlib
from collections.abc import Iterator

import pytest

from relayfile.syncd.root import Marker, Root, create_root


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[Root]:
    marker = Marker("m1", "acme")
    create_root(str(tmp_path / "mirror"), marker, adopt_existing=False)
    root = Root.open(str(tmp_path / "mirror"), marker)
    yield root
    root.close()


@pytest.fixture
def mirror(root: Root) -> pathlib.Path:
    return pathlib.Path(root.path)
