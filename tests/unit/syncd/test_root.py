import fcntl
import os
import pathlib
import struct
import subprocess
import sys

import pytest

from relayfile.errors import MirrorRefused
from relayfile.syncd import descriptors
from relayfile.syncd.descriptors import Directories
from relayfile.syncd.root import Marker, Root, RootLost, create_root, remove_tree

MARKER = Marker("m1", "acme")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    mirror = tmp_path / "mirror"
    create_root(str(mirror), MARKER, adopt_existing=False)
    return mirror


def refused(path: object, *, adopt: bool = False) -> str:
    with pytest.raises(MirrorRefused) as caught:
        create_root(str(path), MARKER, adopt_existing=adopt)
    return str(caught.value)


def test_i1_only_an_empty_or_marked_directory_becomes_a_root(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("keep")
    assert "ROOT_NOT_DIRECTORY" in refused(file)
    assert "ROOT_IS_SYMLINK" in refused(link)
    assert "ROOT_NOT_EMPTY" in refused(full)
    assert os.listdir(full) == ["mine"]
    create_root(str(full), MARKER, adopt_existing=True)
    assert (full / "mine").read_text() == "keep"


def test_i1_another_mirrors_directory_is_refused(path: pathlib.Path) -> None:
    with pytest.raises(MirrorRefused, match="ROOT_OF_OTHER_MIRROR"):
        create_root(str(path), Marker("m2", "acme"), adopt_existing=True)
    with pytest.raises(RootLost) as caught:
        Root.open(str(path), Marker("m1", "other"))
    assert caught.value.reason == "ROOT_OF_OTHER_WORKSPACE"


def test_i1_a_missing_replaced_or_unmarked_root_is_noticed(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    root.check()
    aside = path.with_name("aside")
    path.rename(aside)
    with pytest.raises(RootLost) as missing:
        root.check()
    path.mkdir()
    with pytest.raises(RootLost) as replaced:
        root.check()
    path.rmdir()
    aside.rename(path)
    (path / ".relayfile" / "mirror.json").unlink()
    with pytest.raises(RootLost):
        root.check()
    root.close()
    assert (missing.value.reason, replaced.value.reason) == ("ROOT_MISSING", "ROOT_REPLACED")


def test_i1_a_marker_that_becomes_another_s_is_noticed(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    marker = path / ".relayfile" / "mirror.json"
    ours = marker.read_text()
    marker.write_text(ours.replace("acme", "evil"))
    with pytest.raises(RootLost) as other:
        root.check()
    marker.write_text("{")
    with pytest.raises(RootLost) as garbage:
        root.check()
    marker.write_text(ours)
    root.check()
    root.close()
    assert (other.value.reason, garbage.value.reason) == ("ROOT_OF_OTHER_WORKSPACE", "ROOT_MISSING")


def test_i10_no_mirror_lies_in_another(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (path / "below").mkdir()
    assert "ROOT_IN_OTHER_MIRROR" in refused(path / "below" / "mirror")
    assert not (path / "below" / "mirror").exists()
    (tmp_path / "link").symlink_to(path / "below")
    assert "ROOT_IN_OTHER_MIRROR" in refused(tmp_path / "link" / "mirror")


@pytest.mark.parametrize("with_openat2", [True, False])
def test_i2_no_directory_is_reached_over_a_link(
    path: pathlib.Path, tmp_path: pathlib.Path, with_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(descriptors._openat2_state, "usable", with_openat2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (path / "a").mkdir()
    (path / "a" / "evil").symlink_to(outside)
    root = Root.open(str(path), MARKER)
    with Directories(root.fd) as directories:
        for relative in ("a/evil", "a/evil/x", "../outside", "a/../../outside", "/etc", "a//b", "./a"):
            with pytest.raises(OSError, match=r"root|symbolic|directory"):
                directories.make(relative)
        assert directories.make("a/b/c") == directories.get("a/b/c")
    root.close()
    assert os.listdir(outside) == []


def test_i2_a_file_is_made_anew_never_written_through_a_link(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (path / "soft").symlink_to(victim)
    (path / "hard").hardlink_to(victim)
    root = Root.open(str(path), MARKER)
    for name in ("soft", "hard"):
        descriptors.create(root.fd, name, b"new")
        assert (path / name).read_bytes() == b"new"
    root.close()
    assert victim.read_text() == "precious"


def test_directories_stay_within_their_bound(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    with Directories(root.fd, open_max=4) as directories:
        for index in range(20):
            directories.make(f"d{index}/e")
        assert len(directories._open) == 4
    root.close()
    assert len(os.listdir(path)) == 21


def test_rename_never_replaces_by_accident(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    descriptors.create(root.fd, "a", b"1")
    descriptors.create(root.fd, "b", b"2")
    with pytest.raises(FileExistsError):
        descriptors.move_if_absent(root.fd, "a", root.fd, "b")
    assert descriptors.exchange(root.fd, "a", root.fd, "b")
    assert descriptors.read(root.fd, "b", 10) == b"1"
    descriptors.barrier(root.fd)
    root.close()


def test_i10_one_process_works_on_a_root(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    script = (
        "import sys; from relayfile.syncd.root import Root, Marker; from relayfile.errors import MirrorRefused\n"
        f"try: Root.open({str(path)!r}, Marker('m1', 'acme'))\nexcept MirrorRefused as e: print(e)\n"
    )
    second = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in second.stdout
    root.close()
    # A lock file that a dead process left is no lock.
    assert (path / ".relayfile" / "lock").read_text().strip() == str(os.getpid())
    Root.open(str(path), MARKER).close()


def test_remove_tree_follows_no_link(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    (path / "d" / "e").mkdir(parents=True)
    (path / "d" / "e" / "link").symlink_to(outside)
    root = Root.open(str(path), MARKER)
    remove_tree(root.fd, "d")
    root.close()
    assert (outside / "keep").exists()
    assert not (path / "d").exists()


def test_a_staged_tree_lies_apart_where_the_file_system_knows_how(path: pathlib.Path) -> None:
    root = Root.open(str(path), MARKER)
    try:
        heard = descriptors.place_apart(root.staging_fd)
        try:
            (flags,) = struct.unpack("I", fcntl.ioctl(root.staging_fd, descriptors._GET_FLAGS, bytes(4)))
        except OSError:
            flags = 0  # no such flags on this file system: then the wish must not have been heard, and nothing broke
        descriptors.create(root.staging_fd, "file", b"x")
    finally:
        root.close()
    assert bool(flags & descriptors._TOP_DIRECTORY) is heard
    assert (path / ".relayfile" / "staging" / "file").read_bytes() == b"x"


def test_a_file_system_without_the_wish_is_left_as_it_is() -> None:
    proc = os.open("/proc/self", os.O_RDONLY)
    try:
        assert not descriptors.place_apart(proc)
    finally:
        os.close(proc)
