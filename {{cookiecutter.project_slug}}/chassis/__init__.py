"""What every service of this template needs and no team wants to write. Updates of the template bring new versions.

It is given agents, routers, tables and revisions, and imports nothing of agents/, api/, db/ and tests/.
"""

import gc

# Imports and runs make much that lives on. Looking through it as often as Python does unless told otherwise takes a
# tenth of a run's time, and of a start's.
gc.set_threshold(50_000)

__version__ = "0.2.0"
