"""One run and its record: ``study.run(study.Run("mrpc", "klnorm-tiny", "klnorm"), records="records/run.jsonl")``."""

from klnorm_lib.study.audio import prepare_audio
from klnorm_lib.study.errors import NotFiniteError, RecordError, StudyError
from klnorm_lib.study.record import Record, schema
from klnorm_lib.study.run import run, run_hash
from klnorm_lib.study.spec import Run
from klnorm_lib.study.store import append, read_records, repair

__all__ = [
    "NotFiniteError",
    "Record",
    "RecordError",
    "Run",
    "StudyError",
    "append",
    "prepare_audio",
    "read_records",
    "repair",
    "run",
    "run_hash",
    "schema",
]
