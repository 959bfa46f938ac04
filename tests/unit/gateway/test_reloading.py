"""Files that are followed: what changes, what does not, and what is told of it."""

import pytest
import structlog

from gateway.identity.reloading import FollowedFiles
from runtime.errors import SettingError


class Followed:
    """Two files, what was taken of them, and what was logged. Contents with `bad` in them are refused."""

    def __init__(self, folder) -> None:
        self.paths = [folder / "one", folder / "two"]
        self.taken = []
        self.write("1", "2")
        self.files = FollowedFiles(self.paths, self.apply)

    def write(self, *texts):
        for path, text in zip(self.paths, texts, strict=True):
            path.write_text(text)

    def apply(self, contents):
        if b"bad" in contents:
            raise SettingError("it is bad")
        self.taken.append(b"".join(contents).decode())

    def refresh(self) -> list[str]:
        """The errors that were told, or `in use`."""
        with structlog.testing.capture_logs() as logs:
            self.files.refresh()
        return [line.get("error", "in use") for line in logs]


@pytest.fixture
def followed(tmp_path):
    return Followed(tmp_path)


def test_what_does_not_change_is_taken_once(followed):
    assert followed.refresh() == []
    followed.write("1", "2")
    assert followed.refresh() == []
    assert followed.taken == ["12"]


def test_a_change_of_any_file_is_taken_with_all_of_them(followed):
    followed.write("1", "3")
    assert followed.refresh() == ["in use"]
    assert followed.taken == ["12", "13"]


def test_a_bad_change_is_told_once_and_what_was_before_stays(followed):
    followed.write("1", "bad")
    assert followed.refresh() == ["it is bad"]
    assert followed.refresh() == []
    assert followed.taken == ["12"]
    followed.write("1", "4")
    assert followed.refresh() == ["in use"]
    assert followed.taken == ["12", "14"]


def test_the_same_bad_change_after_a_good_one_is_told_again(followed):
    for text, told in (("bad", "it is bad"), ("2", "in use"), ("bad", "it is bad")):
        followed.write("1", text)
        assert followed.refresh() == [told]


def test_a_missing_file_is_a_bad_change(followed):
    followed.paths[1].unlink()
    assert followed.refresh() == [f"{followed.paths[1]}: No such file or directory"]
    assert followed.refresh() == []
    assert followed.taken == ["12"]


def test_at_the_start_a_bad_or_missing_file_is_refused(tmp_path, followed):
    for contents, reason in (("bad", "it is bad"), (None, "No such file")):
        followed.paths[0].unlink() if contents is None else followed.paths[0].write_text(contents)
        with pytest.raises(SettingError, match=reason):
            FollowedFiles(followed.paths, followed.apply)
