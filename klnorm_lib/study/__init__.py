"""One run and its record: ``study.run(study.Run("mrpc", "klnorm-tiny", "klnorm"), records="records/run.jsonl")``."""

from klnorm_lib.lazily import lazily
from klnorm_lib.study.fit_protocol import register
from klnorm_lib.study.fits import FITS

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "NotFiniteError": "errors",
        "NotWrittenError": "errors",
        "Record": "record",
        "RecordError": "errors",
        "Run": "spec",
        "StudyError": "errors",
        "append": "store",
        "hash_of_record": "hashing",
        "prepare_audio": "audio",
        "read_records": "store",
        "repair": "store",
        "run": "runner",
        "run_hash": "runner",
        "run_hashes": "runner",
        "schema": "record",
    },
)

for _fit in FITS:
    register(_fit)
