"""What there is to compute on, asked for once and early: a fault of the machine is one sentence, not a traceback."""

import importlib.metadata
import logging
import re

import jax

from lpi_jax.errors import UserError, reason


def available() -> list[jax.Device]:
    """The devices that JAX finds, of all processes.

    To be asked before anything is read: JAX wakes its devices at the first question, and notices only then that it has
    none.

    Raises:
      UserError: JAX_PLATFORMS names a platform that is not here; or a plugin for an accelerator is installed but finds
        none it can use, where JAX would compute on the CPU instead.
    """
    asked, plugins = jax.config.jax_platforms, _Plugins()
    log = logging.getLogger("jax._src.xla_bridge")
    log.addFilter(plugins)
    try:
        devices = jax.devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError, without a word: JAX_PLATFORMS=cuda, and no GPU
        why = plugins.why(re.sub(r"\.? \((set|you may) .*", "", str(error)))
        if asked:
            raise UserError(
                f"JAX_PLATFORMS is {asked!r}, which cannot be used here ({why}); expected a platform whose device,"
                " driver and jaxlib are here, such as JAX_PLATFORMS=cpu"
            ) from error
        raise UserError(
            f"JAX cannot use the devices here ({why}); expected a driver that fits, or JAX_PLATFORMS=cpu to do without"
        ) from error
    finally:
        log.removeFilter(plugins)
    names = [plugin.name for plugin in importlib.metadata.entry_points(group="jax_plugins")]
    if names and not asked and all(device.platform == "cpu" for device in devices):
        raise UserError(
            f"JAX's plugin {', '.join(names)} is installed but finds no device that it can use ({plugins.why()});"
            " expected one, and a driver that fits, or JAX_PLATFORMS=cpu to do without"
        )
    return devices


class _Plugins(logging.Filter):
    """Hears of plugins that fail, which JAX only logs: with tracebacks, for which nobody has asked."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info or record.exc_info[1] is None:
            return True
        self._heard.append(reason(record.exc_info[1]))
        return False

    def why(self, known: str = "") -> str:
        """What is known of the reason, and what was heard."""
        parts = [" ".join(part.split())[:200] for part in (known, *self._heard) if part]
        return "; ".join(parts) or "there is no such device"
