"""The package and what it needs; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lpi_jax" / "__init__.py").read_text()).group(1)

setup(
    name="lpi_jax",
    version=VERSION,
    description="Continual vision-language learning with low-rank prompts, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["lpi_jax", "lpi_jax.*"]),
    package_data={"lpi_jax": ["assets/*.csv", "assets/tiny_clip/*", "assets/tiny_llava/*"]},
    install_requires=[
        "jax>=0.10,<0.11",  # 0.11 breaks what 0.10 allowed
        "flax>=0.12,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "transformers>=5,<6",
        "tensorflow-datasets>=4.9.10,<5",
        "grain>=0.2.18,<0.3",
        "array_record>=0.8",
        "pyarrow>=17",  # Parquet, Arrow; versions before 14.0.1 may unpickle what they read
        "ml_collections>=1.1,<2",
        "chex>=0.1.92,<0.2",
        "absl-py>=2",
        "filelock>=3.13",
        "huggingface_hub>=1",
        "numpy>=2,<3",
        "pillow>=12",
        "safetensors>=0.6",
        "tensorboardX>=2.6.2",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.14", "tokenizers", "matplotlib>=3.9"],
        "parity": ["torch==2.13.0"],
        "bench": ["torch==2.13.0"],
        "experiments": ["matplotlib>=3.9", "tokenizers"],
        "cuda12": ["jax[cuda12]>=0.10,<0.11"],
        "cuda13": ["jax[cuda13]>=0.10,<0.11"],
        "tpu": ["jax[tpu]>=0.10,<0.11"],
    },
)
