"""A configuration field in one place: default, rule, YAML key, description, and what it needs.

Validation, the YAML layout, the warnings of fields that have no effect and the README's table follow from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dqar.errors import invalid_value, short_repr
from dqar.validation import Rule

_KEY = "dqar"  # of an Option in a field's metadata


@dataclass(frozen=True)
class Need:
    """A condition on the other fields without which a field has no effect."""

    text: str
    met: Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of a configuration field beyond its type and default.

    Attributes:
        rule: What the field may hold.
        section: Section of the YAML file.
        key: Key in that section; empty = the field's name.
        description: What the field does; its first sentence stands alone.
        needs: Without these the field has no effect.
        neutral: Values that ask for nothing, and so need no effect; the default is one anyway.
    """

    rule: Rule
    section: str
    description: str
    key: str = ""
    needs: tuple[Need, ...] = ()
    neutral: tuple[Any, ...] = ()

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return self.description.partition(". ")[0].rstrip(".") + "."


def option(
    default: Any,
    rule: Rule,
    section: str,
    description: str,
    *,
    key: str = "",
    needs: tuple[Need, ...] = (),
    neutral: tuple[Any, ...] = (),
) -> Any:
    """Declare a configuration field in one place.

    Args:
        default: The field's default; it has to satisfy `rule`.
        rule: What the field may hold.
        section: Section of the YAML file, one of `dqar.config_yaml.SECTIONS`.
        description: What the field does; its first sentence stands alone. Line breaks count as spaces.
        key: Key in that section; empty = the field's name.
        needs: Without these the field has no effect.
        neutral: Values that ask for nothing, and so need no effect; the default is one anyway.

    Returns:
        A `dataclasses.field` that holds the `Option`; `Any`, so that it fits every field's type.
    """
    known = Option(
        rule=rule,
        section=section,
        description=" ".join(description.split()),
        key=key,
        needs=needs,
        neutral=neutral,
    )
    return dataclasses.field(default=default, metadata={_KEY: known})


def options(kind: type[Any]) -> Mapping[str, Option]:
    """What is known of a configuration class's fields.

    Args:
        kind: A dataclass whose fields are all declared by `option`.

    Returns:
        The options by field name, in the order of the fields.
    """
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(kind)}


def defaults(kind: type[Any]) -> Mapping[str, Any]:
    """The defaults of a configuration class.

    Args:
        kind: A dataclass whose fields all have a default.

    Returns:
        The defaults by field name, in the order of the fields.
    """
    return {field.name: field.default for field in dataclasses.fields(kind)}


def check_fields(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Check values against the rules of a configuration class.

    Args:
        kind: A dataclass whose fields are all declared by `option`.
        values: Values by field name; fields that are not named are not checked.

    Raises:
        InvalidValue: For the first that is not allowed, or that names no field.
    """
    known = options(kind)
    for name, value in values.items():
        if name not in known:
            raise invalid_value("field", name, ", ".join(known))
        known[name].rule.check(name, value)


def changed(config: Any) -> dict[str, Any]:
    """The fields whose values differ from their defaults.

    Args:
        config: An object of a configuration class.

    Returns:
        Their values by field name.
    """
    standard = defaults(type(config))
    values = {name: getattr(config, name) for name in standard}
    return {name: value for name, value in values.items() if value != standard[name]}


def without_effect(config: Any) -> dict[str, str]:
    """Fields that were changed and have no effect as the others stand.

    Args:
        config: An object of a configuration class.

    Returns:
        By field name a line that states why, for a warning.
    """
    known = options(type(config))
    warnings = {}
    for name, value in changed(config).items():
        unmet = [need.text for need in known[name].needs if not need.met(config)]
        if unmet and value not in known[name].neutral:
            warnings[name] = f"{name} = {short_repr(value)} has no effect: it needs {' and '.join(unmet)}"
    return warnings
