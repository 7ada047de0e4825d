"""A source, a target and faults for tests, of this program as of connectors that others write for it.

    target = MemoryTarget()
    source = ScriptedSource([first, Unavailable("the connection was lost"), second])
    faulty = FaultyTarget(target, [None, Fault.FAIL_AFTER_WRITE])
    Pipeline(lambda: source, lambda: faulty, queue_bytes=1 << 20).run()
    assert target.rows("public.orders") == [{"id": "1", "note": None}]
    assert source.acknowledged[-1] == second.checkpoint.position

`MemoryTarget` says what a target has to do, without a database in the way: a new target can be held against it. Nothing
here uses threads or looks at a clock, but for what waits, and that can be given another way to wait.
"""

from __future__ import annotations

from cdc.testing.batches import UNCHANGED as UNCHANGED
from cdc.testing.batches import Row as Row
from cdc.testing.batches import batch as batch
from cdc.testing.faulty import Fault as Fault
from cdc.testing.faulty import FaultyTarget as FaultyTarget
from cdc.testing.memory import MemoryTable as MemoryTable
from cdc.testing.memory import MemoryTarget as MemoryTarget
from cdc.testing.scripted import ScriptedSource as ScriptedSource
