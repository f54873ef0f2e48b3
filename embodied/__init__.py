"""Robot representation learning: pre-train encoders, freeze them, control with them."""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING

from embodied.core.extensions import install as _install_extensions

if TYPE_CHECKING:
    from embodied.encoders.load import load_encoder as load_encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder"]

# In a checkout `envs/`, `policies/`, ... lie beside this folder; an installed wheel holds them inside it.
# The links in this folder are for editors and type checkers: they must not be needed at run time.
_ROOT = _Path(__file__).resolve().parents[1]
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "envs").is_dir():
    __path__.append(str(_ROOT))

_install_extensions()  # folders of one's own methods, which `EMBODIED_EXTENSIONS` names


def __getattr__(name: str) -> object:
    # Lazy, so that `import embodied` (and `embodied --help`) does not pay for importing torch.
    if name == "load_encoder":
        from embodied.encoders.load import load_encoder

        return load_encoder
    raise AttributeError(f"module 'embodied' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
