"""The ways to fit, a file each; a further one is a file here and a name in the list below."""

from klnorm_lib.study.fits.fine_tuning import FineTuning
from klnorm_lib.study.fits.frozen import Frozen
from klnorm_lib.study.fits.setfit import SetFit

FITS = (FineTuning, SetFit, Frozen)
