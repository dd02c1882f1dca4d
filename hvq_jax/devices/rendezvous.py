"""Waiting until every process of a cluster has started, before JAX joins them.

`jax.distributed.initialize` ends the process with SIGSEGV where the coordinator's port is in use, and with SIGABRT
after minutes of silence where another process does not come. So the processes first meet on the coordinator's port:
each of the others sends its index and the number of processes it was told, and process 0 answers once all are there.
"""

import contextlib
import itertools
import re
import socket
import time

from hvq_jax.errors import UserError

_RETRY_SECONDS = 0.5
_READ_SECONDS = 5.0  # for a connection to say who it is; others, such as port scanners, are dropped
_PATIENCE_SECONDS = 10.0  # a longer wait is announced
_MOST_SHOWN = 16  # processes that are named in a message


def meet(coordinator: str, num_processes: int, process_id: int, *, seconds: float) -> None:
    """Return once all processes have called this; raise UserError, with the reason, if they have not after `seconds`.

    Args:
        coordinator: HOST:PORT of process 0, where nothing listens yet.
        num_processes: number of processes in the cluster.
        process_id: index of this process.
        seconds: how long to wait for the others.
    """
    host, _, port = coordinator.rpartition(":")
    if not 0 < int(port) < 2**16:
        raise UserError(f"{coordinator}: the port of process 0 must be from 1 to 65535")
    if process_id == 0:
        _receive_others(int(port), num_processes, seconds)
    else:
        _report_to_first(host.strip("[]"), int(port), num_processes, process_id, seconds)


def _receive_others(port: int, num_processes: int, seconds: float) -> None:
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=num_processes)
    except OSError as error:
        raise UserError(f"port {port} of the coordinator cannot be used ({error}): choose another one") from None
    with contextlib.ExitStack() as opened:
        opened.enter_context(server)
        connections: dict[int, socket.socket] = {}
        visitors: list[socket.socket] = []  # also those that were replaced

        def missing() -> str:
            absent = (str(i) for i in range(1, num_processes) if i not in connections)
            shown = list(itertools.islice(absent, _MOST_SHOWN + 1))
            return ", ".join(shown[:_MOST_SHOWN] + ["…"] * (len(shown) > _MOST_SHOWN))

        def stop(problem: str) -> UserError:
            for connection in visitors:
                with contextlib.suppress(OSError):
                    connection.sendall(f"error {problem}\n".encode())
            return UserError(problem)

        def all_are_here() -> bool:
            if len(connections) < num_processes - 1:
                return False
            for index in [i for i, connection in connections.items() if not _is_open(connection)]:
                del connections[index]  # it ended: started again, it comes with a connection of its own
            return len(connections) == num_processes - 1

        start = time.monotonic()
        announced = False
        while not all_are_here():
            waited = time.monotonic() - start
            if waited >= seconds:
                raise stop(f"processes that have not started within {seconds:g} s: {missing()} of {num_processes}")
            if waited >= _PATIENCE_SECONDS and not announced:
                print(f"waiting for the processes {missing()} of {num_processes}", flush=True)
                announced = True
            server.settimeout(min(_RETRY_SECONDS, seconds - waited))
            try:
                connection = opened.enter_context(server.accept()[0])
                connection.settimeout(_READ_SECONDS)
                said = re.fullmatch(rb"hvq_jax (\d{1,9}) of (\d{1,9})\n", connection.recv(64))
            except OSError:
                continue
            if not said:
                connection.close()
                continue
            index, count = int(said[1]), int(said[2])
            twice = index in connections and _is_open(connections[index])
            connections[index] = connection
            visitors.append(connection)
            if count != num_processes or not 0 < index < num_processes:
                raise stop(
                    f"process {index} was told that it is one of {count}, process 0 that there are {num_processes}"
                )
            if twice:
                raise stop(f"two processes were told that they are process {index} of {num_processes}")
        for connection in connections.values():
            connection.sendall(b"go\n")


def _is_open(connection: socket.socket) -> bool:
    """Return whether the process at the other end is still waiting."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _report_to_first(host: str, port: int, num_processes: int, process_id: int, seconds: float) -> None:
    start, reason, announced = time.monotonic(), "", False
    while (left := start + seconds - time.monotonic()) > 0:
        if seconds - left >= _PATIENCE_SECONDS and not announced:
            print(f"waiting for process 0 at {host}:{port} ({reason})", flush=True)
            announced = True
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(f"hvq_jax {process_id} of {num_processes}\n".encode())
                connection.settimeout(left + _READ_SECONDS)  # process 0 says who is missing
                answer = connection.recv(512).decode(errors="replace").strip()
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
            reason, answer = str(error), ""
        if answer == "go":
            return
        if answer.startswith("error "):
            raise UserError(answer.removeprefix("error "))
        reason = reason or "it ended"
        time.sleep(_RETRY_SECONDS)
    raise UserError(
        f"process 0 did not answer at {host}:{port} within {seconds:g} s ({reason}): start it, or correct the address"
    )
