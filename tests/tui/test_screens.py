"""The eight screens over a recorded catalogue: what they say, at every size, in both themes, without colours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semid_daemon.config import Config
from semid_daemon.store.read.monitor import MonitorReader
from semid_daemon.store.write.store import Store
from tests.tui.recorded import CODES, ITEMS, Looking, ago, configured, execute, look

SIZES = [(60, 18), (80, 24), (120, 35), (160, 45)]
# What each screen must say at any size.
SAYS = {
    1: ["loss · run 1 · step 1,200", "encoding", "items-b.parquet", "codebooks g2", "L1", "files", "events"],
    2: ["loss · run 1", "run 1 (1 of 1) · all layers", "first", "least"],
    3: ["codes · g2", "coverage", "dead", "most used", "code 0 of layer 0"],
    4: ["files · by newest", "rejected 2", "✗ rejected", "▸ loading", "disk.npz"],
    5: ["lookup", "12-250-*", "the items of a semantic ID"],
    6: ["tree · g2", "▸ "],
    7: ["generations", "g2", "active", "g1", "retired", "fingerprint"],
    8: ["events", "ERRO", "commands", "retry", "done"],
}


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_every_screen_at_every_size(recorded: Config, size: tuple[int, int]):
    async def script(see: Looking) -> None:
        for number, says in SAYS.items():
            await see.press("escape", str(number))
            text = await see.sees(*says)
            lines = text.splitlines()
            assert len(lines) == size[1]
            assert all(len(line) <= size[0] for line in lines)
            assert re.match(r"semid ● \d", lines[0]), lines[0]
            assert "\x1b" not in text
            assert "Traceback" not in text

    look(recorded, script, size)


@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
def test_the_overview_in_both_themes(recorded: Config, light: bool):
    async def script(see: Looking) -> None:
        text = await see.sees("loss · run 1", "codebooks g2", "××", "↻ disk.npz")
        assert "L0 100.0% dead  0" in text
        assert re.search(r"L1  62\.5% dead  6 ppl .*×{2,}", text)  # the dead share, at the end of the profile
        assert "100/1,000 rows" in text
        assert "48.1k rows/s" in text
        assert "1m30s" in text
        before = dict(see.app.palette)
        await see.press("t")
        await see.until(lambda: see.app.palette != before)
        strips = see.app.screen._compositor.render_strips()
        colours = {
            segment.style.color.name for strip in strips for segment in strip if segment.style and segment.style.color
        }
        old = {style.color.name for style in before.values() if style.color}
        new = {style.color.name for style in see.app.palette.values() if style.color}
        assert colours & new
        assert not colours & (old - new)  # no strip keeps a colour of the old theme

    look(recorded, script, light=light)


def test_no_color_leaves_glyphs(recorded: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(see: Looking) -> None:
        for number in ("1", "3", "4"):
            await see.press(number)
            await see.sees(*SAYS[int(number)])
            filters = see.app.get_line_filters()
            for strip in see.app.screen._compositor.render_strips():
                for line_filter in filters:
                    strip = strip.apply_filter(line_filter, see.app.screen.styles.background)
                for segment in strip:
                    colours = (segment.style.color, segment.style.bgcolor) if segment.style else ()
                    assert all(colour is None or colour.is_default for colour in colours)
        await see.press("3", "right_square_bracket")
        await see.sees("×")

    look(recorded, script)


@pytest.mark.parametrize("marker", ["ascii", "block"])
def test_other_markers(recorded: Config, marker):
    async def script(see: Looking) -> None:
        for number in SAYS:
            await see.press("escape", str(number))
            await see.until(lambda: "reading" not in see.text)
            await see.pilot.pause(0.1)
            body = "\n".join(see.text.splitlines()[2:-1])
            unusual = set(re.sub(r"[\x20-\x7e\n]", "", body))
            if marker == "ascii":
                # Words keep their dots and arrows; nothing is drawn with them.
                assert unusual <= set("·→←…▼▲“”×Ünïデータ↑↓✓⏎–"), (number, unusual)
            assert not any("\u2800" <= character <= "\u28ff" for character in unusual)

    look(recorded, script, marker=marker)


def test_badge_and_age_come_first_down_to_60_columns(recorded: Config):
    async def script(see: Looking) -> None:
        await see.sees("codebooks")
        assert re.match(r"semid RO ● \d\.\ds ENCODE g2 48\.1k/s ETA 38m10s", see.text)
        await see.press("p")
        await see.sees("semid RO FROZEN ●")

    look(recorded, script, (60, 18), readonly=True)


@pytest.mark.parametrize(
    ("age_s", "state", "says"),
    [
        (12, "encoding", r"semid ▲ 1\ds old ENCODING"),
        (95, "encoding", r"semid ▲ daemon silent 1m3\ds was ENCODING"),
        (95, "stopped", r"semid ○ STOPPED 1m3\ds ago"),
    ],
)
def test_old_data_never_looks_live(recorded: Config, age_s: float, state: str, says: str):
    execute(recorded, "UPDATE _daemon SET heartbeat_at = ?, state = ?", ago(age_s), state)

    async def script(see: Looking) -> None:
        await see.sees("codebooks g2", "events")
        status = see.text.splitlines()[0]
        assert re.match(says, status), status
        assert "48.1k/s" not in status
        assert "ETA" not in status
        if age_s > 30:
            assert "rows/s" not in see.text

    look(recorded, script)


def test_what_changes_appears(recorded: Config):
    async def script(see: Looking) -> None:
        await see.sees("rejected 2")
        with Store(recorded.database) as store:
            store.files.reject(store.files.record_sighting("worse.npz", "sig", "x", 10).id, "no vectors")
            store.telemetry.add_events([("info", "something new")])
            await see.sees("rejected 3", "worse.npz", "something new")
            await see.press("p")
            await see.sees("FROZEN")
            store.telemetry.add_events([("info", "something newer")])
            await see.pilot.pause(0.3)
            assert "something newer" not in see.text
            await see.press("p")
            await see.sees("something newer")

    look(recorded, script)


def test_train_layers_window_log_crosshair(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("2")
        await see.sees("┊L1", "┊L2", "all layers · all steps")
        await see.press("right_square_bracket")
        text = await see.sees("layer 0 · all steps", "step 400 · smoothed")
        assert "┊" not in text
        await see.press("l")
        await see.sees("· log")
        await see.press("z", "z", "z")
        await see.sees("last 100 steps")
        await see.press("left")
        await see.sees("crosshair  L")
        await see.press("escape", "z", "left_square_bracket")
        await see.sees("all layers · all steps", "← → put a crosshair")

    look(recorded, script)


def test_codes_cursor_order_and_samples(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("3", "right_square_bracket")
        await see.sees("62.5%", "dead 6", "code 0 of layer 1")
        await see.press("end")
        await see.sees(f"code {CODES - 1} of layer 1", "dead: no item has this code")
        await see.press("o")  # the code stays under the cursor
        await see.sees("rank order", f"code {CODES - 1} of layer 1")
        await see.press("home")
        await see.until(lambda: re.search(r"rank 1 of 16\n\S+ \d+-\d+-\d+", see.text))
        with MonitorReader(recorded.database) as reader:
            usage = reader.usage(2).layers[1]
        most = max(range(CODES), key=usage.__getitem__)
        assert f"code {most} of layer 1" in see.text
        assert f"{usage[most]:,} items" in see.text
        await see.press("enter")
        await see.sees(f"*-{most}-*", "matches · 7" if usage[most] == 7 else "matches · ")

    look(recorded, script)


def test_files_status_order_filter_and_detail(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("4")
        await see.sees("disk.npz", "No space left on device")
        for _ in range(4):
            await see.press("right_square_bracket")
        text = await see.sees("2 shown", "broken.npz")
        assert "items-a" not in text
        await see.press("left_square_bracket")
        await see.sees("items-a.parquet", "first.npz")
        await see.press("left_square_bracket", "left_square_bracket", "left_square_bracket", "o")
        await see.sees("by name")
        rows = [line for line in see.text.splitlines() if re.match(r"[·▸✓✗↻] ", line)]
        assert [row.split()[2] for row in rows][:3] == ["broken.npz", "disk.npz", "…il[red]\\x1b[31m\\nname\\u202e.npz"]
        await see.press("slash", *"dimension")
        text = await see.sees("with “dimension” · 1 shown", "wrong dimension: 512, expected 768")
        await see.press("escape")
        await see.sees("items-b.parquet")

    look(recorded, script)


def test_lookup_item_codes_patterns_and_generations(recorded: Config):
    with MonitorReader(recorded.database) as reader:
        item = reader.lookup("item-7")
        earlier = reader.find("item-7").generations[1]
    assert item is not None
    first, second, third = item.codes

    async def script(see: Looking) -> None:
        await see.press("slash", *"item-7")
        text = await see.sees(
            "semantic ID", item.semantic_id, "siblings", "in g1 ", f" {earlier[2]}  suffix {earlier[3]}  retired"
        )
        assert all(sibling in text for sibling in item.siblings[:3])
        assert "item-70" in text  # begins so
        for pattern in (item.semantic_id, f"{first}-{second}-*", f"{first}-*-{third}", f"*-{second}-{third}"):
            await see.press("escape", "slash", *pattern)
            await see.sees("matches", "item-7 ")
        await see.press("escape", "slash", *"nothing-of-this-name")
        await see.sees("nothing is called nothing-of-this-name")
        await see.press("escape", "slash", *"a[b]c")
        await see.sees("─a[b]c─")

    look(recorded, script)


def test_tree_unfolds_lazily_and_leads_to_lookup(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("6")
        await see.until(lambda: see.text.count("▸") == CODES)
        await see.press("l")
        await see.until(lambda: "▾" in see.text and re.search(r"  ▸ \d+-\d+ ", see.text))
        await see.press("j", "l", "j", "l", "j")
        await see.until(lambda: re.search(r"      · \S+", see.text))
        leaf = re.search(r"      · (\S+)", see.text)[1]
        await see.press("enter")
        await see.sees(f"─{leaf}─" if len(leaf) < 70 else leaf, "semantic ID")
        await see.press("escape", "6", "h", "h", "h", "h", "h", "h")
        await see.until(lambda: "▾" not in see.text)

    look(recorded, script)


def test_events_filter_and_levels(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("8")
        await see.sees("nearly full", "published", '{"all": true}', "2 files are tried again")
        await see.press("right_square_bracket")
        await see.until(lambda: "published" not in see.text and "nearly full" in see.text)
        await see.press("left_square_bracket", "slash", *"nearly")
        await see.until(lambda: "published" not in see.text and "nearly full" in see.text)

    look(recorded, script)


def test_names_from_outside_are_escaped_everywhere(recorded: Config):
    async def script(see: Looking) -> None:
        for number in SAYS:
            await see.press("escape", str(number))
            await see.sees(*SAYS[number])
            text = see.text
            assert "\x1b" not in text
            assert "\u202e" not in text
        await see.press("4")
        await see.sees("l[red]\\x1b[31m\\nname\\u202e.npz")  # shown as it is: no markup was made of it

    look(recorded, script, (120, 35))


def test_an_empty_catalogue_explains_itself(tmp_path: Path):
    config = configured(tmp_path)
    Store(config.database).close()

    async def script(see: Looking) -> None:
        for number, says in {
            1: ["no training yet", "none yet: they come with the first training"],
            2: ["no training yet"],
            3: ["no codebooks yet"],
            4: ["no files yet: drop some into"],
            5: ["the items of a semantic ID"],
            6: ["no items yet"],
            7: ["none yet"],
            8: ["none"],
        }.items():
            await see.press("escape", str(number))
            await see.sees(*says)
        await see.press("5", *"numpy")
        await see.sees("nothing is called numpy")

    look(config, script)


def test_help_is_made_of_the_bindings(recorded: Config):
    async def script(see: Looking) -> None:
        await see.press("4", "question_mark")
        await see.sees("on this screen", "Order", "[ ]  Status", "space  Follow", "everywhere", "R  Retry", "?  Help")
        await see.press("escape")
        await see.until(lambda: "everywhere" not in see.text)

    look(recorded, script, (80, 45))


def test_every_action_is_in_the_palette(recorded: Config):
    async def script(see: Looking) -> None:
        await see.sees("codebooks")
        names = {command.title for command in see.app.get_system_commands(see.app.screen)}
        assert {
            "Overview",
            "Files",
            "Lookup",
            "Pause/resume",
            "Retry",
            "Freeze",
            "Screenshot",
            "Theme",
            "Help",
        } <= names
        await see.press("ctrl+p")
        await see.until(lambda: "Search" in see.text)
        await see.press(*"Generations")
        await see.sees("key 7")
        await see.press("enter")
        await see.sees("fingerprint")

    look(recorded, script)


def test_copy_write_screenshot_maximize(recorded: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")

    async def script(see: Looking) -> None:
        await see.press("slash", *"item-7", "escape", "y")
        await see.sees("copied", "set-clipboard on")
        assert re.fullmatch(r"\d+-\d+-\d+", see.app.clipboard)
        await see.press("4", "w")
        await see.until(lambda: list(tmp_path.glob("semid-files-*.tsv")))
        (written,) = tmp_path.glob("semid-files-*.tsv")
        assert f"items-a.parquet\tdone\t{ITEMS}" in written.read_text()
        assert "\x1b" not in written.read_text()
        await see.press("s")
        await see.until(lambda: list(tmp_path.glob("semid-*.svg")))
        await see.press("1", "tab", "m")
        await see.until(lambda: see.app.screen.maximized is not None)
        await see.press("m")
        await see.until(lambda: see.app.screen.maximized is None)

    look(recorded, script)


def test_generations_compared_and_drifting(recorded: Config):
    with Store(recorded.database) as store:
        store.comparisons.set(1, 2, [("items", None, 64.0, 700.0), ("churn", 1, None, 0.25), ("error", None, 0.5, 0.4)])
        for step in range(20):
            execute(
                recorded,
                "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES ('drift-2', ?, NULL,"
                " 'drift_error_ratio', ?, '')",
                step,
                1 + step / 100,
            )

    async def script(see: Looking) -> None:
        await see.press("7")
        text = await see.sees("comparison · g1 → g2", "64 → 700", "churn L1", "- → 0.25", "0.5 → 0.4", "-20.0%")
        assert "error, times that of training          1.19  ▁" in text
        await see.press("down")
        text = await see.sees("g1 retired", "comparison · g1 → g2")
        assert "drift ·" not in text

    look(recorded, script, (80, 30))
