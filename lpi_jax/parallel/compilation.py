"""Compiled programs kept between starts, so that only the first start of a kind waits for the compiler.

They lie in the user's cache folder or in another one, in a subfolder of our own for every kind of processor: a program
compiled for another one might end the process, and other users of JAX do not keep to the limit of its size. JAX's own
variables come first: JAX_COMPILATION_CACHE_DIR moves them, JAX_ENABLE_COMPILATION_CACHE=false keeps none.
"""

import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

import filelock
import jax
from jax.experimental.compilation_cache import compilation_cache

AUTO, OFF = "auto", "off"
MAX_BYTES = 2 << 30  # of all kept programs; those not used for longest go first
LEAST_SECONDS = 0.1  # of compiling, from which a program is kept
_DATA, _USED = "-cache", "-atime"  # JAX's endings: a program, and when it was last used, which is written after it
_ROOM = 1 << 20  # bytes that must fit
_PATIENCE = 5.0  # seconds to wait for another process that looks after the same folder


def keep_compiled(setting: str = AUTO) -> Path | None:
    """Lets JAX keep compiled programs on disk from here on, and drops what a killed process left half-written.

    A folder that cannot be used is told on stderr and does no harm: programs are compiled as without it.

    Args:
      setting: as `config.compilation_cache`: `auto` (the user's cache folder, unless a variable or this process has
        chosen already), `off`, or a folder.

    Returns:
      Where they lie; None where none are kept.
    """
    if setting == OFF:
        _use(None)
        return None
    chosen = jax.config.jax_compilation_cache_dir
    if setting == AUTO and (chosen or not jax.config.jax_enable_compilation_cache):
        return Path(chosen) if chosen and jax.config.jax_enable_compilation_cache else None
    folder = users_folder() if setting == AUTO else _own_part(Path(setting).expanduser())
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with filelock.FileLock(folder / ".lockfile", timeout=_PATIENCE):  # JAX takes the same for each program
            _drop_unfinished(folder)
            _try_to_write(folder)
    except (OSError, NotImplementedError) as error:  # the second where the file system has no locks
        why = getattr(error, "strerror", None) or str(error)
        print(f"compiled programs are not kept: {folder} cannot be used ({why})", file=sys.stderr)
        return None
    _use(folder)
    return folder


def users_folder() -> Path:
    """Where compiled programs are kept by default: the user's cache folder, for this kind of processor."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _own_part(Path(base).expanduser() / "lpi_jax")


def _own_part(folder: Path) -> Path:
    return folder / f"compiled-{_processor()}"


def _use(folder: Path | None) -> None:
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    if folder is not None:
        # Where the disk fills up later a program is compiled anew; JAX would say so for each.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    compilation_cache.reset_cache()  # or what was compiled before has decided that there is none


def _drop_unfinished(folder: Path) -> None:
    """Deletes programs whose writing was interrupted: JAX would read them at every start, and never replace them."""
    for data in folder.glob(f"*{_DATA}"):
        if not data.with_name(data.name.removesuffix(_DATA) + _USED).exists():
            data.unlink(missing_ok=True)


def _try_to_write(folder: Path) -> None:
    """Raises OSError where there is no room, or only little: a program has some hundred kilobytes."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(bytes(_ROOM))
    finally:
        probe.unlink(missing_ok=True)


def _processor() -> str:
    """Eight letters for what the processor can do."""
    told = [platform.machine(), platform.processor()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            told += sorted({line for line in file if line.startswith(("flags", "Features", "model name"))})
    except OSError:  # not Linux: the two names must do
        pass
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]
