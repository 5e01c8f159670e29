"""Prints how many no-op tasks a second Dask distributed runs on this machine with two worker processes of one thread.

A rival for `make bench`: it schedules tasks one by one, in batches of 10,000 submitted together.
"""

import statistics
import time

from dask.distributed import Client, LocalCluster


def nothing(number):
    return number


def main():
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    client = Client(cluster)
    client.gather(client.map(nothing, range(100), pure=False))
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        client.gather(client.map(nothing, range(10_000), pure=False))
        rates.append(10_000 / (time.perf_counter() - began))
    print(statistics.median(rates))
    client.close()
    cluster.close()


if __name__ == "__main__":
    main()
