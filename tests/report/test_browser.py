"""The page in a real browser: headless Chromium, which CI installs; without it these tests are skipped."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from common.report import page as pages
from common.report import plots, tables
from common.results import claims, compare
from common.results.long import Baselines
from common.runs.session import Results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SCREEN, NARROW, SCREENS = (1300, 900), 400, 10
HOSTILE = '<img src="x" onerror="top.hacked=1"><script>top.hacked=1</script>'
REPORTS, VERDICTS = ("bertpp", "gu", "siar"), ("reproduced", "contradicted", "inconclusive")
# Looks at the page, as it is, in a frame of each width, and leaves what it finds in its own body.
LOOK = """<!doctype html><title>look</title>{frames}<script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map((frame) => {{
    const page = frame.contentDocument, root = page.documentElement, all = (what) => [...page.querySelectorAll(what)];
    const shown = () => all("#claims tbody tr").filter((line) => line.offsetHeight > 0).map((line) => line.id);
    const height = root.scrollHeight, sideways = root.scrollWidth - root.clientWidth, filters = {{}};
    for (const button of all("#claims input[id]")) {{
      button.click();
      filters[button.parentNode.textContent.trim()] = shown();
      all(`input[name=${{button.name}}]`)[0].click();
    }}
    const both = ["#report-1", "#verdict-2"].map((name) => page.querySelector(name));
    both.forEach((button) => button?.click());
    filters.both = shown();
    const seeds = () => all("#runs tbody tr").map((line) => line.cells[3].textContent);
    const sort = page.querySelectorAll("#runs thead button")[3];
    const orders = sort ? [0, 1].map(() => (sort.click(), seeds())) : [];
    return {{
      height, sideways, filters, orders,
      dead: all("a[href^='#']").map((a) => a.hash.slice(1)).filter((name) => !page.getElementById(name)),
      requests: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
      planted: all("img[src=x], td script, th script, figcaption script, summary script, li script").length,
    }};
  }});
  document.body.dataset.found = JSON.stringify({{ found, hacked: window.hacked ?? 0 }});
}});
</script>"""


def look(page: Path, folder: Path, *widths: int) -> tuple[dict, list[str]]:
    """What the browser finds on a page at each width, and what it writes to its console."""
    frame = '<iframe src="{}" style="width:{}px;height:{}px;border:0"></iframe>'
    frames = "".join(frame.format(page.as_uri(), width, SCREEN[1]) for width in widths)
    (folder / "look.html").write_text(LOOK.format(frames=frames), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=1400,1000"]
    options += [f"--user-data-dir={folder / 'browser'}", "--dump-dom", (folder / "look.html").as_uri()]
    done = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stdout[:500] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def ledger(size: int) -> pd.DataFrame:
    """A ledger of that many claims; every one of its texts is hostile."""
    lines = [
        {name: HOSTILE for name in ("statement", "decided_by", "section", "topic", "leaning")}
        | {"claim": f"{REPORTS[n % 3]}_c{n:02d}", "report": REPORTS[n % 3], "verdict": VERDICTS[n // 3 % 3]}
        | {"estimate": 0.1, "low": 0.05, "high": 0.15, "clear_by": 0.05, "seeds": 3, "runs": "away-s0"}
        | {"topic": f"method {n} {HOSTILE}", "contaminated": False}
        for n in range(size)
    ]
    return pd.DataFrame(lines).reindex(columns=claims.LEDGER)


@pytest.fixture
def page(lab: SimpleNamespace, results: dict) -> Path:
    """A page as long as that of a whole study."""
    against = Baselines({}, Results())
    table, frame = compare.comparison(results, against), compare.bars(results, against)
    table["", "model"] = table[HOSTILE, HOSTILE] = HOSTILE
    runs = [record.run_id for result in results.values() for record in result.records]
    tables.save(lab, "00_hostile", table, f"A table {HOSTILE}. More of it.")
    plots.save(lab, "00_hostile", plots.hole(), frame, f"A figure {HOSTILE}. More of it.", runs)
    tables.save(lab, "00_table", table, "Dev metrics of every model of a table, as reported and here. More of it.")
    plots.save(lab, "00_figure", plots.hole(), frame, "Dev metrics per model: bars and dots are ours. More.", runs)
    for path in [*lab.places.tables.glob("00_table.*"), *lab.places.figures.glob("00_figure.*")]:
        copies = 17 if "table" in path.name else 6
        for name in [f"0{notebook}_{path.stem[3:]}{n}" for notebook in range(7) for n in range(copies)]:
            shutil.copy(path, path.with_name(name + path.suffix))
    tables.save(lab, "06_scoreboard", pd.concat([table] * 25), "All rows.")
    tall, _ = plots.panels(1, 1, 14.4, 21)  # as large as what each method adds in five reports
    plots.save(lab, "06_methods", tall, frame, "What each method adds.", runs)
    ledger(139).to_csv(lab.places.results / claims.FILE, index=False)
    return pages.write(lab.places)


def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    both, console = look(page, tmp_path, SCREEN[0], NARROW)
    assert console == [] and both["hacked"] == 0
    wide, narrow = both["found"]
    assert wide["height"] <= SCREENS * SCREEN[1], f"{wide['height'] / SCREEN[1]:.1f} screens"
    assert wide["sideways"] == narrow["sideways"] == 0
    for found in (wide, narrow):
        assert found["dead"] == [] and found["planted"] == 0
        assert all(name.startswith("file://") for name in found["requests"])
    frame = ledger(139)
    for column, values in (("report", REPORTS), ("verdict", VERDICTS)):
        for value in values:
            assert wide["filters"][value] == frame.loc[frame[column] == value, "claim"].tolist(), value
    both_chosen = (frame["report"] == REPORTS[0]) & (frame["verdict"] == VERDICTS[1])
    assert wide["filters"]["both"] == frame.loc[both_chosen, "claim"].tolist() != []
    up, down = wide["orders"]
    assert up == sorted(up, key=float) == down[::-1] and len(set(up)) > 1


def test_the_browser_sees_what_the_page_must_not_have(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    far, wide = '<img src="https://example.org/x.png">', '<div style="width:900px;height:20000px">x</div>'
    bad.write_text(f"<!doctype html>{far}{wide}<a href='#no'>x</a>{HOSTILE}<script>no()</script>", encoding="utf-8")
    found, console = look(bad, tmp_path, NARROW)
    (seen,) = found["found"]
    assert seen["height"] > SCREENS * SCREEN[1] and seen["sideways"] > 0 and seen["dead"] == ["no"]
    assert found["hacked"] == seen["planted"] == 1 and console
    assert "https://example.org/x.png" in seen["requests"]
