"""Many runs: a grid read from YAML, carried out by workers, each run recorded once."""

from klnorm_lib.lazily import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Failure": "execution",
        "Options": "execution",
        "Summary": "execution",
        "execute": "execution",
        "sweep": "execution",
    },
)
