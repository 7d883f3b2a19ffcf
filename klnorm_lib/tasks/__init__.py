"""Where data comes from: a registry of text and audio tasks and three sources that are never mixed up.

``names()`` lists the tasks, ``spec(name)`` describes one, ``load(name, size, split_seed, source)`` gives its splits,
``load_with_provenance`` also says where the rows came from, ``from_file`` turns a reader's own table into a task,
``fill_mirror`` copies tasks from the hub into a mirror folder, ``planted(name)`` tells what a built-in task hides.
"""

from klnorm_lib.lazily import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "CorruptDataError": "errors",
        "LayoutError": "errors",
        "OODSpec": "task_spec",
        "SOURCES": "registry",
        "SourceUnavailableError": "errors",
        "TaskError": "errors",
        "TaskSpec": "task_spec",
        "UnknownTaskError": "errors",
        "fill_mirror": "fill",
        "from_file": "files",
        "load": "loading",
        "load_with_provenance": "loading",
        "names": "registry",
        "planted": "registry",
        "spec": "registry",
    },
)
