"""An experiment file as runs: ids, sweep, seeds, and the file with every default written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import simnet
from simnet.config.experiment_models import ExperimentModel
from simnet.config.resolved import as_yaml
from simnet.errors import InputError

DEMO = Path(__file__).parents[2] / "experiments" / "nginx-demo.yaml"


def ids(*settings: str, **options: int) -> list[str]:
    return [run.run_id for run in simnet.load_experiment(DEMO, settings=settings, **options).runs]


def test_more_repeats_keep_the_runs_that_there_are():
    few, many = ids("run.repeat=2"), ids("run.repeat=3")
    assert set(few) < set(many)
    assert len(set(many)) == 9


@pytest.mark.parametrize("setting", ["nodes.count=3", "run.duration=9s", "workload.flows.packets=3", "record=summary"])
def test_a_run_of_another_content_has_another_id(setting):
    assert not set(ids("run.repeat=2")) & set(ids("run.repeat=2", setting))


def test_a_run_id_does_not_depend_on_where_the_file_is_read_from(monkeypatch):
    before = ids("run.repeat=2")
    monkeypatch.chdir(DEMO.parent)
    assert [run.run_id for run in simnet.load_experiment("nginx-demo.yaml", settings=["run.repeat=2"]).runs] == before


def test_variants_of_a_repeat_share_its_seed_and_repeats_do_not():
    runs = simnet.load_experiment(DEMO).runs
    seeds = {run.repeat: {other.seed for other in runs if other.repeat == run.repeat} for run in runs}
    assert all(len(each) == 1 for each in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds) == 10


def test_another_seed_gives_other_seeds_of_all_runs():
    assert not set(ids("run.repeat=2")) & set(ids("run.repeat=2", seed=2))


def test_every_combination_of_the_sweep_is_run(tmp_path):
    (tmp_path / "manifests").symlink_to(DEMO.parent / "manifests")
    file = tmp_path / "sweep.yaml"
    data = yaml.safe_load(DEMO.read_text()) | {"sweep": {"nodes.count": [2, 3], "replicas": [1, 4]}}
    file.write_text(as_yaml(data))
    experiment = simnet.load_experiment(file, settings=["run.repeat=1"])
    assert [run.point for run in experiment.runs if run.variant == "node-port"] == [
        (("nodes.count", nodes), ("replicas", replicas)) for nodes in (2, 3) for replicas in (1, 4)
    ]
    for run in experiment.runs:
        assert len(run.scenario.cluster.nodes) == dict(run.point)["nodes.count"]
        assert run.scenario.cluster.replicas == dict(run.point)["replicas"]


SWEPT = {"sweep": {"placement": ["spread", "packed"]}, "expect": [{"metric": "pod_share", "equals": "analytic"}]}


@pytest.mark.parametrize("changes", [{}, SWEPT], ids=["as it is", "swept"])
def test_the_resolved_file_asks_for_the_same_runs_and_resolves_to_itself(tmp_path, changes):
    (tmp_path / "manifests").symlink_to(DEMO.parent / "manifests")
    (tmp_path / "first.yaml").write_text(as_yaml(yaml.safe_load(DEMO.read_text()) | changes))
    first = simnet.load_experiment(tmp_path / "first.yaml")
    (tmp_path / "second.yaml").write_text(as_yaml(dict(first.resolved)))
    second = simnet.load_experiment(tmp_path / "second.yaml")
    assert [run.run_id for run in second.runs] == [run.run_id for run in first.runs]
    assert second.resolved == first.resolved


def test_quantities_of_every_kind_survive_being_written_out(tmp_path):
    (tmp_path / "manifests").symlink_to(DEMO.parent / "manifests")
    data = yaml.safe_load(DEMO.read_text())
    data["workload"]["flows"] = {
        "arrivals": {"bursty": {"rate": "12.5/s", "on": "100ms", "off": "1.5s", "periods": "constant"}},
        "packets": {"empirical": {"values": [1, 7], "weights": [0.25, 0.75]}},
        "packetSize": {"uniform": ["100B", "1kB"]},
        "gap": {"lognormal": {"mean": "1.5us", "sigma": 0.5}},
        "replySize": {"pareto": {"mean": "700B", "alpha": 1.5, "maximum": "9kB"}},
    }
    data["cluster"]["nodes"] = [{"name": "a"}, {"name": "b", "zone": "y"}]
    (tmp_path / "first.yaml").write_text(as_yaml(data))
    first = simnet.load_experiment(tmp_path / "first.yaml")
    flows = first.resolved["workload"]["flows"]
    assert flows["arrivals"] == {"bursty": {"rate": "12.5/s", "on": "100ms", "off": "1500ms", "periods": "constant"}}
    assert flows["gap"] == {"lognormal": {"mean": "1500ns", "sigma": 0.5}}
    (tmp_path / "second.yaml").write_text(as_yaml(dict(first.resolved)))
    second = simnet.load_experiment(tmp_path / "second.yaml")
    assert [run.run_id for run in second.runs] == [run.run_id for run in first.runs]


def test_a_service_may_answer_nobody(tmp_path):
    (tmp_path / "manifests").symlink_to(DEMO.parent / "manifests")
    data = yaml.safe_load(DEMO.read_text())
    data["workload"]["flows"]["replySize"] = "none"
    (tmp_path / "first.yaml").write_text(as_yaml(data))
    first = simnet.load_experiment(tmp_path / "first.yaml")
    assert all(run.scenario.workload.shape.reply_size_bytes is None for run in first.runs)
    assert first.resolved["workload"]["flows"]["replySize"] == "none"


def test_the_inputs_are_listed_with_their_digests():
    inputs = simnet.load_experiment(DEMO).inputs
    assert [Path(name).name for name in inputs] == ["nginx-demo.yaml", "nginx-demo.yaml"]
    assert len(set(inputs.values())) == 2


def test_every_key_of_the_file_has_a_meaning_and_no_meaning_is_left_over():
    from simnet.config.key_meanings import MEANINGS
    from simnet.config.schema import _sections

    models = {model.__name__: model for _, model in _sections(ExperimentModel, "")}
    assert set(MEANINGS) - {"ClusterFileModel"} == set(models)
    for name, model in models.items():
        assert set(MEANINGS[name]) == {field.alias or key for key, field in model.model_fields.items()}


def test_the_reference_of_keys_in_the_docs_is_current(repository):
    from simnet.config.schema import BEGIN, END, reference

    text = (repository / "docs" / "experiment-file.md").read_text()
    written = text[text.index(BEGIN) : text.index(END) + len(END)] + "\n"
    assert written == reference()


def test_the_json_schema_is_of_draft_7_and_knows_every_key():
    import json

    from simnet.config.schema import json_schema

    for cluster in (False, True):
        schema = json_schema(cluster=cluster)
        text = json.dumps(schema)
        assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
        assert "$defs" not in text
        assert "prefixItems" not in text
        references = {part.split('"')[0] for part in text.split('"$ref": "#/definitions/')[1:]}
        assert references <= set(schema["definitions"])
    properties = json_schema()["properties"]
    assert set(properties) == {field.alias or key for key, field in ExperimentModel.model_fields.items()}
    assert all("description" in each for each in properties.values())


def test_a_cluster_file_is_no_experiment(tmp_path):
    (tmp_path / "cluster.yaml").write_text("nodes: {count: 2}\n")
    with pytest.raises(InputError):
        simnet.load_experiment(tmp_path / "cluster.yaml")
