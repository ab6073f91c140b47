"""What a run is told that belongs to none of its parts."""

from dataclasses import dataclass

from lpi_jax.options import SENT, option


@dataclass(frozen=True)
class Run:
    """Keys without a section."""

    preset: str = option("intended", "which preset this was made from, for the record", kind="speed")
    task_id: str = option(
        "inferred",
        "inferred: from the item; oracle: the true task",
        choices=("inferred", "oracle"),
        reader=SENT,
    )
    reuse: str = option(
        "",
        "folder of a finished run: measures its prompts in this way instead of training",
        kind="place",
        content="reuse",
    )
    seed: int = option(0, "decides initial prompts, order of the data, crops and the starts of k-means", least=0)
    backbone: str = option(
        "bundled",
        "bundled, a folder, a hub id, or one .safetensors or .npz file with OpenAI's names",
        kind="place",
        content="backbone",
    )
    tokenizer: str = option("", "folder or hub id; '': where the backbone is", kind="place", content="tokenizer")
    dtype: str = option("float32", "what the backbone computes in", choices=("float32", "bfloat16"))
    matmul_precision: str = option(
        "highest", "of float32 products; fewer bits on TPU and GPU are faster", choices=("highest", "high", "default")
    )
    devices: int = option(0, "how many to use; 0: all", kind="speed", least=0)
    fsdp: int = option(1, "devices that share one copy of the frozen backbone", kind="speed", least=1)
    distributed: bool = option(False, "one of several processes that were started with the same command", kind="speed")
    compilation_cache: str = option(
        "auto", "of compiled programs: auto (the user's cache folder), off, or a folder", kind="speed"
    )
