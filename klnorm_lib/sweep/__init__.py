"""Many runs: a grid read from YAML, carried out by workers, each run recorded once."""
