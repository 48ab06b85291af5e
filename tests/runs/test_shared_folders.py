"""Folders that several jobs want."""

import threading
import time
from pathlib import Path

import pytest

from lightning_prune.runs.shared_folders import make_shared_folder


def test_of_jobs_at_once_one_makes_the_folder_and_the_others_wait_until_it_is_whole(tmp_path):
    makers: list[Path] = []
    seen: list[tuple[bool, str]] = []

    def make(part: Path) -> None:
        makers.append(part)
        (part / "file").write_text("half")
        time.sleep(0.2)
        (part / "file").write_text("whole")

    def job() -> None:
        made = make_shared_folder(tmp_path / "below" / "key", make)
        seen.append((made, (tmp_path / "below" / "key" / "file").read_text()))

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()

    assert len(makers) == 1
    assert sorted(seen) == [(False, "whole")] * 3 + [(True, "whole")]
    assert not makers[0].exists()


def test_a_job_goes_on_where_another_was_stopped(tmp_path):
    def stopped(part: Path) -> None:
        (part / "file").write_text("half")
        raise KeyboardInterrupt

    def make(part: Path) -> None:
        (part / "file").write_text((part / "file").read_text() + " and half")

    with pytest.raises(KeyboardInterrupt):
        make_shared_folder(tmp_path / "key", stopped)
    assert not (tmp_path / "key").exists()
    assert make_shared_folder(tmp_path / "key", make)
    assert (tmp_path / "key" / "file").read_text() == "half and half"
    assert not make_shared_folder(tmp_path / "key", stopped)
