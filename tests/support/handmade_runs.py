"""Directories of finished runs that nobody ran: every number follows from a base, so that none can be mistaken."""

import json

from lpi_jax import config as configs

TASKS = ("fax", "comic", "aerial")
GROUPS = (("image_to_text", "image to text", "I→T", "image"), ("text_to_image", "text to image", "T→I", "text"))


def matrix(base, tasks=TASKS):
    """The rows R[s][t], t <= s."""
    return [[base + 5 * t - 2 * (s - t) for t in range(s + 1)] for s in range(len(tasks))]


def averages(base, forgetting=-2.0, tasks=TASKS):
    """What is measured of one metric, of whatever kind."""
    return {
        "matrix": matrix(base, tasks),
        "incremental_average": base + 0.25,
        "final_average": base + 0.5,
        "forgetting": forgetting,
        "chaudhry_forgetting": -forgetting,
        "backward_transfer": forgetting,
    }


def metric(base, chance=None, forgetting=-2.0, tasks=TASKS, **description):
    """One metric: the frozen backbone has 10 less; a guess `chance`, or nobody knows."""
    entry = {"unit": "%", "higher_is_better": True, **description, **averages(base, forgetting, tasks)}
    entry |= {"before_learning": [base - 5] * len(tasks), "forward_transfer": -5.0, "zero_shot_retention": 90.0}
    entry["frozen"] = averages(base - 10, forgetting, tasks)
    if chance is not None:
        kept = ("matrix", "incremental_average", "final_average")
        entry["chance"] = {key: value for key, value in averages(chance, tasks=tasks).items() if key in kept}
    return entry


def metrics(base=30, chance=None, tasks=TASKS):
    """The metrics of retrieval; k and direction shift all numbers."""
    entries = {}
    for d, (part, group, short, side) in enumerate(GROUPS):
        for k, shift in ((1, 0), (5, 20), (10, 30)):
            guess = None if chance is None else chance + d + shift
            words = {"label": f"R@{k}", "group": group, "short": short, "side": side}
            entries[f"{part}/R@{k}"] = metric(base + d + shift, guess, -2.0 - d, tasks, **words)
    return entries


def with_tasks(tasks=TASKS, base=30):
    """The results that depend on the tasks' names and number: 4, 5, 6 ... pictures, twice as many captions."""
    pictures = [4 + number for number in range(len(tasks))]
    captions = [2 * number for number in pictures]
    rows = [[100.0] * (s + 1) for s in range(len(tasks))]
    return {
        "tasks": list(tasks),
        "metrics": metrics(base, tasks=tasks),
        "routing": {
            "image": {"label": "images", "matrix": rows, "final_average": base + 40.0},
            "text": {"label": "captions", "matrix": rows, "final_average": base + 50.0},
        },
        "items": {
            "image": {"label": "images", "train": [9] * len(tasks), "val": pictures},
            "text": {"label": "captions", "train": [9] * len(tasks), "val": captions},
        },
    }


CONTROLS = {  # name -> label, whether the method answers, how far the base is moved, what it forgets
    "frozen_prior": ("zero-shot with a prior", False, -6, -1.0),
    "own_frozen": ("zero-shot, in the true task's items", False, 4, 0.0),
    "own": ("in the true task's items", True, 12, -0.5),
}
# The differences to them and to the frozen backbone with their bounds; the final average's are 3 below and 5 above it.
OVER = {"frozen": [10, 6, 13], "frozen_prior": [6, 2, 9], "own_frozen": [-4, -8, 1], "own": [-12, -15, -10]}


def controlled(base=30, chance=5, names=tuple(CONTROLS)):
    """Metrics of retrieval as they are written since there are controls; names: of the controls."""
    entries = metrics(base, chance)
    for entry in entries.values():
        of_metric = entry["final_average"] - 0.5
        entry["controls"] = {
            name: {"label": label, "measures_method": method, **averages(of_metric + moved, forgetting)}
            for name, (label, method, moved, forgetting) in CONTROLS.items()
            if name in names
        }
        for part, own in ((entry, "own"), (entry["frozen"], "own_frozen")):
            if own in names:
                fixed = entry["controls"][own]["forgetting"]
                part |= {"forgetting_fixed_gallery": fixed, "gallery_growth": part["forgetting"] - fixed}
        over = {name: bounds for name, bounds in OVER.items() if name in ("frozen", *names)}
        entry["bootstrap"] = {"interval": [of_metric + 0.5 - 3, of_metric + 0.5 + 5], "over": over}
        entry["chance"]["forgetting"] = -2.5
    return entries


