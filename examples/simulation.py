"""Vectorised simulation: workers balance poles on carts, one step for each command in a Pipe.

The parent sends ``("step", action)`` to every worker and waits for every ``(observation, reward,
done)`` before it chooses the next actions, as trainers of reinforcement learning do, so latency
is what counts. Try it with ``python examples/simulation.py --context fork`` and ``--context
mpipc-shm-fork``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, TypeAlias

STEPS = 20_000
REPORT_EVERY = 100

# Position and speed of the cart, angle and angular speed of the pole.
Observation: TypeAlias = tuple[float, float, float, float]
Link: TypeAlias = "Connection[Any, Any]"


class Cart:
    """A pole on a cart that is pushed left or right, in SI units."""

    GRAVITY = 9.8
    CART, POLE = 1.0, 0.1
    HALF_LENGTH = 0.5
    FORCE = 10.0
    TICK = 0.02

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.reset()

    def reset(self) -> Observation:
        """Start an episode close to balance."""
        x, v, angle, spin = (self._random.uniform(-0.05, 0.05) for _ in range(4))
        self._state = x, v, angle, spin
        return self._state

    def step(self, action: int) -> tuple[Observation, float, bool]:
        """Push for one tick; an episode is done when the pole falls or the cart leaves."""
        x, v, angle, spin = self._state
        mass = self.CART + self.POLE
        sine, cosine = math.sin(angle), math.cos(angle)
        push = self.FORCE if action else -self.FORCE
        swing = (push + self.POLE * self.HALF_LENGTH * spin**2 * sine) / mass
        lever = self.HALF_LENGTH * (4 / 3 - self.POLE * cosine**2 / mass)
        spin_change = (self.GRAVITY * sine - cosine * swing) / lever
        v_change = swing - self.POLE * self.HALF_LENGTH * spin_change * cosine / mass
        self._state = (
            x + self.TICK * v,
            v + self.TICK * v_change,
            angle + self.TICK * spin,
            spin + self.TICK * spin_change,
        )
        done = abs(self._state[0]) > 2.4 or abs(self._state[2]) > 0.21
        return self._state, 0.0 if done else 1.0, done


def worker(link: Link, seed: int) -> None:
    """Obey commands until the parent says close."""
    cart = Cart(seed)
    while True:
        command, argument = link.recv()
        if command == "step":
            observation, reward, done = cart.step(argument)
            link.send((cart.reset() if done else observation, reward, done))
        elif command == "reset":
            link.send(cart.reset())
        elif command == "close":
            link.close()
            return
        else:
            raise ValueError(f"unknown command {command!r}")


def choose(observation: Observation) -> int:
    """Push towards the side to which the pole falls; not clever, so that episodes end."""
    _, _, angle, spin = observation
    return int(angle + 0.02 * spin > 0)


def main(
    ctx: BaseContext,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
    steps: int = STEPS,
) -> list[tuple[float, int, Observation]]:
    """Step every worker's cart.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext
        Makes the pipes and the processes.
    progress : callable, optional
        Called with the number of steps done and of all steps.
    workers : int
        How many processes hold a cart.
    steps : int
        How many steps each cart makes.

    Returns
    -------
    list of tuple
        Reward, number of episodes and last observation of each worker.
    """
    links: list[Link] = []
    processes = []
    for seed in range(workers):
        link, other_end = ctx.Pipe()
        process = ctx.Process(target=worker, args=(other_end, seed))  # type: ignore[attr-defined]
        process.start()
        other_end.close()
        links.append(link)
        processes.append(process)

    for link in links:
        link.send(("reset", None))
    observations: list[Observation] = [link.recv() for link in links]
    rewards = [0.0] * workers
    episodes = [0] * workers
    for number in range(1, steps + 1):
        for link, observation in zip(links, observations, strict=True):
            link.send(("step", choose(observation)))
        for index, link in enumerate(links):
            observations[index], reward, done = link.recv()
            rewards[index] += reward
            episodes[index] += done
        if progress and number % REPORT_EVERY == 0:
            progress(number, steps)

    for link in links:
        link.send(("close", None))
    for process in processes:
        process.join()
    return list(zip(rewards, episodes, observations, strict=True))


def describe(result: list[tuple[float, int, Observation]]) -> str:
    """One line on the result."""
    reward = sum(reward for reward, _, _ in result)
    episodes = sum(episodes for _, episodes, _ in result)
    return f"{len(result)} carts, {episodes:,} episodes ended, total reward {reward:,.0f}"


if __name__ == "__main__":
    from mpipc.cli.example import run_alone

    run_alone(main, describe)
