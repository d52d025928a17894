"""What a release says of itself: on the package index, to tools that look for parts with known faults, to CI."""

from __future__ import annotations

import json
import re
from importlib.metadata import files
from pathlib import Path

import pytest

import clr_native

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = re.compile(r"https://[\w.]+/clr-native/clr-native/(?:blob/|tree/)?main/")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))  # the source distribution has none


def targets(markdown: str) -> list[str]:
    """Where the links of a page lead to, those in the text and those at its end."""
    found = re.findall(r"\]\(([^)]+)\)|^\[[^\]]+\]: (\S+)", markdown, flags=re.MULTILINE)
    return [inline or below for inline, below in found]


def test_the_package_index_can_follow_every_link_of_the_readme() -> None:
    assert targets(README)
    assert [target for target in targets(README) if not target.startswith("https://")] == []
    named = set(re.findall(r"\[([^\]]+\.md)\](?!\(|:)", README))
    assert named <= set(re.findall(r"^\[([^\]]+)\]:", README, flags=re.MULTILINE))


@pytest.mark.parametrize("target", [target for target in targets(README) if OURS.match(target)])
def test_a_link_of_the_readme_leads_to_a_file(target: str) -> None:
    path, _, heading = OURS.sub("", target).partition("#")
    if path.startswith("bench/results/") and not WORKFLOWS:
        pytest.skip(f"{path} is left out of the source distribution, in which these tests run too")
    assert (ROOT / path).exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in {title.lower().replace(" ", "-") for title in titles}


def test_the_package_says_what_is_compiled_in() -> None:
    (path,) = [path for path in files("clr-native") or [] if path.match("*.dist-info/sboms/*.cdx.json")]
    document = json.loads(path.read_text(encoding="utf-8"))
    parts = {part["name"]: part["version"] for part in document["components"]}
    assert document["metadata"]["component"]["version"] == clr_native.__version__
    assert parts.keys() - {"cuda-nvcc"} == {"pybind11", "dlpack"}
    assert ("cuda-nvcc" in parts) == clr_native.build_info()["cuda"]["compiled"]
    assert all(re.fullmatch(r"\d+(\.\w+)+", version) for version in parts.values()), parts


def test_what_a_workflow_uses_has_a_version() -> None:
    if not WORKFLOWS:
        pytest.skip("chores are left out of the source distribution, in which these tests run too")
    used = re.findall(r"uses: (\S+)", "".join(file.read_text(encoding="utf-8") for file in WORKFLOWS))
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action)] == []
