"""How pytest-xdist hands tests out to processes."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from support.session.kernelgroup import GROUP, in_group


class KernelInOneProcess(LoadScopeScheduling):
    """A file is a unit of work; all files that share the kernel are one, which goes out first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return GROUP if in_group(self.config.rootpath / file) else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if GROUP in self.workqueue:
            self.workqueue.move_to_end(GROUP, last=False)
        super()._assign_work_unit(node)
