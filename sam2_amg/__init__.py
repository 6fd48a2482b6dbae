"""SAM 2.1's automatic mask generator, over HTTP and in Python. Start reading at docs/architecture.md.

from sam2_amg import load

records = load().generate("photo.jpg")
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sam2_amg.errors import StartupError
    from sam2_amg.library import Segmenter, load

__all__ = ["Segmenter", "StartupError", "load"]
_HOMES = {"Segmenter": "library", "StartupError": "errors", "load": "library"}


def __getattr__(name: str) -> object:
    """What stands in `__all__`, imported when it is asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from sam2_amg.process.account import complete_account

    complete_account()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
