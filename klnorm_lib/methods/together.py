"""Several methods as one, under one name: what a command line or a record says of ``apply(model, first, second)``."""

from __future__ import annotations

from dataclasses import dataclass

from klnorm_lib.methods.contract.method import Method

PLUS = "+"


@dataclass(frozen=True)
class Together:
    """Methods that are applied in one call, in this order.

    ``name`` joins theirs with ``+``; a hyperparameter is called ``method.field``. Raises ``ValueError`` for fewer than
    two methods, or for one that comes twice.
    """

    methods: tuple[Method, ...]

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"methods together are at least two different ones, got {PLUS.join(names) or 'none'}")

    @property
    def name(self) -> str:
        """The names of the methods, joined."""
        return PLUS.join(method.name for method in self.methods)

    @property
    def version(self) -> int:
        """Grows when a version of one of them does."""
        return sum(method.version for method in self.methods)

    @property
    def later(self) -> dict[str, object]:
        """Those of the methods, each under ``method.field``."""
        return {f"{method.name}.{key}": value for method in self.methods for key, value in method.later.items()}

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """The sum over the methods."""
        return sum(method.added_parameters(width, outputs) for method in self.methods)

    def to_dict(self) -> dict:
        """All hyperparameters as plain JSON, each under ``method.field``."""
        values = {"name": self.name}
        for method in self.methods:
            fields = {key: value for key, value in method.to_dict().items() if key != "name"}
            values |= {f"{method.name}.{key}": value for key, value in fields.items()}
        return values


def shares(name: str, fields: dict) -> dict[str, dict]:
    """Method -> its own hyperparameters, out of ``fields`` named ``method.field``.

    Raises ``ValueError`` for a field that names none of the methods in ``name``.
    """
    parts: dict[str, dict] = {part: {} for part in name.split(PLUS)}
    for key, value in fields.items():
        part, dot, field = key.partition(".")
        if not dot or part not in parts:
            raise ValueError(
                f"{name} has no hyperparameter {key}; write METHOD.FIELD, where METHOD is one of {', '.join(parts)}"
            )
        parts[part][field] = value
    return parts
