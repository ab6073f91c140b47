"""Images per second of the loader, from JPEG files and from the cache, beside PyTorch's DataLoader.

Command:  python benchmarks/loader.py [--images 2000] [--size 224] [--rounds 5]
Hardware: any processor with nothing else to do; no accelerator
Minutes:  about five on two cores (the first line printed says how many it took)

All lanes do the same work: random resized crop (bicubic) and flip, whole batches of uint8. The JPEGs are drawn first:
blurred colours of all sizes under a little noise, quality 90. The lanes take turns, a whole epoch each in every round.
The clock of an epoch runs from the moment when each worker has made a batch to the last batch, so that starting and
ending threads or processes is not counted. The median of the rounds is shown, and the same per core that the lane's
workers can use. PyTorch's lanes (left out where it is not installed) decode, crop, resize and flip with Pillow alone,
as its users do, and must give the same images.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from lpi_jax.data import batches, loader, transforms
from lpi_jax.data.cache import cached
from lpi_jax.data.sources.jsonl import Options, jsonl
from lpi_jax.data.stream import Split
from lpi_jax.problems.retrieval.source import Pairs

SEED, TASK = 0, 0
TORCH = "PyTorch DataLoader"


class Lane(NamedTuple):
    """A way to load: `epoch` gives the batches of an epoch, [B, S, S, 3] uint8 each. Workers 0: the main thread."""

    name: str
    source: str
    workers: int
    epoch: Callable[[int], Iterator[np.ndarray]]


def main() -> None:
    """Draws the images, times the lanes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224, help="side of the crops, pixels")
    parser.add_argument("--side", type=int, default=256, help="shorter side of the cached images, pixels")
    parser.add_argument("--width", type=int, default=640, help="of the JPEGs, pixels")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=loader.WORKERS, help="processes, in lanes with processes")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    least = (max(args.workers, loader.WORKERS) + 1) * args.batch
    if args.images < least:
        parser.error(f"--images is {args.images}, expected at least {least}: a batch for each worker and one more")
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask for absl's flags

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw_jpegs(folder, args.images, args.width, args.height)
        stream = jsonl(Options(str(write_manifest(folder, paths))))
        started = time.perf_counter()
        kept = cached(stream, folder / "cache", args.side)
        building = args.images / (time.perf_counter() - started)
        lanes = [
            *our_lanes(stream.tasks[0].train, "JPEG", args),
            *torch_lanes(paths, args),
            *our_lanes(kept.tasks[0].train, "cache", args),
        ]
        refuse_other_images(lanes)
        rates = measure(lanes, args.rounds)
        size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"Command:  {' '.join(['python', *sys.argv])}")
    print(f"Hardware: {os.cpu_count()} cores, {processor()}; {(time.perf_counter() - began) / 60:.1f} minutes")
    print(f"Images:   {args.images} JPEGs of {args.width} x {args.height}, {size / 1000:.0f} kB on average")
    print(f"Cache:    shorter side {args.side}, made at {building:.0f} images/s\n")
    print(table(lanes, rates))


def draw_jpegs(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Writes `count` images with structure of all sizes, about as hard to decode as photographs."""
    paths = []
    for number in range(count):
        rng = np.random.default_rng([SEED, number])
        image = rng.normal(0, 4, (height, width, 3))
        for cells, contrast in ((4, 60), (16, 30), (64, 15)):
            coarse = rng.normal(128, contrast, (cells, cells, 3)).clip(0, 255).astype(np.uint8)
            image += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 3.0
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def write_manifest(folder: Path, paths: list[Path]) -> Path:
    """A JSON Lines file of one task: all images for training; a stream wants one for validation, too."""
    (folder / "val.jpg").write_bytes(paths[0].read_bytes())
    splits = {**{path.name: "train" for path in paths}, "val.jpg": "val"}
    rows = [{"image": name, "captions": ["an image"], "task": "one", "split": split} for name, split in splits.items()]
    manifest = folder / "images.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return manifest


def our_lanes(split: Split, source: str, args: argparse.Namespace) -> list[Lane]:
    """The loader as it is, and the same work in processes instead of threads."""
    transform = loader.Transform(args.size, "random")
    source = Pairs(split, transform, lambda words, placeholders: np.ones((len(words), 77), np.int32), 0, False)
    plan = batches.Plan({TASK: source}, TASK, args.batch, SEED)
    steps = plan.steps_per_epoch

    def threads(epoch: int) -> Iterator[np.ndarray]:
        made = batches.training_batches(plan, epoch * steps, (epoch + 1) * steps)
        return (batch["images"] for batch in made)

    def processes(epoch: int) -> Iterator[np.ndarray]:
        return in_processes(EpochBatch(split, transform, args.batch, epoch), steps, args.workers)

    return [
        Lane("ours, threads", source, loader.WORKERS, threads),
        Lane("ours, processes", source, args.workers, processes),
    ]


@dataclass(frozen=True)
class EpochBatch:
    """Position in an epoch -> the batch's images. A plain record, so that it reaches worker processes."""

    split: Split
    transform: loader.Transform
    batch: int
    epoch: int

    def __call__(self, position: int) -> np.ndarray:
        """[B, S, S, 3] uint8."""
        order = batches.order(SEED, TASK, self.epoch, len(self.split))
        chosen = order[position * self.batch : (position + 1) * self.batch]
        return np.stack([self.transform(self.split.load(i), (SEED, TASK, self.epoch, i)) for i in chosen])


def in_processes(make: Callable[[int], np.ndarray], steps: int, workers: int) -> Iterator[np.ndarray]:
    """map(make, range(steps)) by Grain's worker processes."""
    import grain

    no_threads = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    data = grain.MapDataset.range(steps).map(make).to_iter_dataset(no_threads)
    reading = iter(data.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=1)))
    try:
        yield from reading
    finally:
        reading.close()


