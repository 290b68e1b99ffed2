"""The supervision table of the IPAM actors: what follows a crash, and who stops first.

What must always hold: `order` follows the direction of calls (gc, endpoint, pool, block; views and ledger
hear of what blocks did, so they end last), so that while the process stops everything below an actor still
answers it. A kind may crash a few times, for state in the store is all that matters; a kind that goes on
crashing has met something that a restart does not cure, and the process ends with a message instead of
refusing pods in silence.
"""

from __future__ import annotations

from actors.runtime import Child, Restart

TABLE = (
    Child("overlap-review", Restart.ON_USE, order=0, max_crashes=50, period=60.0),
    Child("subnet-review", Restart.ON_USE, order=0, max_crashes=50, period=60.0),
    Child("network-review", Restart.ON_USE, order=0, max_crashes=50, period=60.0),
    Child("gc", Restart.ON_USE, order=0, max_crashes=5, period=60.0),
    # Works unasked, as the views do.
    Child("sandbox-watch", Restart.AT_ONCE, order=0, max_crashes=5, period=60.0),
    Child("watches", Restart.ON_USE, order=0, max_crashes=20, period=60.0),
    # Endpoints meet whatever pods ask for: one of a bad pod hurts nobody but that pod, however often it crashes.
    Child("endpoint", Restart.ON_USE, order=1, max_crashes=None),
    Child("auto-pools", Restart.AT_ONCE, order=1, max_crashes=50, period=60.0),
    Child("subnet", Restart.ON_USE, order=2, max_crashes=10, period=60.0),
    Child("pool", Restart.ON_USE, order=2, max_crashes=10, period=60.0),
    Child("block", Restart.ON_USE, order=3, max_crashes=10, period=60.0),
    # These work unasked: nobody would call the views back to life.
    Child("views", Restart.AT_ONCE, order=4, max_crashes=5, period=60.0),
    Child("coordinator", Restart.AT_ONCE, order=4, max_crashes=5, period=60.0),
    Child("multus-config", Restart.ON_USE, order=0, max_crashes=20, period=60.0),
    # What it tells is news, and no address depends on it.
    Child("events", Restart.ON_USE, order=4, max_crashes=None),
    Child("ledger", Restart.AT_ONCE, order=5, max_crashes=5, period=60.0),
)
