"""What makes a run comparable with others: equal keys are one row of a table, some of them one table."""

from pathlib import Path
from typing import Any

from lpi_jax.config import records
from lpi_jax.report.checked import a_list, text
from lpi_jax.report.metrics import described

Result = dict[str, Any]

# Keys of which runs of one row may differ: the seeds, and the preset, which stands in the row's label.
IGNORED = {"seed", "data.seed", "preset"}


def comparable_keys(result: Result, record: dict[str, Any], path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a run with their values; among them `label`, what its row is called, and `stream`.

    Args:
      result: the parsed results.json. record: the parsed config.json. path: where it lies. config: its dotted keys.

    Raises:
      UserError: a configuration of another version. KeyError, TypeError, ValueError: damaged results.
    """
    # The pictures of `scenes` follow the seed; a file is the same or another one.
    data = "" if config["data.name"] == "scenes" else record["stream"]
    keys = {"stream": str(result["stream"]["name"]), "data": data, "backbone": result["parameters"]["backbone_sha256"]}
    keys |= {key: value for key, value in records.telling(record, path).items() if key not in IGNORED}
    keys["problem"] = text(result["problem"])
    keys["metrics"] = {metric.name: metric for metric in described(result["metrics"])}
    keys["items"] = {side: text(entry["label"]) for side, entry in result["items"].items()}
    keys["eval.transform"] = str(config["eval.transform"])
    keys["tasks"] = f"{len(result['tasks'])} of {len(result['tasks']) + len(a_list(result['tasks_to_come']))} tasks"
    keys["label"] = _label(result) + (f", {keys['tasks']}" if result["tasks_to_come"] else "")
    return keys


def _label(result: Result) -> str:
    if not result["trains"]:
        return "zero-shot"
    return text(result["label"]) + (", task known" if result["routed"] == "given" else "")
