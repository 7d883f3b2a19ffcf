"""Many runs: a grid read from YAML, carried out by workers, each run recorded once."""

from klnorm_lib.sweep.execution import Failure, Options, Summary, execute, sweep

__all__ = ["Failure", "Options", "Summary", "execute", "sweep"]
