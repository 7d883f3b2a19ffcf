"""One run and its record: ``study.run(study.Run("mrpc", "klnorm-tiny", "klnorm"), records="records/run.jsonl")``."""

from klnorm_lib.study.audio import prepare_audio
from klnorm_lib.study.errors import NotFiniteError, RecordError, StudyError
from klnorm_lib.study.fit_protocol import register
from klnorm_lib.study.fits import FITS
from klnorm_lib.study.hashing import hash_of_record
from klnorm_lib.study.record import Record, schema
from klnorm_lib.study.runner import run, run_hash, run_hashes
from klnorm_lib.study.spec import Run
from klnorm_lib.study.store import append, read_records, repair

__all__ = [
    "NotFiniteError",
    "Record",
    "RecordError",
    "Run",
    "StudyError",
    "append",
    "hash_of_record",
    "prepare_audio",
    "read_records",
    "repair",
    "run",
    "run_hash",
    "run_hashes",
    "schema",
]

for _fit in FITS:
    register(_fit)
