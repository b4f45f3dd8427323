"""From journal events to MLflow, in the background. The only importer of MLflow.

The journal is the truth and MLflow a copy of it for reading. So a write is never waited for, a failure never reaches
the search, and whatever is missing is made good by writing the same events again.

An event passes three parts: `Projection` (pure: event -> what is to be written), `Store` (finds or creates the run
and writes; writing twice changes nothing) and `MlflowTracker` (queue, thread, retries). The model registry
(`register`) and files beside a search's run (`attach`) are written at once, by whoever decides or reports.
"""

from nas.tracking.registry import NotWritten, attach, register
from nas.tracking.tracker import MlflowTracker, rebuild

__all__ = ["MlflowTracker", "NotWritten", "attach", "rebuild", "register"]
