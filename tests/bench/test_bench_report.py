"""The files and the page of a benchmark; the page in a real browser where one is installed."""

import csv
import re
import shutil
import subprocess
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_results import TASKS, benchmark, failed, result
from rich.console import Console

from embodied.bench import bench_report
from embodied.bench.bench_report import write_bench_report
from embodied.bench.cells import Episode
from embodied.bench.tables.contenders import BASELINES, Contender
from embodied.bench.tables.figures import inks
from embodied.bench.tables.terminal import broken
from embodied.bench.video import write_video
from embodied.core.errors import MissingExtraError, UserError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REASON = "features are NaN & worse"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    results = [
        *benchmark(seeds=3),
        *(failed("hf:acme/<b>broken", task, seed, reason=REASON) for task in TASKS for seed in (0, 1)),
    ]
    filmed = next(each for each in results if each.cell.task == "hammer-v3" and each.cell.encoder == "default")
    write_video(folder / filmed.run / "videos" / "rollout.mp4", np.zeros((2, 16, 16, 3), np.uint8), 10)
    return write_bench_report(folder, results, "quick"), results


def shown(report, *, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(report.shown())
        return console.export_text()


def dump(page, *, fragment="", extra=""):
    """The DOM after scripts ran, and what the browser wrote to its log; `extra` is a script added to a copy."""
    if extra:
        page = page.with_name("copy.html")
        page.write_text(
            (page.parent / "report.html").read_text().replace("</body>", f"<script>{extra}</script></body>")
        )
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{page}#{fragment}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def encoders_of(dom, table):
    body = re.search(rf'id="{table}">.*?<tbody>(.*?)</tbody>', dom, re.DOTALL)[1]
    return re.findall(r'<td data-v="([^"]*)" class="name"', body)


def test_files(written):
    report, results = written
    names = {path.name for path in report.files if path.parent == report.page.parent}
    assert names == {"report.html", "results.csv", "episodes.csv", "results.tex", "results.parquet"}
    assert not report.notes
    with open(report.page.parent / "results.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(results)
    done = next(row for row in rows if row["encoder"] == "state" and row["status"] == "done")
    assert float(done["score"]) == float(done["success_rate"])
    assert float(done["seconds"]) == 43.0
    bad = next(row for row in rows if row["status"] == "failed")
    assert (bad["score"], bad["reason"]) == ("", REASON)
    with open(report.page.parent / "episodes.csv", newline="") as handle:
        assert sum(1 for _ in csv.DictReader(handle)) == sum(len(each.episodes) for each in results)


def test_parquet_holds_the_episodes(written):
    parquet = pytest.importorskip("pyarrow.parquet")
    report, results = written
    rows = parquet.read_table(report.page.parent / "results.parquet").to_pylist()
    assert len(rows) == len(results)
    done = next(row for row in rows if row["status"] == "done")
    assert len(done["episode_list"]) == 20
    assert np.mean([episode["score"] for episode in done["episode_list"]]) == pytest.approx(done["score"])


def test_without_pyarrow_the_rest_is_written(tmp_path, monkeypatch):
    def missing(path, results):
        raise MissingExtraError("pyarrow", "bench")

    monkeypatch.setattr(bench_report, "write_parquet", missing)
    report = write_bench_report(tmp_path, benchmark(seeds=2, variants=("static",)))
    assert "embodied-learning[bench]" in report.notes[0]
    assert "results.csv" in report.notes[0]
    assert not (tmp_path / "results.parquet").exists()
    assert "results.parquet" not in report.page.read_text()


def test_latex_is_escaped_and_whole(written):
    text = (written[0].page.parent / "results.tex").read_text()
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"hf:acme/<b>broken & mlp & -- &" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in lines}) == 1  # every line has as many cells
    assert "95\\,\\%" in text


def test_terminal_tables_name_failures_and_seeds(written):
    text = shown(written[0])
    assert "8 cells of hf:acme/<b>broken / mlp: features are NaN & worse" in text
    assert "Static scene" in text
    assert "Varied scene" in text
    assert "0123456789abcdef" in text
    assert "state (oracle)" in text


