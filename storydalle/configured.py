"""Networks that remember the settings they were built of: a frozen dataclass, whose fields are the keys of config.json.

  @dataclass(frozen=True)
  class EyeSettings(NetworkSettings):
      dim: int = 32
      depths: tuple[int, ...] = (1, 2)

  class Eye(Configured, nn.Module):
      settings: EyeSettings

      def __init__(self, *values: object, **named: object) -> None:
          super().__init__()
          self.settings = settings = EyeSettings.of(*values, **named)

  Eye(dim=8).config == {"dim": 8, "depths": [1, 2]}     # what a file holds
  Eye(**Eye(dim=8).config)                              # the same network again

A field without a default must be given, and an unknown one is refused. Older files lack newer settings, so the default
of a new setting must be what networks did before.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar, get_type_hints

from storydalle.settings import read

S = TypeVar("S", bound="NetworkSettings")
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class NetworkSettings:
    """The settings of one network; a subclass checks in ``__post_init__`` what depends on several settings."""

    @classmethod
    def of(cls: type[S], *values: object, **named: object) -> S:
        """Settings as a caller, a recipe or a file gives them, each read as its annotation says.

        Raises TypeError, like every constructor, for a setting that is unknown or missing, and ValueError for one of
        the wrong type.
        """
        given, hints = inspect.signature(cls).bind(*values, **named).arguments, get_type_hints(cls)
        return cls(**{name: own_kind(name, value, hints[name]) for name, value in given.items()})

    def to_config(self) -> dict[str, object]:
        """Plain values, as JSON has them."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


class Configured:
    """A network with settings; the signature of a subclass lists what it takes, as for any function."""

    settings: NetworkSettings
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if settings := inspect.get_annotations(cls).get("settings"):
            _, *own = inspect.signature(cls.__init__).parameters.values()
            first, last = ([part for part in own if part.kind is kind] for kind in NAMED)
            cls.__signature__ = inspect.Signature([*first, *inspect.signature(settings).parameters.values(), *last])

    @property
    def config(self) -> dict[str, object]:
        """The settings as plain values: the arguments of the constructor, to build the same again."""
        return self.settings.to_config()


def own_kind(name: str, value: object, hint: object) -> object:
    """A value of the annotation's type: lists become tuples, and mappings become settings of a part."""
    if isinstance(hint, type) and issubclass(hint, NetworkSettings):
        return hint.of(**value) if isinstance(value, Mapping) else value
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = list(value)
    return read(name, value, hint)


def plain(value: object) -> object:
    """Settings of a part as a dictionary, tuples as lists."""
    if isinstance(value, NetworkSettings):
        return value.to_config()
    return list(value) if isinstance(value, tuple) else value
