"""How long a barrier of torch.distributed's gloo takes between N processes: gloo.py N."""

import json
import os
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

BATCH = 500
WARM_UP_S = 1.0
MEASURED_S = 3.0


def rounds_of(seconds):
    """Nanoseconds of each round. Rank 0 looks at its clock between batches, so that all agree."""
    took = []
    more = torch.ones(1)
    started = time.perf_counter()
    while more.item():
        for _ in range(BATCH):
            before = time.perf_counter_ns()
            dist.barrier()
            took.append(time.perf_counter_ns() - before)
        more.fill_(time.perf_counter() - started < seconds)
        dist.broadcast(more, src=0)
    return took


def rank_main(rank, n, meeting_point):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting_point}", rank=rank, world_size=n)
    rounds_of(WARM_UP_S)
    took = sorted(rounds_of(MEASURED_S))
    if rank == 0:
        row = {
            "peer": "gloo",
            "n": n,
            "median_us": took[len(took) // 2] / 1e3,
            "p99_us": took[len(took) * 99 // 100] / 1e3,
            "rounds": len(took),
        }
        print(json.dumps(row, separators=(",", ":")), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    n = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        arguments = (n, os.path.join(folder, "meeting_point"))
        processes.start_processes(rank_main, arguments, nprocs=n, start_method="fork")