def test_a_narrow_terminal_gets_fewer_columns_and_whole_ones(written):
    narrow, wide = shown(written[0], width=80), shown(written[0], width=160)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    (heading, *_), (wider, *_) = ([line for line in text.splitlines() if "IQM," in line] for text in (narrow, wide))
    assert not any(name in heading for name in ("difference", "mean", "seeds"))
    assert all(name in wider for name in ("difference", "mean", "seeds"))


def test_many_tasks_get_several_tables_with_whole_words_and_numbers(tmp_path):
    tasks = [f"press-the-number-{number}-v3" for number in range(9)]
    report = write_bench_report(tmp_path, [result("default", task, rate=1.0) for task in tasks])
    for width, tables in ((80, 3), (200, 1)):
        text = shown(report, width=width).split("by task")[1]
        assert max(map(len, text.splitlines())) <= width
        assert text.count("encoder") == tables and text.count("100") == len(tasks)
        assert text.count("press-") == text.count("number-") == len(tasks)


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("hammer-v3", ["hammer-v3"]),
        ("button-press-topdown-v3 (25 demos)", ["button-", "press-", "topdown-", "v3 (25", "demos)"]),
        ("cheetah_run", ["cheetah_", "run"]),
        ("PickPlaceCanister", ["PickPlaceCanister"]),
    ],
)
def test_headings_break_between_words_and_parts_of_them(label, lines):
    assert broken(label).split("\n") == lines


def test_page_is_self_contained_and_escapes(written):
    page = written[0].page.read_text()
    assert "://" not in page
    assert "<b>broken" not in page
    assert "hf:acme/&lt;b&gt;broken" in page
    assert "features are NaN &amp; worse" in page
    assert "0123456789abcdef" in page
    assert page.count('class="play"') == 1  # the one video that is there
    assert "How to read this" in page


def test_learning_curves_have_a_band_where_there_are_seeds(tmp_path):
    for seeds in (1, 3):
        results = [result("state", TASKS[0], seed, rate=0.2 * (1 + seed)) for seed in range(seeds)]
        page = write_bench_report(tmp_path, results, "quick").page.read_text()
        (curves,) = re.findall(r"Learning curves, .*?</svg>", page, re.DOTALL)
        assert curves.count('class="curve"') == 1 and curves.count('class="dot"') == 4
        assert curves.count('class="band"') == (seeds > 1)


