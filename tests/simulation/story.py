"""A history from a seed: some calls, some workers, some trouble, and an end at which nothing may be missing."""

from __future__ import annotations

from collections.abc import Callable

from taskq.broker.producer import Message
from taskq.broker.protocol import Sleep
from taskq.broker.queue_set import QueueSet
from taskq.message.letters import DISCARDED, FAILURE, GIVEN_UP, SUCCESS
from taskq.worker.child.main_lane import WAIT
from tests.simulation.actors import FEW, LOOP, MAIN, Client, message, reaper
from tests.simulation.workers import Child, Worker
from tests.simulation.world import LEASE, PATIENCE, Event, Process, Steps, Violation, World, repeatable

#: Seconds of trouble; seconds after it within which everything must have ended, and within which idle workers begin.
TROUBLE, DRAINED, AT_ONCE = 8.0, 90.0, 1.0
#: Seconds within which a parent has closed what a child held, and others, counted from the end of the lease, a worker.
REPAIRED = 1.0
#: What a call can come to, and how often.
FATES = {
    ("plain", "ok"): 10, ("plain", "flaky"): 2, ("plain", "fail"): 1, ("plain", "ask"): 3, ("plain", "die"): 1,
    ("light", "ok"): 6, ("light", "ask"): 2, ("light", "fail"): 1, ("light", "flaky"): 1, ("light", "die"): 1,
    ("once", "ok"): 3, ("once", "fail"): 1, ("crowd", "ok"): 6, ("crowd", "flaky"): 1, ("crowd", "die"): 1,
    ("single", "ok"): 3, ("limited", "ok"): 2, ("newer", "ok"): 1,
}  # fmt: skip


