"""The folder ``conf/`` and the names in it."""

from pathlib import Path

import storydalle


def conf_folder() -> Path:
    """``conf/``: inside an installed package, or beside the package in a checkout."""
    package = Path(storydalle.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def config_names(group: str) -> list[str]:
    """Names of a config group, also in its sub-folders: ``toon/story_dalle``. ``_NAME`` is only a part of others."""
    folder = conf_folder() / group
    files = (path for path in folder.rglob("*.yaml") if not path.stem.startswith("_"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def config_groups() -> list[str]:
    return sorted(folder.name for folder in conf_folder().iterdir() if folder.is_dir())
