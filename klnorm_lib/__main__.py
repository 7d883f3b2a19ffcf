"""``python -m klnorm_lib`` is ``klnorm``."""

from klnorm_lib.cli import app

if __name__ == "__main__":
    app(prog_name="klnorm")
