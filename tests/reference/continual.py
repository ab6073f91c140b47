"""Averages of a recall matrix R[s][t]: after stage s, on task t <= s (section 6).

R is a lower-triangular list of lists or an array [T, T] whose entries above the diagonal are NaN; they are never read.
`forgetting` is the release's, `forgetting_chaudhry` Chaudhry's. All results are in R's unit (percentage points).
"""


def mean(values):
    """The plain mean of a list."""
    values = [float(value) for value in values]
    return sum(values) / len(values)


def incremental_average(R):
    """mean_t mean_{s >= t} R[s][t], the release's "average"."""
    tasks = len(R)
    return mean(mean(R[s][t] for s in range(t, tasks)) for t in range(tasks))


def final_average(R):
    """mean_t R[T-1][t]."""
    tasks = len(R)
    return mean(R[tasks - 1][t] for t in range(tasks))


def forgetting(R):
    """(1/(T-1)) sum_{t<T-1} ( R[T-1][t] - max_{t<=s<T-1} R[s][t] ): negative = forgot; 0 for one task."""
    tasks = len(R)
    if tasks == 1:
        return 0.0
    return mean(R[tasks - 1][t] - max(R[s][t] for s in range(t, tasks - 1)) for t in range(tasks - 1))


def forgetting_chaudhry(R):
    """(1/(T-1)) sum_{t<T-1} ( max_{t<=s<T-1} R[s][t] - R[T-1][t] ): positive = forgot; 0 for one task."""
    tasks = len(R)
    if tasks == 1:
        return 0.0
    return mean(max(R[s][t] for s in range(t, tasks - 1)) - R[tasks - 1][t] for t in range(tasks - 1))


def backward_transfer(R):
    """(1/(T-1)) sum_{t<T-1} ( R[T-1][t] - R[t][t] ): negative = later tasks harmed earlier ones; 0 for one task."""
    tasks = len(R)
    if tasks == 1:
        return 0.0
    return mean(R[tasks - 1][t] - R[t][t] for t in range(tasks - 1))


def gain_over_zero_shot(R, Z):
    """mean_t ( R[t][t] - Z[t][t] ), Z the matrix of the frozen backbone without prompts on the same galleries."""
    return mean(R[t][t] - Z[t][t] for t in range(len(R)))


def transfer(R):
    """MTIL's Transfer: mean_{t>=1} mean_{s<t} R[s][t] of full rows R[s][0..N-1]; only stages that there are."""
    return mean(mean(R[s][t] for s in range(len(R)) if s < t) for t in range(1, len(R[0])))


def average(R):
    """MTIL's Average: mean_t mean_s R[s][t] of full rows."""
    return mean(mean(row[t] for row in R) for t in range(len(R[0])))


def last(R):
    """MTIL's Last: mean_t R[T-1][t] of full rows."""
    return mean(R[-1])
