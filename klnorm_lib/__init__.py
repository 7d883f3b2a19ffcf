"""Fine-tuning with few labels: KL-Norm, guided dropout and their controls."""

__version__ = "0.1.0"
