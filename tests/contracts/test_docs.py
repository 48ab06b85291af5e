"""Each page of docs/ has one command, and it does what the page says from an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_the_command_of_a_page_runs(page: str, tmp_path: Path) -> None:
    (command,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-ec", command],
        cwd=tmp_path,
        env=environment(PATH=programs),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Error" not in result.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / "docs" / link).exists(), link


def test_the_readme_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert PAGES
    assert [page for page in PAGES if f"docs/{page}" not in readme] == []
