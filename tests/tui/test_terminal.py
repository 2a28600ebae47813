"""The terminal UI beside a real daemon, in a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from semid_daemon.config import Config, load_config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import SearchQueries
from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.tui.terminal import Terminal


@pytest.fixture
def daemon(tmp_path: Path):
    """A catalogue, and a way to start daemons on it."""
    (tmp_path / "semid.toml").write_text(SMALL)
    (tmp_path / "drop").mkdir()
    config = load_config(tmp_path / "semid.toml")
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "semid_daemon", "run", "-q", "-c", str(tmp_path / "semid.toml")],
            stderr=subprocess.DEVNULL,
        )
        running.append(process)
        return process

    yield config, start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.slow
def test_a_file_is_dropped_looked_up_and_a_rejected_one_retried(daemon, clustered: Rows):
    config: Config = daemon[0]
    with Terminal(config.root / "semid.toml") as terminal:
        terminal.sees("No database yet", "semid init")
        process = daemon[1]()
        terminal.sees("IDLE", "no training yet", timeout_s=60)
        drop_npz(config.drop_dir, "first.npz", ids("first-", 200), clustered(200, 16, seed=1))
        terminal.sees("codebooks g1 · 3×8 · 200 items", "done 1", "L2", timeout_s=60)

        # Its ID, by key.
        terminal.press("/")
        terminal.sees("an item by its ID")
        terminal.press("first-7")
        terminal.sees("semantic ID", "suffix", "siblings")
        with ReadConnection(config.database) as connection:
            item = SearchQueries(connection).lookup("first-7")
        assert item is not None
        assert item.semantic_id in terminal.text
        terminal.press("\x1b")
        terminal.read(0.3)

        # A file of another dimension is rejected, and retried from here: again at fault.
        drop_npz(config.drop_dir, "wrong.npz", ids("wrong-", 10), clustered(10, 5, seed=2))
        terminal.press("4")
        terminal.sees("✗ rejected", "wrong.npz", "1 rejected", timeout_s=60)
        terminal.until(lambda: (config.rejected_dir / "wrong.npz").exists())
        terminal.press("g")
        terminal.sees("wrong dimension: 5, expected 16")
        # Put right where it lies, so that trying again helps.
        drop_npz(config.rejected_dir, "wrong.npz", ids("wrong-", 10), clustered(10, 16, seed=2))
        terminal.press("R")
        terminal.sees("Try again?", "retry wrong.npz", "change nothing")
        terminal.press("1")
        terminal.sees("retry wrong.npz · queued →", "done after", timeout_s=60)

        # The daemon dies, and comes back; old data does not look live meanwhile.
        terminal.press("1")
        process.kill()
        process.wait()
        terminal.sees("old", timeout_s=30)
        assert "rows/s" not in terminal.screen.display[0]
        daemon[1]()
        terminal.until(lambda: re.match(r"semid ● \d", terminal.text), timeout_s=60)
        terminal.press("q")
        assert terminal.ends() == 0


@pytest.mark.slow
def test_256_colours_no_color_and_an_empty_one(recorded: Config):
    config = recorded.root / "semid.toml"
    with Terminal(config) as terminal:
        terminal.sees("codebooks g2")
        written = terminal.read(0.5)
        terminal.press("2")
        written += terminal.read(1.0)
        assert b"\x1b[" in written
        assert re.search(rb"38;5;\d+", written)
        assert not re.search(rb"38;2;\d+", written)
    with Terminal(config, environment={"COLORTERM": "truecolor", "NO_COLOR": ""}) as terminal:
        terminal.sees("codebooks g2")
        terminal.press("2")
        assert re.search(rb"38;2;\d+", terminal.read(1.0))
    with Terminal(config, environment={"COLORTERM": "truecolor", "NO_COLOR": "1"}) as terminal:
        terminal.sees("codebooks g2", "××")
        terminal.press("2")
        assert not re.search(rb"[34]8;[25];\d+", terminal.read(1.0))


def test_quitting_leaves_the_terminal_as_it_was(recorded: Config):
    with Terminal(recorded.root / "semid.toml", "--readonly") as terminal:
        terminal.sees("codebooks g2", "semid RO")
        assert terminal.ends_alternate == 0
        terminal.press("q")
        assert terminal.ends() == 0
        assert terminal.ends_alternate == 1


def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "semid_tui", *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


def test_once_and_json(recorded: Config):
    config = recorded.root / "semid.toml"
    printed = run("--once", "-c", config, env={**os.environ, "COLUMNS": "100"})
    assert (printed.returncode, printed.stderr) == (0, "")
    for words in (
        "semid RO ●",
        "loss · run 1 · step 1,200",
        "L1  62.5% dead  6",
        "broken.npz",
        "gpu mem",
        "bottleneck encode",
    ):
        assert words in printed.stdout
    assert "\x1b" not in printed.stdout
    assert max(map(len, printed.stdout.splitlines())) <= 100
    ascii_only = run("--once", "--marker", "ascii", "-c", config)
    assert "⣀" not in ascii_only.stdout

    printed = run("--json", "-c", config)
    data = json.loads(printed.stdout)
    assert (data["state"], data["liveness"], data["generation"]) == ("encoding", "live", 2)
    assert data["training"]["step"] == 1200
    assert data["files"] == {"pending": 3, "loading": 1, "done": 2, "rejected": 2, "deferred": 1}
    assert data["gauges"]["rows_per_s"] == 48_100
    assert data["layers"][1]["dead_codes"] == 6
    status = subprocess.run(
        [sys.executable, "-m", "semid_daemon", "status", "--json", "-c", config], capture_output=True, timeout=60
    )
    same = json.loads(status.stdout)
    assert same.keys() == data.keys()
    ages = {"liveness", "heartbeat_age_s"}  # go on between the two commands
    assert {name: value for name, value in same.items() if name not in ages} == {
        name: value for name, value in data.items() if name not in ages
    }


def test_without_a_database_without_a_terminal(tmp_path: Path):
    (tmp_path / "semid.toml").write_text("")
    for option in ("--once", "--json"):
        done = run(option, "-c", tmp_path / "semid.toml")
        assert (done.returncode, done.stdout) == (1, "")
        assert "semid init" in done.stderr
    done = run("-c", tmp_path / "semid.toml", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "--once" in done.stderr
    assert run("-c", tmp_path / "none.toml").returncode == 78
    helped = run("--help").stdout
    for option in ("--readonly", "--refresh", "--marker", "--once", "--json", "--serve", "--light", "--config"):
        assert option in helped


def test_its_version():
    assert re.fullmatch(r"semid-tui, version \S+\n", run("--version").stdout)


@pytest.mark.parametrize("target", ["a closed pipe", "/dev/full"])
def test_once_where_stdout_takes_nothing(recorded: Config, target: str):
    if target == "/dev/full":
        descriptor = os.open(target, os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    try:
        command = [sys.executable, "-m", "semid_tui", "--once", "-c", str(recorded.root / "semid.toml")]
        done = subprocess.run(command, stdout=descriptor, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(descriptor)
    assert done.returncode == 1
    assert re.fullmatch(r"semid-tui: stdout: (Broken pipe|No space left on device)\n", done.stderr)


@pytest.mark.slow
def test_what_it_loads(recorded: Config):
    """Neither the whole app, run over all screens, nor --once loads anything heavy."""
    code = (
        "import asyncio, json, sys\n"
        "from pathlib import Path\n"
        "from semid_daemon.config import load_config\n"
        "from semid_tui.app import MonitorApp\n"
        "from semid_tui.once import overview_text\n"
        f"config = load_config(Path({str(recorded.root / 'semid.toml')!r}))\n"
        "overview_text(config, 80, 'braille')\n"
        "async def main():\n"
        "    app = MonitorApp(config)\n"
        "    async with app.run_test() as pilot:\n"
        "        for key in ('1', '2', '3', '4', '5', 'escape', '6', '7', '8'):\n"
        "            await pilot.press(key)\n"
        "        await pilot.pause(0.5)\n"
        "asyncio.run(main())\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "pandas", "pyarrow", "numpy", "scipy", "sqlite_utils", "psutil", "pynvml", "textual_serve"}
    assert not loaded & heavy


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.slow
def test_served_to_its_own_page_only(recorded: Config, free_port: int, tmp_path: Path):
    """A real server, and what a browser does: the page, its files, then the screen over its socket."""
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "semid_tui", "--serve", "--port", str(free_port)]
    server = subprocess.Popen(
        [*command, "-c", str(recorded.root / "semid.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=here,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        page, screen, refused = asyncio.run(asyncio.wait_for(_visit(address, "perplexity"), 60))
        taken = run("--serve", "--port", str(free_port), "-c", recorded.root / "semid.toml")
    finally:
        server.terminate()
        server.communicate()
    assert re.fullmatch(rf"http://127\.0\.0\.1:{free_port}/[\w-]{{32}}/", address)
    assert f"<title>semid {recorded.root.name}</title>" in page
    assert not re.findall(r"(?:src|href)=.https?:|url\(.https?:|@[A-Z_]+@", page)
    assert "semid RO" in screen
    assert refused == dict.fromkeys(refused, 403)
    assert len(refused) == 6
    assert list(here.iterdir()) == []  # w and s were pressed
    assert taken.returncode == 78
    assert taken.stderr.startswith(f"semid-tui: --serve: 127.0.0.1:{free_port}: ")
    assert "--port" in taken.stderr


async def _listens(session: aiohttp.ClientSession, address: str) -> None:
    """Wait for a server that has printed its address and is about to listen there; the caller limits the time."""
    while True:
        with contextlib.suppress(aiohttp.ClientConnectorError):
            async with session.get(address):
                return
        await asyncio.sleep(0.05)


async def _visit(address: str, wanted: str) -> tuple[str, str, dict[str, int]]:
    """The page, what is written to the screen until `wanted` is on it, and the status of what must be refused."""
    own = address.split("/")[2]
    root, socket_address = f"http://{own}/", address.replace("http", "ws") + "ws"
    screen, refused = "", {}
    async with aiohttp.ClientSession() as session:
        await _listens(session, address)
        async with session.get(address) as response:
            page = await response.text()
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        for file in re.findall(r'(?:src|href)="(static/[^"]+)"|url\("([^"]+)"\)', page):
            async with session.get(address + "".join(file)) as response:
                assert response.status == 200, file
        for name, url, headers in (
            ("no token", root, {}),
            ("another token", root + "x" * 32 + "/", {}),
            ("files without a token", root + "static/js/textual.js", {}),
            ("another host", address, {"Host": "evil.example"}),
        ):
            async with session.get(url, headers=headers) as response:
                refused[name] = response.status
        for name, headers in (("another origin", {"Origin": "http://evil.example"}), ("no origin", {})):
            try:
                await session.ws_connect(socket_address, headers=headers)
            except aiohttp.WSServerHandshakeError as error:
                refused[name] = error.status
        async with session.ws_connect(
            socket_address + "?width=120&height=40", headers={"Origin": f"http://{own}"}
        ) as browser:
            async for message in browser:
                if message.type is aiohttp.WSMsgType.BINARY:
                    screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", message.data.decode(errors="replace"))
                if wanted in screen:
                    if "fingerprint" in screen:
                        break
                    await browser.send_json(["stdin", "ws7"])
    return page, screen, refused


def test_served_processes_are_read_only(recorded: Config):
    from semid_tui.serve import served_command

    command = shlex.split(served_command(recorded.root / "semid.toml", 1.0))
    assert "--readonly" in command
    assert command[-2:] == ["-c", str(recorded.root / "semid.toml")]
