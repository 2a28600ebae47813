"""From one generation to the next: learning while rows come, preparing, comparing, promoting, going back, deleting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.command_client import send_command
from semid_daemon.config import Config
from semid_daemon.daemon.file_turns import FileTurns
from semid_daemon.ingest.intake import Intake
from semid_daemon.quantizer import Encoder, resolve_device
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.write.chunks import Chunks
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import configured, query, run

EVERYTHING = "SELECT item_id, semantic_id, suffix, file, assigned_at FROM all_semantic_ids WHERE generation = {}"


def ask(config: Config, command: str, **arguments: object) -> tuple[str, str]:
    """Ask, let the daemon do all there is to do, and see its answer."""
    config.commands_dir.mkdir(parents=True, exist_ok=True)
    name = send_command(config.commands_dir, command, {key.rstrip("_"): value for key, value in arguments.items()})
    run(config)
    ((state, answer),) = query(config, f"SELECT state, coalesce(answer, '') FROM _commands WHERE name = '{name}'")
    return state, answer


def ids_of(config: Config, generation: int) -> list[tuple]:
    return sorted(query(config, EVERYTHING.format(generation)))


def statuses(config: Config) -> dict[int, str]:
    return dict(query(config, "SELECT generation, status FROM generations"))


def candidate(config: Config, generation: int) -> list[tuple]:
    return query(
        config,
        "SELECT steps, rows, layer, centroids, counts FROM _candidates JOIN _candidate_layers USING (generation)"
        f" WHERE generation = {generation} ORDER BY layer",
    )


def assert_sound(config: Config) -> None:
    assert check_database(config.database).faults == []


def start(config: Config, clustered: Rows, rows: int = 200) -> None:
    drop_npz(config.drop_dir, "a.npz", ids("a", rows), clustered(rows, 16))
    run(config)


def add(config: Config, clustered: Rows, name: str, rows: int, seed: int) -> None:
    # Shifted: rows like no others before.
    drop_npz(config.drop_dir, f"{name}.npz", ids(name, rows), clustered(rows, 16, seed=seed) + 0.5)
    run(config)


def test_the_rows_of_the_training_are_not_learned_again(catalogue: Config, clustered: Rows):
    start(catalogue, clustered, 600)
    assert query(catalogue, "SELECT count(*) FROM _candidates") == [(0,)]
    assert query(catalogue, "SELECT count(*) FROM metrics WHERE name GLOB 'drift_*'") == [(0,)]
    ((trained,),) = query(catalogue, "SELECT trained_counts FROM _generations")
    counts = np.frombuffer(trained, "<f8").reshape(3, 8)
    usage = query(catalogue, "SELECT items FROM code_usage ORDER BY layer, code")
    assert counts.ravel().tolist() == [items for (items,) in usage]


def test_new_rows_are_learned_and_nothing_published_moves(catalogue: Config, clustered: Rows):
    start(catalogue, clustered)
    before = ids_of(catalogue, 1)
    add(catalogue, clustered, "b", 300, 1)
    (steps, rows, *_), *_ = candidate(catalogue, 1)
    assert (steps, rows) == (1, 300)  # the sixth chunk of 50 made it 256 or more
    add(catalogue, clustered, "c", 120, 2)
    assert query(catalogue, "SELECT sum(length(embeddings)) / 64 FROM _candidate_rows") == [(120,)]
    assert set(before) <= set(ids_of(catalogue, 1))
    assert query(catalogue, "SELECT layer, step, value > 0 FROM metrics WHERE run = 'candidate-1'") == [
        (0, 1, 1),
        (1, 1, 1),
        (2, 1, 1),
    ]
    found = query(catalogue, "SELECT name, count(DISTINCT layer) FROM metrics WHERE run = 'ingest-1' GROUP BY name")
    assert (
        dict(found).items()
        >= {
            "drift_error_ratio": 0,
            "drift_tail_share": 0,
            "drift_collision_rate": 0,
            "drift_js": 3,
            "drift_dead_alive": 3,
        }.items()
    )
    # Known items teach nothing new: other bytes, the same items.
    drop_npz(catalogue.drop_dir, "again.npz", ids("b", 300), clustered(300, 16, seed=9))
    run(catalogue)
    assert candidate(catalogue, 1)[0][:2] == (1, 300)
    assert query(catalogue, "SELECT sum(length(embeddings)) / 64 FROM _candidate_rows") == [(120,)]
    assert_sound(catalogue)


@pytest.mark.slow
def test_interrupted_or_not_the_candidate_is_the_same(tmp_path: Path, clustered: Rows, monkeypatch):
    """Stopped and begun anew between any two chunks: bit for bit what an uninterrupted run learns."""
    states = []
    for name, stops in (("whole", ()), ("stopped", range(0, 40, 3))):
        root = tmp_path / name
        root.mkdir()
        config = configured(root)
        start(config, clustered)
        for number, seed in (("b", 1), ("c", 2)):
            drop_npz(config.drop_dir, f"{number}.npz", ids(number, 700), clustered(700, 16, seed=seed) + 0.5)
        commits = iter(range(1000))
        with monkeypatch.context() as patch:
            if stops:
                whole = Chunks.commit

                def stopping(*arguments, whole=whole, commits=commits, stops=stops, **options):
                    if next(commits) in stops:
                        raise KeyboardInterrupt  # before anything is written, after everything was learned
                    return whole(*arguments, **options)

                patch.setattr(Chunks, "commit", stopping)
            for _ in range(40):
                try:
                    run(config)
                    break
                except KeyboardInterrupt:
                    continue
        drift = query(config, "SELECT state FROM _drift")
        waiting = query(config, "SELECT embeddings FROM _candidate_rows ORDER BY chunk_id")
        measured = query(
            config,
            "SELECT run, step, layer, name, value FROM _metrics"
            " WHERE run GLOB 'candidate-*' OR name GLOB 'drift_*' ORDER BY id",
        )
        states.append((candidate(config, 1), drift, waiting, measured))
    assert states[0][0][0][:2] == (4, 1200)
    assert states[0] == states[1]


def test_from_the_candidate_to_the_next_generation_and_back(catalogue: Config, clustered: Rows):
    start(catalogue, clustered)
    add(catalogue, clustered, "b", 300, 1)
    before = ids_of(catalogue, 1)
    learned = candidate(catalogue, 1)
    state, answer = ask(catalogue, "train")
    assert state == "done", answer
    assert statuses(catalogue) == {1: "active", 2: "ready"}
    assert ids_of(catalogue, 1) == before
    assert [row[0] for row in ids_of(catalogue, 2)] == [row[0] for row in before]
    # The codebooks are the candidate's, and the IDs what they give.
    ((fingerprint,),) = query(catalogue, "SELECT fingerprint FROM generations WHERE generation = 2")
    codebooks = load_codebooks(catalogue.codebooks_dir, fingerprint)
    assert [centroids_KD.tobytes() for centroids_KD in codebooks.centroids_LKD] == [row[3] for row in learned]
    codes_NL = Encoder(codebooks, resolve_device("cpu")).encode(clustered(300, 16, seed=1) + 0.5)
    found = {item: semantic_id for item, semantic_id, *_ in ids_of(catalogue, 2)}
    assert [found[f"b{row}"] for row in range(300)] == ["-".join(map(str, codes)) for codes in codes_NL]

    moved = query(
        catalogue,
        "SELECT avg(a.semantic_id != b.semantic_id) FROM all_semantic_ids a JOIN all_semantic_ids b USING (item_id)"
        " WHERE a.generation = 1 AND b.generation = 2",
    )
    shown = query(catalogue, "SELECT new_value FROM comparisons WHERE name = 'churn' AND layer IS NULL")
    assert shown == moved
    compared = query(catalogue, "SELECT DISTINCT name FROM comparisons WHERE old = 1 AND new = 2 ORDER BY 1")
    assert [name for (name,) in compared] == [
        "churn", "dead_codes", "error", "items", "max_bucket", "neighbour_recall", "perplexity", "singleton_rate",
        "unique_rate",
    ]  # fmt: skip
    ((old, new),) = query(catalogue, "SELECT old_value, new_value FROM comparisons WHERE name = 'error'")
    assert new < old
    assert ask(catalogue, "promote")[0] == "done"
    assert statuses(catalogue) == {1: "retired", 2: "active"}
    assert query(catalogue, "SELECT DISTINCT generation FROM semantic_ids") == [(2,)]
    assert ask(catalogue, "promote") == ("failed", "no generation is ready; `semid train` first")
    assert ask(catalogue, "rollback") == ("done", "generation 1 is active")
    assert ids_of(catalogue, 1) == before
    assert statuses(catalogue) == {1: "active", 2: "retired"}
    assert ask(catalogue, "promote", generation=2)[0] == "done"
    assert_sound(catalogue)


@pytest.mark.slow
def test_what_comes_meanwhile_is_in_both(catalogue: Config, clustered: Rows):
    """Items that come between training and promotion, and between promotion and rollback."""
    start(catalogue, clustered)
    add(catalogue, clustered, "b", 300, 1)
    assert ask(catalogue, "train")[0] == "done"
    assert candidate(catalogue, 2) == []
    add(catalogue, clustered, "c", 260, 2)
    in_first = ids_of(catalogue, 1)
    assert ask(catalogue, "promote", generation=2)[0] == "done"
    assert len(ids_of(catalogue, 2)) == 760
    # The new generation's candidate has learned what its training had not seen, once.
    assert candidate(catalogue, 2)[0][:2] == (1, 260)
    add(catalogue, clustered, "d", 300, 3)
    assert candidate(catalogue, 2)[0][:2] == (2, 560)
    in_second = ids_of(catalogue, 2)
    assert ask(catalogue, "rollback")[0] == "done"
    assert set(in_first) < set(ids_of(catalogue, 1))
    assert ids_of(catalogue, 2) == in_second
    assert query(catalogue, "SELECT count(*) FROM semantic_ids WHERE generation = 1") == [(1060,)]
    first = candidate(catalogue, 1)[0]
    waiting = query(
        catalogue, "SELECT coalesce(sum(length(embeddings)), 0) / 64 FROM _candidate_rows WHERE generation = 1"
    )
    assert first[1] + waiting[0][0] == 860
    assert_sound(catalogue)


def test_anew_gets_the_old_numbers(catalogue: Config, clustered: Rows):
    config = configured(catalogue.root, ("quantizer", "seed = 7"))
    start(catalogue, clustered, 400)
    assert ask(config, "train", from_="anew")[0] == "done"
    assert query(config, "SELECT origin, based_on, trained_rows FROM generations WHERE generation = 2") == [
        ("anew", 1, 400)
    ]
    ((churn,),) = query(config, "SELECT new_value FROM comparisons WHERE name = 'churn' AND layer = 0")
    assert churn < 0.6  # by chance 7 of 8 would move
    assert ask(config, "train", from_="anew")[0] == "done"
    assert statuses(config) == {1: "active", 2: "deleted", 3: "ready"}
    assert_sound(config)


@pytest.mark.parametrize("on_done", ["delete", "keep"])
def test_embeddings_are_kept_where_files_are_not_moved(catalogue: Config, clustered: Rows, on_done: str):
    config = configured(catalogue.root, ("drop", f'on_done = "{on_done}"'))
    start(config, clustered)
    add(config, clustered, "b", 300, 1)
    assert config.spool_dir.exists() is (on_done == "delete")
    assert ask(config, "train")[0] == "done"
    assert ask(config, "promote")[0] == "done"
    assert len(ids_of(config, 2)) == 500
    # Contents are those of the embeddings as they came: duplicates are still found.
    drop_npz(config.drop_dir, "d.npz", ["twin"], clustered(200, 16)[:1])
    run(config)
    assert query(config, "SELECT exact_duplicates FROM _generations WHERE generation = 2") == [(1,)]
    assert_sound(config)


def test_embeddings_that_are_gone(catalogue: Config, clustered: Rows):
    start(catalogue, clustered)
    add(catalogue, clustered, "b", 300, 1)
    before = ids_of(catalogue, 1)
    hidden = catalogue.done_dir / "b.npz"
    hidden.rename(catalogue.root / "b.npz")
    state, answer = ask(catalogue, "train")
    assert state == "failed"
    assert answer.startswith("b.npz: its embeddings are not kept: neither in ")
    assert "put the file back into" in answer
    drop_npz(catalogue.done_dir, "b.npz", ids("b", 300), clustered(300, 16, seed=5))  # another file of that name
    state, answer = ask(catalogue, "train")
    assert state == "failed"
    assert ids_of(catalogue, 1) == before
    assert set(statuses(catalogue).values()) == {"active"}
    (catalogue.root / "b.npz").rename(hidden)
    assert ask(catalogue, "train")[0] == "done"
    assert_sound(catalogue)


def test_a_file_half_way_goes_on_with_the_new_generation(catalogue: Config, clustered: Rows, monkeypatch):
    start(catalogue, clustered)
    add(catalogue, clustered, "b", 300, 1)
    assert ask(catalogue, "train")[0] == "done"
    drop_npz(catalogue.drop_dir, "c.npz", ids("c", 200), clustered(200, 16, seed=3))
    commits = []

    def twice(*arguments, whole=Chunks.commit, **options):
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(1)
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Chunks, "commit", twice)
        patch.setattr(Intake, "is_small", lambda *_: False)  # its chunks are committed one by one
        with pytest.raises(KeyboardInterrupt):
            run(catalogue)
    assert query(catalogue, "SELECT rows_done, generation FROM _files WHERE id = 3") == [(100, 1)]

    # Promoted before the file goes on: as if the command had come first.
    def nothing(*_):
        return False
        yield

    monkeypatch.setattr(FileTurns, "encode", nothing)
    assert ask(catalogue, "promote")[0] == "done"
    monkeypatch.undo()
    run(catalogue)
    assert query(catalogue, "SELECT count(*), count(DISTINCT generation) FROM semantic_ids") == [(700, 1)]
    chunks = query(catalogue, "SELECT first_row, generation FROM _chunks WHERE file_id = 3 ORDER BY first_row")
    assert chunks == [(0, 1), (50, 1), (100, 2), (150, 2)]
    assert ask(catalogue, "rollback")[0] == "done"
    assert query(catalogue, "SELECT count(*), min(generation), max(generation) FROM semantic_ids") == [(700, 1, 1)]
    assert_sound(catalogue)


@pytest.mark.slow
def test_replaced_items_take_their_newest_embedding_along(catalogue: Config, clustered: Rows):
    config = configured(catalogue.root, ("ingest", 'on_existing = "replace"'))
    start(config, clustered)
    drop_npz(config.drop_dir, "b.npz", ids("a", 150), clustered(150, 16, seed=1) + 0.5)
    run(config)
    assert ask(config, "train", from_="anew")[0] == "done"
    drop_npz(config.drop_dir, "c.npz", ids("a", 80), clustered(80, 16, seed=2) - 0.5)
    run(config)
    assert ask(config, "promote")[0] == "done"
    found = query(config, "SELECT file, count(*) FROM semantic_ids GROUP BY file")
    assert found == [("a.npz", 50), ("b.npz", 70), ("c.npz", 80)]
    ((fingerprint,),) = query(config, "SELECT fingerprint FROM generations WHERE status = 'active'")
    codes_NL = Encoder(load_codebooks(config.codebooks_dir, fingerprint), resolve_device("cpu")).encode(
        clustered(80, 16, seed=2) - 0.5
    )
    shown = dict(query(config, "SELECT item_id, semantic_id FROM semantic_ids"))
    assert [shown[f"a{row}"] for row in range(80)] == ["-".join(map(str, codes)) for codes in codes_NL]
    assert_sound(config)


@pytest.mark.slow
def test_assign_learns_nothing(catalogue: Config, clustered: Rows):
    config = configured(catalogue.root, ("generations", 'mode = "assign"'))
    start(config, clustered)
    add(config, clustered, "b", 300, 1)
    assert query(config, "SELECT (SELECT count(*) FROM _candidates) + (SELECT count(*) FROM _candidate_rows)") == [(0,)]
    assert query(config, "SELECT count(*) > 0 FROM metrics WHERE name = 'drift_error_ratio'") == [(1,)]
    state, answer = ask(config, "train", from_="candidate")
    assert (state, answer) == ("failed", 'there is no candidate with generations.mode = "assign"; train anew')
    assert ask(config, "train")[0] == "done"
    assert query(config, "SELECT origin FROM generations WHERE generation = 2") == [("anew",)]


def test_drift_recommends_a_refresh_and_does_nothing(catalogue: Config, clustered: Rows):
    config = configured(catalogue.root, ("generations", "drift_window_rows = 400"))
    start(config, clustered)
    add(config, clustered, "b", 300, 1)
    add(config, clustered, "c", 300, 2)
    told = query(config, "SELECT level, message FROM events WHERE message GLOB 'refresh recommended*'")
    assert len(told) == 1
    assert told[0][0] == "warning"
    assert "changes no ID" in told[0][1]
    assert statuses(config) == {1: "active"}


def test_auto_prepares_and_promotes(catalogue: Config, clustered: Rows):
    config = configured(
        catalogue.root,
        ("generations", "drift_window_rows = 400"),
        ("generations", 'refresh = "auto"'),
        ("generations", "keep_retired = 0"),
    )
    start(config, clustered)
    add(config, clustered, "b", 300, 1)
    ((fingerprint,),) = query(config, "SELECT fingerprint FROM generations WHERE generation = 1")
    assert statuses(config) == {1: "deleted", 2: "active"}
    # Nothing is left of what is not kept: no row, no codebooks.
    assert query(config, "SELECT DISTINCT generation FROM all_semantic_ids") == [(2,)]
    for table in ("_buckets", "_code_usage", "_candidates", "_candidate_layers", "_drift", "_prefix_counts"):
        assert query(config, f"SELECT count(*) FROM {table} WHERE generation = 1") == [(0,)]
    assert fingerprint not in {path.stem for path in config.codebooks_dir.iterdir()}
    assert_sound(config)


@pytest.mark.slow
def test_former_generations_go_by_the_policy(catalogue: Config, clustered: Rows):
    config = configured(catalogue.root, ("generations", "keep_retired = 1"))
    start(config, clustered)
    for number, name in enumerate("bcd"):
        add(config, clustered, name, 300, number + 1)
        assert ask(config, "train")[0] == "done"
        assert ask(config, "promote")[0] == "done"
    assert statuses(config) == {1: "deleted", 2: "deleted", 3: "retired", 4: "active"}
    assert ask(config, "rollback", generation=1) == ("failed", "generation 1 was deleted")
    assert ask(config, "rollback")[0] == "done"
    assert_sound(config)


def test_quality_is_measured_once_per_generation(catalogue: Config, clustered: Rows):
    start(catalogue, clustered)
    run(catalogue)
    found = query(catalogue, "SELECT name, layer, value BETWEEN 0 AND 1 FROM metrics WHERE run = 'quality-1'")
    assert sorted(found, key=str) == [
        ("error", None, 1),
        ("neighbour_recall", 0, 1),
        ("neighbour_recall", 1, 1),
        ("neighbour_recall", 2, 1),
    ]
    recall = query(catalogue, "SELECT value FROM metrics WHERE name = 'neighbour_recall' ORDER BY layer")
    assert recall == sorted(recall, reverse=True)


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("train", {}, "there is no generation yet"),
        ("promote", {}, "no generation is ready"),
        ("rollback", {}, "there is no former generation"),
        ("promote", {"generation": 3}, "there is no generation 3"),
        ("promote", {"generation": "2"}, "give a number"),
    ],
)
def test_what_cannot_be_is_refused(catalogue: Config, command: str, arguments: dict, says: str):
    state, answer = ask(catalogue, command, **arguments)
    assert state == "failed"
    assert says in answer


def test_wrong_arguments_and_nothing_learned(catalogue: Config, clustered: Rows):
    start(catalogue, clustered)
    assert ask(catalogue, "train", from_="nowhere") == ("failed", '"from": give "candidate" or "anew"')
    state, answer = ask(catalogue, "train")
    assert state == "failed"
    assert "nothing has been learned since generation 1" in answer
    assert ask(catalogue, "promote", generation=1) == ("done", "generation 1 is active already")
