"""``python -m llama_core`` is ``llama-core``."""

import sys

from llama_core.cli import main

sys.exit(main())
