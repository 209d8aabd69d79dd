"""The pages on sources: what they tell a user to write is accepted."""

import re
from pathlib import Path

import pytest
import yaml

from echosyn.data.ingest import ADAPTERS
from echosyn.data.phantom import PhantomConfig
from echosyn.runtime.config import SOURCES, Dataset, build

PAGES = sorted((Path(__file__).parents[2] / "docs/sources").glob("*.md"))
SIZES = {"train": 2, "val": 1, "test": 1}


def blocks(page):
    return [
        yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]


def entries(block):
    found = {**block, **(block.get("datasets") or {})}
    return {k: v for k, v in found.items() if isinstance(v, dict) and "source" in v}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_what_a_page_says_to_write_is_accepted(page):
    found = {name: e for block in blocks(page) for name, e in entries(block).items()}
    assert found
    for name, entry in found.items():
        dataset = build(Dataset, entry, name)
        build(ADAPTERS[dataset.source].Options, dataset.options, name)
    for block in blocks(page):
        for name, own in (block.get("phantoms") or {}).items():
            build(PhantomConfig, {**SIZES, **own}, name)


def test_every_source_has_a_page_and_an_adapter():
    named = {
        e["source"] for page in PAGES for block in blocks(page) for e in entries(block).values()
    }
    assert named == set(SOURCES) == set(ADAPTERS)
    index = (PAGES[0].parent / "README.md").read_text()
    for page in PAGES:
        assert page.name in index or page.name == "README.md"