def with_future(entries):
    """The same, measured on all of four tasks, one of which is to come, after each of three: s + t above their base."""
    for entry in entries.values():
        base = entry["final_average"] - 0.5
        future = {"matrix": [[base + s + t for t in range(4)] for s in range(3)], "frozen": [base - 10.0] * 4}
        # Transfer: tasks 1, 2, 3 have the means of 1; 2, 3; 3, 4, 5.
        entry["future"] = future | {"transfer": base + 2.5, "average": base + 2.5, "last": base + 3.5}
    return entries


def probes(base=30):
    """Items of no task: every headline metric falls by 1 a task."""
    names = [f"{part}/R@1" for part, *_ in GROUPS]
    return {"flags": {name: {"values": [base - 1.0, base - 2.0, base - 3.0], "frozen": float(base)} for name in names}}


def routing():
    """Where the items went, in full."""
    images = {"matrix": [[3, 1, 0], [0, 5, 0], [1, 1, 4]]}
    captions = {"matrix": [[6, 1, 1], [2, 8, 0], [0, 0, 9]], "none": [0, 0, 3]}
    of_images, of_captions = [75.0, 100.0, 66.6], [75.0, 80.0, 75.0]
    first = [[100.0], [90.0, 100.0]]
    return {
        "image": {"label": "images", "matrix": [*first, of_images], "final_average": 80.5, "confusion": images},
        "text": {"label": "captions", "matrix": [*first, of_captions], "final_average": 76.7, "confusion": captions},
    }


def known(base=30):
    """What results of retrieval hold beside those of `with_tasks`: what a guess finds, and where items went."""
    return {"metrics": metrics(base, chance=5), "routing": routing()}


def invented(names=("accuracy",), base=30, forgetting=-2.0):
    """The results of a problem that there is not: cards with one metric, or two of which the second is a loss."""
    of_cards = {"label": "accuracy", "group": "cards", "short": "C", "side": "card"}
    of_loss = {"label": "log loss", "group": "surprise", "short": "S", "side": "card", "unit": "nats"}
    entries = {
        "accuracy": metric(base, forgetting=forgetting, **of_cards),
        "log loss": metric(base / 8, forgetting=-forgetting / 8, higher_is_better=False, **of_loss),
    }
    return {
        "problem": "cards",
        "method": "shuffle",
        "label": "Shuffle twice",
        "routed": "none",
        "metrics": {name: entries[name] for name in names},
        "routing": {},
        "items": {"card": {"label": "cards", "train": [9, 9, 9], "val": [4, 5, 6, 7]}},
    }


def results(base, method, preset, told):
    """All of results.json, as a run of retrieval writes it."""
    trains = method != "zero_shot"
    written = {
        "schema": 2,
        "problem": "retrieval",
        "method": method,
        "label": f"{method.upper()} {preset}" if trains else "zero-shot",
        "preset": preset,
        "routed": "none" if not trains else "given" if told else "inferred",
        "trains": trains,
        "protocol": "After each task, <everything> is searched.",
        "precision": {"towers": "float32", "products": "highest"},
        "stream": {"name": "scenes", "sha256": "0" * 64, "notes": {}},
        "tasks_to_come": [],
        **with_tasks(base=base),
        "parameters": {"backbone_sha256": "b" * 64, "per_task": 5000 if trains else 0, "backbone": 2_000_000},
        "training_flops": [2 * 10**12 if trains else 0] * len(TASKS),
        "counts": {},
        "seconds": [{"training": 50.0, "evaluation": 10.0}] * len(TASKS),
        "peak_memory_mb": 1000 + base,
    }
    return written if trains else written | {"routing": {}}


def make(folder, name, base=30, preset="intended", result=None, record=None, **changes):
    """The directory of a run of retrieval, whose every number follows from `base`.

    Args:
      result, record: what else is in results.json and config.json. changes: of the configuration, `__` for a dot.
    """
    config = configs.preset(preset)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    content = results(base, config.method.name, config.preset, config.task_id == "oracle") | (result or {})
    directory = folder / name
    directory.mkdir()
    written = {"config": config.to_dict(), "stream": f"{config.seed:064d}", "backbone": "b" * 64, **(record or {})}
    (directory / "config.json").write_text(json.dumps(written))
    (directory / "results.json").write_text(json.dumps(content))
    return directory
