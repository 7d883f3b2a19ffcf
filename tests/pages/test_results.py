"""The results page holds every outcome, its numbers are those of the records, and each row tells how to remake it."""

import json
import math
import re
import statistics
from collections import defaultdict

import pytest
from bs4 import BeautifulSoup
from scipy import stats

from klnorm_lib import study
from klnorm_lib.pages import results
from klnorm_lib.studies import record_files
from tests.pages import made


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("results") / "text.jsonl"
    file.write_text("".join(record.to_line() for record in made.study()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def page(path):
    return results.page([path])


@pytest.fixture(scope="module")
def rows(page):
    return BeautifulSoup(page, "html.parser").select(".results tbody tr")


def of(row, label):
    return row.select_one(f'td[data-label="{label}"]')


def test_every_cell_is_a_row_with_a_name_of_its_own(rows):
    assert len(rows) == 16
    assert len({row["id"] for row in rows}) == 16
    heads = [*results.COLUMNS, None]
    assert all([td.get("data-label") for td in row.select("td")] == heads for row in rows)


def test_a_row_shows_mean_spread_draws_difference_interval_and_verdict(rows):
    row = next(r for r in rows if r["id"] == "text-trec-200-e-klnorm_b")
    assert of(row, "score").get_text() == "0.560 ± 0.030 accuracy, 3 replicates"
    assert of(row, "minus baseline").get_text() == "+0.040 [+0.015, +0.065]"
    assert of(row, "verdict").get_text() == "▲ better *"
    assert of(row, "cost").get_text() == "6.0 s +25,000"
    details = row.select_one("details").get_text()
    assert "klnorm study text --remake trec/200/e/klnorm_b" in details
    assert "klnorm run --task trec --encoder e --method klnorm --size 200 --seed 0" in details
    assert "0/0: 0.530, 1/1: 0.560, 2/2: 0.590" in details
    assert "learning_rate 0.001; of 4 trials" in details


def test_baseline_has_no_difference_and_no_arm_is_in_bold(page, rows):
    row = next(r for r in rows if r["id"] == "text-trec-200-e-plain")
    assert of(row, "minus baseline").get_text() == of(row, "verdict").get_text() == "–"
    assert not BeautifulSoup(page, "html.parser").select("tbody b, tbody strong")


def test_runs_are_counted_and_failures_told(page):
    assert "**27 runs** stand behind this book, 1 of them failed." in page
    assert re.search(r"\| text \| 2 \| 27 \| 2 \| 25 \| 1 \|", page)
    assert "# text: the loss is nan\nklnorm run --task trec" in page


def test_studies_say_what_they_ask_and_those_of_the_engine_are_no_results(tmp_path):
    file = tmp_path / "both.jsonl"
    smoke = [made.record(arm, d, 0.5 + 0.1 * d, study="smoke") for arm in ("plain", "klnorm_b") for d in range(2)]
    text = [made.record(arm, d, 0.5 + 0.2 * d) for arm in ("plain", "klnorm_b") for d in range(2)]
    file.write_text("".join(r.to_line() for r in smoke + text), encoding="utf-8")
    page = results.page([file])
    assert "- **text**: Text with few labels. Does KL-Norm help" in page
    assert "| smoke | 1 | 4 |" in page
    assert 'id="text-trec-200-e-klnorm_b"' in page
    assert 'id="smoke-' not in page


def test_html_has_no_blank_line_that_would_end_it_in_markdown(page):
    start, end = page.index('<link rel="stylesheet"'), page.index("</script>")
    assert "\n\n" not in page[start:end]


def test_figure_says_in_words_what_it_shows(page):
    alt = BeautifulSoup(page, "html.parser").select_one("figure img")["alt"]
    assert "KL-Norm B: +4.0 percentage points [+2.2, +5.8], 1.20 times the time, 25,000 added parameters" in alt
    assert "mean of 2 tasks" in alt


def test_text_of_records_is_escaped():
    cells = made.study()
    for record in cells:
        record.study = {**record.study, "label": "<b>&"}
    text = results.table(results.outcomes(cells, "text"))
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_broken_records_stop_the_page(tmp_path):
    file = tmp_path / "broken.jsonl"
    file.write_text("{}\n")
    with pytest.raises(study.RecordError, match="line 1"):
        results.page([file])


def test_no_records_say_so():
    assert "No records" in results.page([])


@pytest.fixture(scope="module")
def lines():
    """The committed records as bare JSON by study and task, each once: finished final runs."""
    found = defaultdict(dict)
    for file in record_files():
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("study") and record["study"]["stage"] == "final" and record["status"] == "finished":
                where = record["study"]["name"], record["task"]["name"]
                found[where][record["study"]["arm"], record["hash"]] = record
    return {where: list(records.values()) for where, records in found.items()}


def test_numbers_of_the_book_follow_from_the_committed_lines(lines):
    """Worked out a second time, from the bare lines: mean, spread, replicates, mean difference and its interval."""
    page = BeautifulSoup(results.page(), "html.parser")
    checked = 0
    for row in page.select(".results tbody tr"):
        shown = {td["data-label"]: td for td in row.select("td[data-label]")}
        text = {label: td.get_text() for label, td in shown.items()}
        name, part = (text["study"].split(", ") + [None])[:2]
        split, encoder = (shown[label].get("data-value", text[label]) for label in ("tested on", "encoder"))
        size = text["labels"].replace(",", "")
        held = [r for r in lines.get((name, text["task"]), ()) if part in (None, r["study"]["part"])]
        held = [r for r in held if str(r["run"]["size"]) == size and r["encoder"]["name"] == encoder]
        ours = [r for r in held if r["study"]["label"] == text["method"]]
        scores = {draw(r): score(r, split) for r in ours if score(r, split) is not None}
        if not scores:
            continue
        checked += 1
        spread = f" ± {statistics.stdev(scores.values()):.3f}" if len(scores) > 1 else ""
        assert text["score"].startswith(f"{statistics.fmean(scores.values()):.3f}{spread} "), row["id"]
        assert f"{len(ours)} replicate" in text["score"], row["id"]
        told = re.match(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]", text["minus baseline"])
        plain = {draw(r): score(r, split) for r in held if r["study"]["arm"] == "plain"}
        shared = [scores[d] - plain[d] for d in scores if plain.get(d) is not None]
        if told and len(shared) > 1 and "to " not in text["minus baseline"]:
            mean, low, high = map(float, told.groups())
            assert mean == pytest.approx(statistics.fmean(shared), abs=6e-4), row["id"]
            half = stats.t.ppf(0.975, len(shared) - 1) * statistics.stdev(shared) / math.sqrt(len(shared))
            assert high - low >= 2 * half - 2e-3, row["id"]  # the error of the test rows may only widen it
    assert checked or not lines


def draw(record):
    return record["run"]["split_seed"], record["run"]["seed"]


def score(record, split):
    metric = record["task"]["primary_metric"]
    if split == "test":
        return record["test"].get(metric)
    return record["ood"].get(split.removeprefix("ood/"), {}).get(metric)
