"""Which runs of a batch are computed together.

Runs in a group are padded to the longest, and so are their keys and values for the call. A pass reads all weights once,
whatever it computes: so it pays to put runs together as long as the padding costs less than that.
"""

from workers.runners.mlx.runs import Run

# A run joins a group when it is at least this part of the longest there.
_MIN_SHARE = 0.75


def group_runs(runs: list[Run], max_padding: int) -> list[list[Run]]:
    """Runs of about one length together, so that their keys and values are padded by `max_padding` tokens at most."""
    groups: list[list[Run]] = []
    padding = 0
    for run in sorted(runs, key=lambda run: (len(run.tokens), run.end_length), reverse=True):
        if groups and len(run.tokens) >= _MIN_SHARE * len(groups[-1][0].tokens):
            longest = max(other.end_length for other in groups[-1])
            more = (
                longest - run.end_length if run.end_length <= longest else len(groups[-1]) * (run.end_length - longest)
            )
            if padding + more <= max_padding:
                groups[-1].append(run)
                padding += more
                continue
        groups.append([run])
        padding = 0
    return groups
