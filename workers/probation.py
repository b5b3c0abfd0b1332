"""One suspect at a time in a worker."""


class Probation:
    """The only place for suspects in this process, whichever model they want. Used from the event loop.

    A suspect is a request whose last worker ended before anything came of it. It may have killed that worker, or have
    died beside one that did. Started together again, all of them would count one more failure each and end as dead
    letters for what one has done. Alone, only the guilty one fails again; the others get through and are cleared.
    """

    def __init__(self) -> None:
        self._run_id: str | None = None

    def enter(self, run_id: str) -> bool:
        """Take the place, or have it already; False while another one is in it."""
        if self._run_id is None:
            self._run_id = run_id
        return self._run_id == run_id

    def leave(self, run_id: str) -> None:
        """Free the place, if this run is in it: cleared, or gone from this worker."""
        if self._run_id == run_id:
            self._run_id = None

    def holds(self, run_id: str) -> bool:
        return self._run_id == run_id
