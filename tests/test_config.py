"""semid.toml: the template is the defaults; everything wrong is refused by its key's name."""

import re
from pathlib import Path

import pytest

from semid_daemon.base.errors import ConfigError
from semid_daemon.config import Config, find_config, load_config, parse_config, template


def parse(text: str) -> Config:
    return parse_config(text.encode(), source="semid.toml", root=Path("/catalogue"))


def test_template_shows_the_defaults():
    assert parse(template()) == parse("") == Config(root=Path("/catalogue"))


def test_template_names_and_explains_every_key():
    text = template()
    assert all(len(line) <= 120 for line in text.splitlines())
    for section in [name for name in Config.__struct_fields__ if name != "root"]:
        (keys,) = re.findall(rf"^\[{section}\]\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
        for field in getattr(Config(), section).__struct_fields__:
            assert re.search(rf"^(# )?{field} = \S+ +# \S+", keys, re.MULTILINE), f"{section}.{field}"


def test_examples_of_keys_without_a_default_are_valid():
    config = parse(re.sub(r"^# (\w+ = )", r"\1", template(), flags=re.MULTILINE))
    assert (config.quantizer.dim, config.ingest.vector_field, config.ingest.id_field) == (384, "clip", "sku")
    assert config.metrics_textfile == Path("/catalogue/semid.prom")


def test_paths_start_at_the_file():
    config = parse('[paths]\ndrop = "in"\nstate = "/var/lib/semid"\n')
    assert config.drop_dir == Path("/catalogue/in")
    assert config.database == Path("/var/lib/semid/semid.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "unknown key colour"),
        ('root = "/"', "unknown key root"),
        ("[drop]\nsettle = 1", "unknown key drop.settle"),
        ('[drop]\nsettle_ms = "fast"', "drop.settle_ms: Expected `int`, got `str`"),
        ("[drop]\nsettle_ms = 0", "drop.settle_ms: Expected `int` >= 10"),
        ('[quantizer]\ndevice = "gpu"', "quantizer.device: "),
        ('[training]\ntrainer = "adam"', "training.trainer: Invalid enum value 'adam'"),
        ("[training]\nmin_rows = 100", "training.min_rows: 100 rows cannot fill quantizer.codebook_size = 256"),
        (
            '[drop]\non_done = "delete"\n[generations]\nkeep_embeddings = "files"',
            'generations.keep_embeddings: "files" are not kept with drop.on_done = "delete"',
        ),
        ('[paths]\ndone = "drop/done"', "paths.done: /catalogue/drop/done lies inside the drop directory"),
        ('[paths]\nrejected = "done"\ndone = "done"', "paths.rejected: /catalogue/done and paths.done must lie apart"),
        ('[paths]\nrejected = "done/rejected"', "paths.rejected: /catalogue/done/rejected and paths.done must lie"),
        ("[paths\n", "not valid TOML"),
        ("a = '\udce9'".encode("utf-8", "surrogateescape").decode("latin-1"), "unknown key a"),
    ],
)
def test_refusals_name_the_key(text: str, message: str):
    with pytest.raises(ConfigError, match="^semid.toml: ") as refused:
        parse(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "setting", "advice"),
    [
        ("[training]\ngrid_steps = 30", "training.grid_steps", "uses GRID's own schedule; remove the line"),
        ("[training]\ngrid_batch_rows = 9", "training.grid_batch_rows", "uses GRID's own schedule; remove the line"),
        (
            "[training]\ngrid_init_buffer_size = 9",
            "training.grid_init_buffer_size",
            "uses GRID's own schedule; remove the line",
        ),
        (
            '[ingest]\nfairness = "order"',
            "ingest.fairness",
            "remove the line; small files and huge ones always take turns",
        ),
        (
            "[generations]\nretrain_share = 0.5",
            "generations.retrain_share",
            'remove the line; refresh = "prepare" prepares a generation on drift',
        ),
        (
            '[generations]\nmode = "train"',
            'generations.mode = "train"',
            'use "continual", and refresh = "prepare" to prepare a generation on drift',
        ),
    ],
)
def test_settings_of_earlier_versions_are_refused_with_what_to_do(text: str, setting: str, advice: str):
    with pytest.raises(ConfigError) as refused:
        parse(text)
    message = str(refused.value)
    assert message.startswith(f"semid.toml: {setting} is no longer a setting: ")
    assert message.endswith(advice)
    assert refused.value.exit_code == 78


def test_missing_file_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match="semid init"):
        load_config(tmp_path / "semid.toml")


def test_which_file_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEMID_CONFIG", raising=False)
    assert find_config(None) == Path("semid.toml")
    monkeypatch.setenv("SEMID_CONFIG", "/etc/semid.toml")
    assert find_config(None) == Path("/etc/semid.toml")
    assert find_config(Path("here.toml")) == Path("here.toml")
