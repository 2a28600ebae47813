"""`semid install-service`: the units of systemd/, with the path of this installation filled in, and what to do next."""

from __future__ import annotations

import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import click

from semid_daemon.base.atomic_file import atomic_write_text
from semid_daemon.base.errors import ConfigError

_PACKAGED = "/usr/bin/semid"  # what the units name until they are installed
_SAFE = re.compile(r"[A-Za-z0-9/._+@-]+")
_INSTANCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# A user's manager has no right to these, or they mean another user; the rest of the hardening stays.
_SYSTEM_ONLY = re.compile(
    "User|Group|State.*|.*Capabilit.*|Device.*|IPAddressDeny|Private.*|Protect.*|ProcSubset|RemoveIPC|KeyringMode"
    "|RequiresMountsFor|ReadWritePaths"
)
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # by ProtectHome= and PrivateTmp=


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file to write. `why` tells the operator what it is for."""

    path: Path
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to write, the steps that the operator takes next, and warnings of what will not work."""

    files: list[UnitFile]
    next_steps: list[str]
    warnings: list[str]


@click.command("install-service")
@click.option("--user", is_flag=True, help="For your own service manager (systemctl --user), without root.")
@click.option("--instance", metavar="N", help="One daemon of several: semid-daemon@N, over a catalogue of its own.")
@click.option("--gpu", is_flag=True, help="Let the service use NVIDIA GPUs.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write below this directory instead of /, to look at it first or to make a package.",
)
def install_service(user: bool, instance: str | None, gpu: bool, root: Path) -> None:
    """Write the systemd units that keep the daemon running, and print the next steps.

    Installs a hardened unit that starts this semid, a user and a group called semid, and the catalogue's
    directories below /var/lib/semid (with --instance N /var/lib/semid-N, with --user ~/.local/state/semid).
    Nothing is started or enabled. Files written earlier are replaced: keep your own changes in `systemctl edit`.

    \b
    sudo semid install-service --gpu
    semid install-service --user --instance music
    """
    to_do = plan(user=user, instance=instance, gpu=gpu)
    write(to_do.files, root)
    for file in to_do.files:
        click.echo(f"wrote {below(root, file.path)}: {file.why}")
    click.echo("\nnext:")
    for step in to_do.next_steps:
        click.echo(f"  {step}")
    for warning in to_do.warnings:
        click.echo(f"semid: {warning}", err=True)


def plan(*, user: bool = False, instance: str | None = None, gpu: bool = False) -> Plan:
    """Plan the installation. Raises ConfigError for a name that no instance can have."""
    if instance is not None and not _INSTANCE.fullmatch(instance):
        raise ConfigError(f"--instance: {instance!r}: use up to 64 letters, digits, '.', '_' and '-'")
    suffix = "" if instance is None else f"-{instance}"
    template = "semid-daemon" if instance is None else "semid-daemon@"
    unit = f"{template}{instance or ''}.service"
    command = _command()
    units = Path.home() / ".config/systemd/user" if user else Path("/etc/systemd/system")
    catalogue = Path.home() / ".local/state" / f"semid{suffix}" if user else Path(f"/var/lib/semid{suffix}")
    service = _shipped(f"{template}.service").replace(_PACKAGED, command)
    files = [UnitFile(units / f"{template}.service", _for_user(service) if user else service, f"runs over {catalogue}")]
    if gpu and not user:
        files.append(UnitFile(units / f"{unit}.d/gpu.conf", _shipped("gpu.conf"), "lets it use NVIDIA GPUs"))
    if not user:
        name = f"semid{suffix}.conf"
        tmpfiles = _shipped("tmpfiles.conf").replace("/var/lib/semid", str(catalogue))
        files.append(UnitFile(Path("/etc/sysusers.d/semid.conf"), _shipped("sysusers.conf"), "user and group semid"))
        files.append(UnitFile(Path("/etc/tmpfiles.d") / name, tmpfiles, "its directories and who may write there"))
    next_steps = _next_steps(user=user, gpu=gpu, unit=unit, tmpfiles=f"semid{suffix}.conf", catalogue=catalogue)
    return Plan(files, next_steps, [] if user else _warnings(command))


def write(files: list[UnitFile], root: Path = Path("/")) -> None:
    """Write the files below `root`, each whole or not at all. Raises ConfigError where that is not permitted."""
    for file in files:
        path = below(root, file.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(path, file.text, mode=0o644)
        except OSError as error:
            hint = "; use sudo, or --user for a service of your own" if isinstance(error, PermissionError) else ""
            raise ConfigError(f"{path}: cannot be written: {error.strerror}{hint}") from error


def below(root: Path, path: Path) -> Path:
    """An absolute path, moved below another root."""
    return root / path.relative_to("/")


def _shipped(name: str) -> str:
    """A file of systemd/: in the installed package, or in the checkout beside it."""
    here = Path(__file__).parent.parent
    directory = here / "systemd" if (here / "systemd").is_dir() else here.parent / "systemd"
    return (directory / name).read_text(encoding="utf-8")


def _command() -> str:
    """How a unit starts this installation's `semid`."""
    script = Path(sysconfig.get_path("scripts")) / "semid"
    words = [str(script)] if script.exists() else [sys.executable, "-m", "semid_daemon"]
    if not _SAFE.fullmatch(words[0]):
        raise ConfigError(f"{words[0]}: a unit cannot hold a path with such characters; install semid elsewhere")
    return " ".join(words)


def _for_user(service: str) -> str:
    """The unit for a user's own service manager."""
    lines: list[str] = []
    comments: list[str] = []
    for line in service.splitlines():
        if line.startswith("# "):
            comments.append(line)
            continue
        if not _SYSTEM_ONLY.fullmatch(line.lstrip("#").split("=")[0]):
            lines += [*comments, line.replace("%S/", "%h/.local/state/").replace("multi-user.target", "default.target")]
        comments = []
    return "\n".join(lines) + "\n"


def _warnings(command: str) -> list[str]:
    """The service sees no home directories and has a /tmp of its own: warn of what it would not find."""
    unseen = [
        path
        for path in dict.fromkeys((command.split()[0], sys.base_prefix))
        if any(Path(path).is_relative_to(hidden) for hidden in _HIDDEN)
    ]
    if not unseen:
        return []
    return [
        f"{' and '.join(unseen)}: the service sees no home directories and a /tmp of its own; install semid elsewhere,"
        " with a Python that is elsewhere too:  /usr/bin/python3 -m venv /opt/semid && /opt/semid/bin/pip install semid"
    ]


def _next_steps(*, user: bool, gpu: bool, unit: str, tmpfiles: str, catalogue: Path) -> list[str]:
    semid = _command()
    settings = catalogue / "semid.toml"
    if user:
        return [
            f"{semid} init {catalogue}",
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {unit}",
            f"systemctl --user status {unit}; journalctl --user -u {unit} -f",
            "loginctl enable-linger    # it runs on when you log out, and starts with the machine",
        ]
    return [
        "systemd-sysusers semid.conf",
        f"systemd-tmpfiles --create {tmpfiles}",
        f"runuser -u semid -- {semid} init {catalogue}",
        *([f"sed -i 's/^device = .*/device = \"cuda\"/' {settings}    # no GPU: an error, not the CPU"] if gpu else []),
        "systemctl daemon-reload",
        f"systemctl enable --now {unit}",
        f"systemctl status {unit}; journalctl -u {unit} -f",
        f"usermod -aG semid NAME    # NAME may look (semid-tui -c {settings}), drop files, pause, retry",
    ]
