"""From the acknowledged commit to the handler, for several peers at once.

usage: latency.py SECONDS PEER...     beside bench.py
One program adds a job to each peer in turn, a job every 20 ms over all, by SQL on one server: neither the drift of the
machine nor the language of a producer stands between the figures. Prints them with the ratio to the first peer.
"""
import random, sys, time
import psycopg
from bench import PEERS, TMP, Admin, Worker, call, dsn

EVERY = 0.02
CONTEXT = "json_build_object('n', %s::bigint, 'kind', 'bench', 'pad', repeat('x', 160))"
ADD = {
    "agent_tasks": f"insert into agent_tasks (task_type, agent_type, context_json) values ('noop', 'bench', {CONTEXT}::jsonb)",
    "graphile_worker._private_jobs": f"select graphile_worker.add_job('noop', {CONTEXT})",
}


class Contestant:
    def __init__(self, admin, name, number):
        peer, db = PEERS[name], f"latency{number}"
        self.name, self.add, self.file = name, ADD[peer["table"]], f"{TMP}/{db}.got"
        admin.fresh(db)
        call(peer, db, "schema")
        self.worker = Worker(peer, db, "worklat", self.file)
        if not self.worker.ready.wait(20):
            sys.exit(f"{name} does not get ready")
        self.connection = psycopg.connect(dsn(db), autocommit=True, prepare_threshold=0)
        self.sent = {}

    def send(self, n):
        self.connection.execute(self.add, (n,))
        self.sent[n] = time.time_ns()

    def waits(self):
        """In milliseconds, shortest first; negative where the handler was quicker than the acknowledgement."""
        started = {}
        for line in open(self.file):
            n, moment = line.split()
            started.setdefault(int(n), int(moment))
        lost = self.sent.keys() - started.keys()
        if lost:
            sys.exit(f"{self.name} has not started {len(lost)} of {len(self.sent)} jobs")
        return sorted((started[n] - moment) / 1e6 for n, moment in self.sent.items())


def main():
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    admin = Admin()
    contestants = [Contestant(admin, name, number) for number, name in enumerate(names)]
    time.sleep(5)
    n, began = 0, time.monotonic()
    while n * EVERY < seconds:
        for contestant in random.sample(contestants, len(contestants)):
            time.sleep(max(0, began + n * EVERY - time.monotonic()))
            contestant.send(n)
            n += 1
    time.sleep(2)
    for contestant in contestants:
        contestant.worker.stop()
    first = None
    for contestant in contestants:
        waits = contestant.waits()
        p50, p95, p99 = (waits[len(waits) * percent // 100] for percent in (50, 95, 99))
        first = first or p50
        print(f"{contestant.name:20} {len(waits):6} jobs  p50 {p50:.2f} ms ({p50 / first:.2f})  p95 {p95:.2f}  p99 {p99:.2f}")


main()