def test_charts_are_files_that_any_program_draws(tmp_path):
    cells = [
        result(encoder, task, seed, rate=0.1 * demos, demos=demos)
        for encoder in ("default", "pixels") for task in TASKS for seed in range(2) for demos in (2, 5)
    ]  # fmt: skip
    report = write_bench_report(tmp_path, cells)
    charts = {path.name: path for path in report.files if path.suffix == ".svg"}
    learning = {f"static_learning_{task}_{demos}_demos.svg" for task in TASKS for demos in (2, 5)}
    assert charts.keys() == {"static_profile.svg", "static_demonstrations.svg"} | learning
    for path in charts.values():
        text = path.read_text()
        assert path.parent == tmp_path / "figures" and "var(" not in text
        drawing = ElementTree.fromstring(text)
        words = [part.text for part in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert "default / mlp" in words and "pixels / mlp" in words
        colours = {group.get("color") for group in drawing.iter("{http://www.w3.org/2000/svg}g") if group.get("color")}
        assert colours == {"#2563eb", "#64748b"}


def test_page_of_a_single_seed_claims_no_interval(tmp_path):
    results = [result(encoder, task) for encoder in ("default", "pixels") for task in TASKS]
    page = write_bench_report(tmp_path, results).page.read_text()
    assert "one seed: no interval over seeds" in page
    assert "no interval: a single seed" in page
    assert "Rank stability" not in page


def test_chains_are_counted_by_tasks_in_a_row(tmp_path):
    """Of five tasks each: 2, 5, 0 and 2 done by one seed, 2, 2, 0 and 0 by the other."""
    results = [result(encoder, "mt10", seed, episodes=4) for encoder in ("default", "pixels") for seed in (0, 1)]
    for seed, lengths in enumerate([(2, 5, 0, 2), (2, 2, 0, 0)]):
        episodes = [Episode(seed=n, success=done == 5, score=done / 5, steps=9) for n, done in enumerate(lengths)]
        chained = result("default", "mt10", seed, variant="with:chain=5")
        results.append(replace(chained, episodes=episodes))
    report = write_bench_report(tmp_path, results, "language")
    page, terminal = report.page.read_text(), " ".join(shown(report).split())
    row = page[page.index("Tasks in a row") :]
    row = row[row.index("<td>default") :]
    assert [re.match(r"[\d.]+", part)[0] for part in row[: row.index("</tr>")].split("<td>")[3:]] == [
        "62",
        "62",
        "12",
        "12",
        "12",
        "1.62",
    ]
    assert "Tasks in a row: mt10 (chain=5)" in terminal and "1.62 [" in terminal
    assert page.count("Tasks in a row") == 1


def test_page_of_failures_alone(tmp_path):
    report = write_bench_report(tmp_path, [failed("default"), failed("pixels")])
    page = report.page.read_text()
    assert "no ranking" in page
    assert "the features are constant" in page
    assert "failed" in shown(report)


def test_nothing_is_written_of_mixed_protocols(tmp_path):
    with pytest.raises(UserError, match="cannot mix protocols"):
        write_bench_report(tmp_path, [result(), result(seed=1, protocol="ffff")])
    assert list(tmp_path.iterdir()) == []


def test_a_report_over_hundreds_of_cells_takes_seconds(tmp_path):
    results = benchmark(demos=(5, 25), seeds=4)
    assert len(results) > 500
    start = time.process_time()
    write_bench_report(tmp_path, results)
    assert time.process_time() - start < 8  # about 2.5 s


@needs_browser
def test_browser_opens_the_page_without_network_or_errors(written):
    script = 'document.title = "resources: " + performance.getEntriesByType("resource").length;'
    dom, log = dump(written[0].page, extra=script)
    assert "<title>resources: 0</title>" in dom
    assert log == []


@needs_browser
def test_browser_sorts_by_the_address(written):
    start = encoders_of(dump(written[0].page)[0], "static-ranking")
    assert start[0] == "state"
    dom, log = dump(written[0].page, fragment="sort=static-ranking:4:asc&theme=dark")
    found = encoders_of(dom, "static-ranking")
    assert found[0] == "proprioception"
    assert found[-2] == "state"
    assert found[-1].startswith("hf:acme/")  # what has no number stays last
    assert 'data-theme="dark"' in dom
    assert dom.count('<th scope="col" aria-sort="ascending">') == 1
    assert log == []


@needs_browser
def test_browser_sorts_by_click_opens_tasks_and_plays(written):
    script = """
      const heads = document.querySelectorAll("#varied-tasks th button");
      heads[0].click(); heads[0].click();
      document.querySelector("#static-tasks tbody a").click();
      document.querySelector("a.play").click();
      document.title = [location.hash, document.querySelectorAll("details.task[open]").length,
        document.querySelectorAll(".player:not([hidden]) video[src$='rollout.mp4']").length].join(" ");
    """
    dom, log = dump(written[0].page, extra=script)
    names = encoders_of(dom, "varied-tasks")
    assert names == sorted(names, reverse=True)
    title = re.search(r"<title>(.*?)</title>", dom)[1]
    assert title.startswith("#sort=varied-tasks:0:desc&amp;open=task-static-metaworld-assembly-v3-static-25")
    assert title.endswith(" 1 1")
    assert log == []


def test_greys_of_baselines_are_told_apart_by_dashes_unless_those_tell_controllers():
    alone = inks([Contender(name, "ppo") for name in (*BASELINES, "default")])
    dashes = {name: alone[Contender(name, "ppo")].dash for name in BASELINES}
    assert len({dashes[name] for name in ("scratch", "random", "pixels", "proprioception")}) == 4
    assert not dashes["state"] and not alone[Contender("default", "ppo")].dash
    several = inks([Contender(name, controller) for name in BASELINES for controller in ("mlp", "act")])
    assert len({several[Contender(name, "act")].dash for name in BASELINES}) == 1
    assert several[Contender("random", "act")].dash != several[Contender("random", "mlp")].dash