@dataclass(frozen=True)
class PillowImages:
    """What a PyTorch user's data set does: index -> [S, S, 3] uint8 with Pillow alone; crops as in our lanes."""

    paths: list[Path]
    size: int
    epoch: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """[S, S, 3] uint8."""
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        rng = np.random.default_rng([SEED, TASK, self.epoch, index])
        limits = loader.Transform(self.size).scale, (3 / 4, 4 / 3)
        top, left, height, width = transforms.random_box(image.height, image.width, rng, *limits)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image)


def torch_lanes(paths: list[Path], args: argparse.Namespace) -> list[Lane]:
    """PyTorch's DataLoader with worker processes and without; none where PyTorch is not installed."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        print("PyTorch is not installed: its lanes are left out", file=sys.stderr)
        return []

    def lane(workers: int) -> Lane:
        def epoch(number: int) -> Iterator[np.ndarray]:
            order = batches.order(SEED, TASK, number, len(paths)).tolist()
            data = PillowImages(paths, args.size, number)
            made = DataLoader(data, args.batch, sampler=order, num_workers=workers, drop_last=True)
            return (batch.numpy() for batch in made)

        return Lane(TORCH, "JPEG", workers, epoch)

    return [lane(args.workers), lane(0)]


def refuse_other_images(lanes: list[Lane]) -> None:
    """Ends the benchmark where two lanes do not make the same of the same files. Warms up all of them."""
    firsts: dict[str, np.ndarray] = {}
    for lane in lanes:
        batches = lane.epoch(0)
        own = next(batches)
        for _ in batches:
            pass
        if not np.array_equal(own, firsts.setdefault(lane.source, own)):
            sys.exit(f"{lane.name}, {lane.workers} workers: other images from {lane.source} than the lanes before")


def measure(lanes: list[Lane], rounds: int) -> list[float]:
    """Images per second of each lane, the median over rounds in which every lane has its turn."""
    rates: list[list[float]] = [[] for _ in lanes]
    for number in range(rounds):
        for lane, own in zip(lanes, rates, strict=True):
            batches = lane.epoch(number)
            for _ in range(max(lane.workers, 1)):  # when each worker has made one, all are at work
                next(batches)
            began = time.perf_counter()
            made = [(len(batch), time.perf_counter()) for batch in batches]
            own.append(sum(images for images, _ in made) / (made[-1][1] - began))
    return [statistics.median(own) for own in rates]


def table(lanes: list[Lane], rates: list[float]) -> str:
    """Markdown, with the ratio to PyTorch's worker processes, if they were measured."""
    peer = next((rate for lane, rate in zip(lanes, rates, strict=True) if lane.name == TORCH), None)
    lines = [
        "| loader | from | workers | images/s | images/s and core | ratio to PyTorch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for lane, rate in zip(lanes, rates, strict=True):
        cores = min(max(lane.workers, 1), os.cpu_count() or 1)
        ratio = f"{rate / peer:.2f}" if peer else "-"
        lines.append(f"| {lane.name} | {lane.source} | {lane.workers} | {rate:.0f} | {rate / cores:.0f} | {ratio} |")
    return "\n".join(lines)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
