"""The results page in a browser, from a file: it sorts, filters and opens rows, and without scripts it is whole."""

import json
import shutil
import subprocess

import latex
import pytest
from bs4 import BeautifulSoup

from klnorm_lib.pages import results
from klnorm_lib.pages.outcomes import outcomes
from tests.book import ROOT
from tests.pages import made

BROWSER = next(filter(None, map(shutil.which, latex.BROWSERS)), None)
# What a reader does, step by step; after each, the rows that are shown, in their order, and what the page says.
VISIT = """
addEventListener("load", () => setTimeout(() => {
  const seen = [];
  const look = (what) => seen.push({
    what,
    rows: [...document.querySelectorAll(".results tbody tr")].filter((r) => !r.hidden).map((r) => r.id),
    told: document.querySelector(".results-count").textContent,
    sorted: [...document.querySelectorAll("th[aria-sort]")].map((h) => `${h.dataset.key} ${h.ariaSort}`),
    open: [...document.querySelectorAll(".results tr:has(details[open])")].map((r) => r.id),
  });
  const box = document.querySelector(".results-controls");
  const choose = (name, value) => {
    const control = box.elements.namedItem(name);
    control.value = value;
    control.dispatchEvent(new Event("input", { bubbles: true }));
    control.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const head = (key) => document.querySelector(`th[data-key="${key}"] button`);
  look("start");
  head("minus baseline").click(); look("largest first");
  head("minus baseline").click(); look("smallest first");
  choose("method", "KL-Norm B"); look("filtered");
  choose("words", "trec"); look("words");
  choose("method", ""); choose("words", ""); choose("task", "sst2"); choose("verdict", "worse"); look("two filters");
  location.hash = "#text-trec-200-e-klnorm_b";
  setTimeout(() => {
    look("linked");
    const names = [...document.querySelectorAll(".results-controls :is(select, input)")].map((c) => c.labels.length);
    document.body.innerHTML = "<pre id=seen></pre>";
    document.getElementById("seen").textContent = JSON.stringify({ seen, names });
  }, 200);
}, 100));
"""


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """A page at its place beside the script and the style sheet; returns what a browser makes of it."""
    folder = tmp_path_factory.mktemp("html")
    (folder / "_static").mkdir()
    (folder / "book").mkdir()
    for name in ("results.js", "results.css"):
        shutil.copy(ROOT / "book/_static" / name, folder / "_static")
    found = [outcome for outcome in outcomes(made.study(), "text") if outcome.split == "test"]
    table = results.table(found)

    def open_page(script, query=""):
        path = folder / "book/results.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{table}<script>{script}</script>", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
        flags += ["--virtual-time-budget=20000", f"--user-data-dir={folder}/profile"]
        command = [BROWSER, *flags, path.as_uri() + query]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        return BeautifulSoup(dom.stdout, "html.parser")

    return open_page


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_table_sorts_filters_and_opens_rows(visit):
    told = json.loads(visit(VISIT).select_one("#seen").get_text())
    steps = {step["what"]: step for step in told["seen"]}
    every = [
        f"text-{task}-200-e-{arm}" for task in ("trec", "sst2") for arm in ("plain", "layernorm", "klnorm_b", "vib")
    ]
    assert steps["start"]["rows"] == every
    assert steps["start"]["told"] == "8 of 8 results shown."
    arms = [row.split("-")[-1] for row in steps["largest first"]["rows"]]
    assert arms == ["klnorm_b"] * 2 + ["layernorm"] * 2 + ["vib"] * 2 + ["plain"] * 2  # no difference comes last
    assert steps["largest first"]["sorted"] == ["minus baseline descending"]
    arms = [row.split("-")[-1] for row in steps["smallest first"]["rows"]]
    assert arms == ["vib"] * 2 + ["layernorm"] * 2 + ["klnorm_b"] * 2 + ["plain"] * 2
    assert steps["smallest first"]["sorted"] == ["minus baseline ascending"]
    assert {row.split("-")[-1] for row in steps["filtered"]["rows"]} == {"klnorm_b"}
    assert steps["words"]["rows"] == ["text-trec-200-e-klnorm_b"]
    assert steps["words"]["told"] == "1 of 8 results shown."
    assert steps["two filters"]["rows"] == ["text-sst2-200-e-vib"]
    assert "text-trec-200-e-klnorm_b" in steps["linked"]["rows"]
    assert steps["linked"]["open"] == ["text-trec-200-e-klnorm_b"]
    assert set(told["names"]) == {1}  # every control has its label


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_an_address_may_name_filters(visit):
    page = visit("", "?task=trec&verdict=better")
    shown = [row["id"] for row in page.select(".results tbody tr") if not row.has_attr("hidden")]
    assert shown == ["text-trec-200-e-klnorm_b"]


def test_without_scripts_every_row_is_there_and_named():
    page = BeautifulSoup(results.table(outcomes(made.study(), "text")), "html.parser")
    rows = page.select("tbody tr")
    assert len(rows) == 16
    assert not [row for row in rows if row.has_attr("hidden") or not row.select_one("summary")]
    assert page.select_one("caption").get_text().startswith("16 results.")
    assert len(page.select("th[scope=col]")) == len(results.COLUMNS) + 1


def test_page_needs_no_other_machine():
    for name in ("results.js", "results.css"):
        text = (ROOT / "book/_static" / name).read_text(encoding="utf-8")
        assert "//" not in text.replace("// ", "")
    assert "http" not in results.table([])
