"""Where data comes from: a registry of text and audio tasks and three sources that are never mixed up.

``names()`` lists the tasks, ``spec(name)`` describes one, ``load(name, size, split_seed, source)`` gives its splits,
``load_with_provenance`` also says where the rows came from, ``from_file`` turns a reader's own table into a task,
``fill_mirror`` copies tasks from the hub into a mirror folder, ``planted(name)`` tells what a built-in task hides.
"""

from .errors import CorruptDataError, LayoutError, SourceUnavailableError, TaskError, UnknownTaskError
from .files import from_file
from .fill import fill_mirror
from .loading import SOURCES, load, load_with_provenance
from .registry import names, planted, spec
from .task_spec import OODSpec, TaskSpec

__all__ = [
    "SOURCES",
    "CorruptDataError",
    "LayoutError",
    "OODSpec",
    "SourceUnavailableError",
    "TaskError",
    "TaskSpec",
    "UnknownTaskError",
    "fill_mirror",
    "from_file",
    "load",
    "load_with_provenance",
    "names",
    "planted",
    "spec",
]
