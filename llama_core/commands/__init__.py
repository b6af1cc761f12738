"""The commands of ``llama-core``, one module each: ``add_arguments(parser)`` and ``run(args)``.

Modules here import torch, and whatever imports torch, inside ``run`` only, so that help is there at once.
"""