class Story:
    """One history."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self.workers: list[Worker] = []
        self.leaving: list[Worker] = []
        self.reapers: list[Process] = []
        self.clients = [Client(world, f"client{n}") for n in range(2)]
        self.born = 0
        self.over = 0.0
        kinds: list[Callable[[], object]] = [
            self.kill_a_child, self.kill_a_worker, self.stop_a_process, self.cut_off_a_process, self.silence_the_server,
            self.move_the_clock, self.deploy, self.lose_the_scripts, self.replace_the_reaper,
        ]  # fmt: skip
        #: A history with all kinds of trouble at once would hardly get anywhere, and seldom to the same place twice.
        self.kinds = self.chance.sample(kinds, self.chance.randint(0, 4))
        self.world.rate = self.chance.choice([0.0, 0.0, 0.02, 0.1, 0.3])
        #: Without trouble between them and the server, those who live repair a death in a known time.
        blind = {self.stop_a_process, self.cut_off_a_process, self.silence_the_server, self.move_the_clock}
        self.world.clear = not self.world.rate and blind.isdisjoint(self.kinds)

    # -- the course of it ---------------------------------------------------------------------------------

    def unfold(self) -> None:
        """Play it to its end."""
        world = self.world
        self.new_worker([MAIN, LOOP])
        if self.chance.random() < 0.7:
            self.new_worker(self.chance.choice([[MAIN], [FEW], [FEW, LOOP]]))
        if self.chance.random() < 0.5:
            self.replace_the_reaper()
        for n, client in enumerate(self.clients):
            calls = [self.some_calls(n, i) for i in range(self.chance.randint(1, 6))]
            world.start(client.process, "sends", client.send(calls, pause=1.0))
        trouble = world.start(Process("trouble"), "", self.trouble())
        world.run(lambda: trouble.ended, TROUBLE * 10, "the trouble is over")
        world.run(self.drained, DRAINED, "everything has ended")
        self.nothing_is_missing()
        self.idle_workers_begin_at_once()
        self.everybody_leaves()

    def some_calls(self, client: int, n: int) -> list[Message]:
        calls = []
        for i in range(self.chance.choice([1, 1, 2, 4])):
            task, how = self.chance.choices(list(FATES), list(FATES.values()))[0]
            seconds = self.chance.choice([0.001, 0.001, 0.01, 0.2, 2.0])
            options = self.chance.choice([b"", b"", b"", b"", b"w", b"d1500", b"x3000"])
            calls.append(message(b"c%d-%02d-%d" % (client, n, i) + b"-" * 9, task, how, seconds, options))
        return calls

    def trouble(self) -> Steps:
        """What goes wrong."""
        while self.world.time < TROUBLE:
            yield Sleep(self.chance.expovariate(1.0))
            if self.kinds:
                self.chance.choice(self.kinds)()
            if not self.workers:
                yield Sleep(self.chance.expovariate(1.0))
                self.new_worker([MAIN, LOOP])
        if self.world.rate:
            self.over = max(self.over, self.world.time)
        self.world.rate = 0.0
        self.world.scripts_lost = False
        # What fell due by a clock that was ahead must not take all that time.
        self.world.skew = max(event.server_ms - event.time * 1000 for event in self.world.trace)
        if not any(LOOP in worker.plan.sets and MAIN in worker.plan.sets for worker in self.workers):
            self.new_worker([MAIN, LOOP])

    def drained(self) -> bool:
        """Whether every call was sent and has ended, and everybody who waited knows."""
        model = self.world.model
        if len(model.hashes["messages"]) > len(model.hashes["reasons"]):
            return False
        return all(actor.ended for client in self.clients for actor in client.process.actors)

    # -- what must be so at the end -----------------------------------------------------------------------

    def nothing_is_missing(self) -> None:
        world = self.world
        dead = set(world.model.hashes["reasons"])
        if world.accepted != world.ended | dead:
            raise Violation(f"lost: {world.accepted - world.ended - dead}")
        for client in self.clients:
            if client.sent - world.accepted or client.unsent & world.accepted:
                raise Violation(f"{client.process.name} is wrong about {client.sent ^ world.accepted}")
            for id_, answer in client.answers.items():
                self.is_what_became_of_it(id_, answer)

    def is_what_became_of_it(self, id_: bytes, answer: object) -> None:
        stored = self.world.model.strings.get("result:" + id_.decode())
        if stored is None or answer not in (stored, [self.world.model.hashes["reasons"].get(id_)]):
            raise Violation(f"{id_!r} is said to have come to {answer!r}, and came to {stored!r}")
        if stored[:1] not in (SUCCESS, FAILURE, GIVEN_UP, DISCARDED):
            raise Violation(f"{id_!r} came to {stored!r}")

    def idle_workers_begin_at_once(self) -> None:
        """Bells ring: nobody waits for the end of a wait in vain."""
        world, client = self.world, Client(self.world, "probe")
        rested = max(world.time, self.over + PATIENCE + WAIT + LEASE)  # by then all have heard what they can hear
        world.at(rested, lambda: None)
        world.run(lambda: world.time >= rested, DRAINED, "some rest")
        ids = [b"probe-%d" % n + b"-" * 9 for n in range(3)]
        calls = [message(id_, task, "ok", 0.001) for id_, task in zip(ids, ("plain", "light", "crowd"), strict=True)]
        sending = world.start(client.process, "sends", client.send([calls], pause=0.01))
        world.run(lambda: sending.ended, AT_ONCE, "a call is sent")
        world.run(lambda: world.ended >= set(ids), AT_ONCE, "an idle worker begins")

    def everybody_leaves(self) -> None:
        world = self.world
        for worker in self.workers:
            worker.stop()
        everybody = self.workers + self.leaving
        world.run(lambda: all(worker.process.dead for worker in everybody), 30.0, "workers end when told to")
        self.replace_the_reaper()  # for registrations that came after the death of who sent them
        tables = ("leases", "calls", "workers", "sets", "serving")
        world.run(lambda: not any(map(world.seen.table, tables)), 10 * LEASE, "everything is forgotten")

    # -- kinds of trouble ---------------------------------------------------------------------------------

    def new_worker(self, queues: list[QueueSet]) -> None:
        self.born += 1
        self.workers.append(Worker(self.world, f"w{self.born}", queues, children=self.chance.choice([1, 1, 2])))

    def some_processes(self, what: str) -> list[Process]:
        """One to whom something happens; if that is a worker's parent, its children as well."""
        everybody = [process for worker in self.workers for process in worker.everybody]
        one = self.chance.choice([*everybody, *self.reapers, *(client.process for client in self.clients)])
        self.world.note(one.name, what)
        return next((worker.everybody for worker in self.workers if worker.process is one), [one])

    def a_while(self) -> float:
        """When something ends that may last for a moment, or for longer than a lease."""
        end = self.world.time + self.chance.uniform(0.05, 2.5) * LEASE
        self.over = max(self.over, end)
        return end

    def is_repaired(self, children: list[Child], by: Process, seconds: float) -> None:
        """What dead children held is somewhere else soon, if he lives who is to see to it."""
        incarnations = {seat.incarnation for child in children for seat in child.seats}

        def look() -> None:
            left = sorted(inc for inc in incarnations if self.world.model.hashes["processing:" + inc])
            if left and not by.dead:
                raise Violation(f"{left} still hold something {seconds:g} s after their death")

        if self.world.clear:
            self.world.at(self.world.time + seconds, look)

    def kill_a_child(self) -> None:
        children = [child for worker in self.workers for child in worker.children.values()]
        if children:
            child = self.chance.choice(children)
            self.world.kill(child)
            self.is_repaired([child], child.worker.process, REPAIRED)

    def kill_a_worker(self) -> None:
        if self.workers:
            worker = self.workers.pop(self.chance.randrange(len(self.workers)))
            self.world.kill(*worker.everybody)
            others = [*(other.process for other in self.workers), *self.reapers]
            if others:
                self.is_repaired([*worker.children.values()], self.chance.choice(others), LEASE + REPAIRED)

    def stop_a_process(self) -> None:
        """SIGSTOP."""
        end = self.a_while()
        for process in self.some_processes("is stopped"):
            process.stopped_until = end

    def cut_off_a_process(self) -> None:
        end = self.a_while()
        for process in self.some_processes("is cut off"):
            process.cut_until = end

    def silence_the_server(self) -> None:
        self.world.away_until = self.a_while()
        self.world.note("server", "is away")
        for call in list(self.world.blocked):
            self.world.interrupt(call.actor)

    def move_the_clock(self) -> None:
        seconds = self.chance.choice([-1, 1]) * self.chance.choice([0.3, LEASE, 60.0, 600.0])
        self.world.skew += seconds * 1000
        self.world.note("server", f"its clock moves by {seconds:g} s")

    def deploy(self) -> None:
        """A worker is told to end, another takes its place."""
        if self.workers:
            worker = self.workers.pop(0)
            worker.stop()
            self.leaving.append(worker)
            self.new_worker([MAIN, LOOP])

    def lose_the_scripts(self) -> None:
        self.world.scripts_lost = not self.world.scripts_lost
        self.world.note("server", "loses its scripts" if self.world.scripts_lost else "has its scripts")

    def replace_the_reaper(self) -> None:
        self.world.kill(*self.reapers)
        self.born += 1
        self.reapers = [reaper(self.world, f"reaper{self.born}").process]


def simulate(seed: int, tell: Callable[[Event], object] = lambda _: None) -> World:
    """Play the history of a seed, and tell its trace; raises `Violation`."""
    with repeatable(seed):
        world = World(seed, tell)
        try:
            Story(world).unfold()
        except Exception as error:
            error.add_note(f"this is the history of TASKQ_SEED={seed}")
            raise
        return world
