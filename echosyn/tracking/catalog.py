"""What MLflow knows beside runs: datasets that went in, models with their versions, saved views.

Functions of MLflow's client; with `store`, the only module that knows MLflow. Each is harmless when
repeated. The bytes of data and models are DVC's: MLflow has their md5.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

HOUR = 3_600_000  # milliseconds


def history(client: Any, stages: str, made_of: Mapping[str, str]) -> tuple[int, float] | None:
    """When the first of the stages that made these outputs began (milliseconds), and their hours
    together; None when no run of them is known.

    Args:
        stages: id of the experiment of stages. made_of: md5 by path.
    """
    runs = {}
    for path, md5 in made_of.items():
        if (run := producer(client, stages, path, md5)) and run.info.end_time:
            runs[run.info.run_id] = run.info
    if not runs:
        return None
    spent = sum(info.end_time - info.start_time for info in runs.values())
    return min(info.start_time for info in runs.values()), spent / HOUR


def producer(client: Any, stages: str, path: str, md5: str) -> Any:
    """The run of a stage that made an output: the first that finished and knows it."""
    where = f"tags.`md5:{path}` = '{md5}' and attributes.status = 'FINISHED'"
    found = client.search_runs([stages], where, max_results=1, order_by=["attributes.end_time ASC"])
    return found[0] if found else None


def log_dataset(client: Any, run_id: str, dataset: Mapping[str, Any]) -> None:
    """A dataset as an input of a run: name, digest, source (a path of the project), context, and
    profile (counts)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps(dataset["profile"])
    entity = Dataset(dataset["name"], dataset["digest"], "dvc", dataset["source"], profile=profile)
    tag = InputTag("mlflow.data.context", dataset["context"])
    client.log_inputs(run_id, datasets=[DatasetInput(entity, [tag])])


def log_model(client: Any, run_id: str, stages: str, model: Mapping[str, str]) -> None:
    """A model that a run used: as LoggedModel of the run that trained it, as the next version of
    `registered` in the registry, and there as `candidate`.

    model: path, md5, and registered, the name in the registry.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    path, md5, name = model["path"], model["md5"], model["registered"]
    known = client.search_logged_models([stages], f"tags.md5 = '{md5}'", max_results=1)
    if known:
        logged = known[0]
    else:
        made = producer(client, stages, path, md5)
        source = made.info.run_id if made else None
        made = client.create_logged_model(
            stages, path.replace("/", "-"), source, {"md5": md5, "path": path}
        )
        logged = client.finalize_logged_model(made.model_id, "READY")
        if source:
            client.log_outputs(source, [LoggedModelOutput(logged.model_id, 0)])
    client.log_inputs(run_id, models=[LoggedModelInput(logged.model_id)])
    _register(client, name, md5, logged)


def _register(client: Any, name: str, md5: str, logged: Any) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="The bytes are DVC's: see the tag md5.")
    versions = client.search_model_versions(f"name = '{name}'")
    same = [v for v in versions if v.tags.get("md5") == md5]
    if not same:
        # MLflow looks a `models:/` source up in its global store, which need not be this one.
        same = [
            client.create_model_version(
                name, logged.artifact_location, logged.source_run_id, {"md5": md5}
            )
        ]
    client.set_registered_model_alias(name, "candidate", same[0].version)


def set_alias(client: Any, models: Sequence[Mapping[str, str]], alias: str, given: bool) -> None:
    """Give models that `log_model` registered an alias in the registry, or take it from those of
    them that have it."""
    for model in models:
        name = model["registered"]
        versions = client.search_model_versions(f"name = '{name}'")
        for version in (v.version for v in versions if v.tags.get("md5") == model["md5"]):
            if given:
                client.set_registered_model_alias(name, alias, version)
            elif str(client.get_registered_model(name).aliases.get(alias)) == str(version):
                client.delete_registered_model_alias(name, alias)


def view_tag(key: str, charted: Sequence[str], *more: str) -> tuple[str, str]:
    """The tag of an experiment that is a saved view of its runs: these metrics as columns, and
    `charted` as parallel coordinates in the chart view: one that no run has would hide them all.
    The UI opens it at `viewStateShareKey=<key>`."""
    chart = {
        "uuid": key,
        "type": "PARALLEL",
        "runsCountToCompare": 20,
        "metricSectionId": key,
        "deleted": False,
        "isGenerated": False,
        "selectedParams": [],
        "selectedMetrics": list(charted),
        "showAllRuns": True,
    }
    section = {
        "uuid": key,
        "name": "Headline numbers",
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
        "columns": 1,  # the chart is as wide as the page
    }
    state = {
        "selectedColumns": [f"metrics.`{name}`" for name in (*charted, *more)],
        "compareRunCharts": [chart],
        "compareRunSections": [section],
        "isAccordionReordered": True,  # or sections are sorted by name
    }
    return f"mlflow.sharedViewState.{key}", json.dumps(state)
