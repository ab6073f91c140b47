"""The scripts that start runs on clusters, against programs that only note how they are called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "experiments" / "launch"
RUN = ("--config=configs/coco_lpi.py", "--config.data.path=coco", "--workdir=runs/my run")
CLOUD = {"PROJECT": "p", "ZONE": "z", "BUCKET": "gs://b", "REPOSITORY": "https://host/r.git"}


@pytest.fixture
def called(tmp_path):
    """(script, arguments, environment, programs) -> status, stderr and how programs were called, line by line."""

    def run(script, *arguments, programs, **environment):
        folder, notes = tmp_path / "bin", tmp_path / "called"
        folder.mkdir(exist_ok=True)
        notes.unlink(missing_ok=True)
        for name, body in {"sleep": "exit 0", **programs}.items():
            (folder / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {notes}\n{body}\n')
            (folder / name).chmod(0o755)
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            capture_output=True,
            text=True,
            env={"PATH": path, **environment},
            timeout=60,
        )
        return done.returncode, done.stderr, notes.read_text().splitlines() if notes.exists() else []

    return run


def gcloud(*, state="ACTIVE", status=0, first_status=0):
    """A gcloud whose slices are in this state, and whose first run and later runs end with these."""
    return f"""
case "$*" in
  *describe*) test -e "$0.made" || exit 1; echo {state} ;;
  *create*) touch "$0.made" ;;
  *delete*) rm -f "$0.made" ;;
  *lpi_jax.main*) test -e "$0.once" && exit {status}; touch "$0.once"; exit {first_status} ;;
esac"""


def test_a_slice_is_made_installed_used_by_all_workers_and_given_back(called):
    status, _, lines = called("tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": gcloud()}, **CLOUD)
    assert status == 0
    assert all("--project=p --zone=z" in line for line in lines if line.startswith("gcloud"))
    kinds = [line.split()[3:5] for line in lines if line.startswith("gcloud")]
    calls = ["describe", "create", "describe", "ssh", "ssh", "ssh", "ssh", "ssh", "delete"]
    assert [kind[1] for kind in kinds] == calls
    made = next(line for line in lines if " create " in line)
    assert "--accelerator-type=v5litepod-16" in made and "--spot" in made
    (run,) = [line for line in lines if "lpi_jax.main" in line]
    assert "--worker=all" in run
    assert "--config.distributed=true" in run
    assert "'--workdir=runs/my run'" in run or "--workdir=runs/my\\ run" in run


def test_a_slice_that_is_taken_away_is_asked_for_again_and_the_run_goes_on(called):
    once = "if test -e $0.once && test ! -e $0.lost; then echo SUSPENDED; else echo ACTIVE; fi"
    lost = gcloud(first_status=1).replace("echo ACTIVE", once).replace('rm -f "$0.made"', 'rm "$0.made"; touch $0.lost')
    status, err, lines = called("tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": lost}, **CLOUD)
    assert status == 0
    assert "the slice is SUSPENDED; asking for another one" in err
    assert sum(" create " in line for line in lines) == 2
    runs = [line for line in lines if "lpi_jax.main" in line]
    assert len(runs) == 2 and runs[0] == runs[1]
    copied = [line for line in lines if "rsync --recursive gs://b/n" in line]
    assert len(copied) == 2


def test_a_slice_that_is_there_is_used_and_not_deleted(called):
    there = gcloud().replace('test -e "$0.made" || exit 1; ', "")
    status, _, lines = called("tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": there}, **CLOUD)
    assert status == 0
    assert not any(" create " in line for line in lines)
    deleted = [number for number, line in enumerate(lines) if " delete " in line]
    assert deleted == [len(lines) - 1]


def test_a_mistake_of_the_users_is_not_tried_again(called):
    status, _, lines = called(
        "tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": gcloud(first_status=2)}, **CLOUD
    )
    assert status == 2
    assert sum("lpi_jax.main" in line for line in lines) == 1


def test_a_run_that_fails_on_a_slice_that_is_there_says_so(called):
    status, err, lines = called(
        "tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": gcloud(first_status=7)}, **CLOUD
    )
    assert status == 7
    assert "the run ended with status 7, and the slice is still there" in err
    assert sum("lpi_jax.main" in line for line in lines) == 1


def test_a_dry_run_calls_nothing(called):
    status, _, lines = called(
        "tpu_slice.sh", "n", "v5litepod-16", *RUN, programs={"gcloud": "exit 1"}, DRY="1", **CLOUD
    )
    assert (status, [line for line in lines if "gcloud" in line]) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "NAME v5litepod-16"), (("n", "k", "--x"), "--workdir=DIR is missing")]
)
def test_what_is_missing_is_said(called, arguments, said):
    status, err, lines = called("tpu_slice.sh", *arguments, programs={"gcloud": ""}, **CLOUD)
    assert (status, lines) == (2, [])
    assert said in err


def test_a_slurm_job_whose_time_is_up_goes_into_the_queue_again(called):
    for ended, requeued in ((143, True), (0, False), (2, False)):
        programs = {"srun": f"exit {ended}", "scontrol": ""}
        status, _, lines = called("slurm.sbatch", *RUN, programs=programs, SLURM_JOB_ID="17")
        assert status == ended
        assert ("scontrol requeue 17" in lines) == requeued
        assert "lpi_jax.main" in lines[0] and "--config.distributed=true" in lines[0]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", ["tpu_slice.sh", "slurm.sbatch"])
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(["shellcheck", str(LAUNCH / script)], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


def test_the_pods_of_a_jobset_are_the_hosts_of_its_slice_and_their_chips_all_of_it():
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (jobset["kind"], jobset["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    (hosts,) = jobset["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["requests"]["google.com/tpu"]
    assert job["parallelism"] * chips == job["completions"] * chips == rows * columns
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert pod["restartPolicy"] == "Never"  # all start again together, or none
    assert "--config.distributed=true" in container["args"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(path.startswith("/work") for path in (a.split("=")[1] for a in container["args"]) if path[0] == "/")
    assert mounted == {"/work"}
