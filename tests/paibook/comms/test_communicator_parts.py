"""The communicators' parts: mailboxes, the deferred communicator, torchrun's environment, sockets."""

from __future__ import annotations

import pickle
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from paibook.comms import SUM, Communicator, CommunicatorError, sockets
from paibook.comms.deferred import DeferredCommunicator
from paibook.comms.mailbox import Mailbox
from paibook.comms.rendezvous import Meeting, environment
from paibook.comms.threads import ThreadCommunicator, ThreadGroup
from paibook.comms.wire import ChannelClosed, HandshakeError, connect

TOKEN = b"t" * 32


def mailboxes(count: int) -> list[Mailbox]:
    made: list[Mailbox] = []
    for rank in range(count):
        made.append(Mailbox(rank, TOKEN, "127.0.0.1", lambda r: made[r].address))
    return made


def test_a_mailbox_answers_no_stranger() -> None:
    left, right = mailboxes(2)
    with pytest.raises((HandshakeError, ChannelClosed)):
        connect(right.address, b"x" * 32)
    with socket.create_connection(right.address) as stranger:
        stranger.sendall(b"\0" * 4096)  # gibberish ends that connection and nothing else
    left.send(np.arange(3, dtype=np.uint8), 1, 5)
    assert right.receive(0, 5).data.tolist() == [0, 1, 2]
    left.close()
    with pytest.raises(CommunicatorError, match="rank 0 left"):
        right.receive(0, 5)
    right.close()


def test_closing_frees_a_receiver() -> None:
    (mailbox,) = mailboxes(1)
    threading.Timer(0.05, mailbox.close).start()
    with pytest.raises(CommunicatorError, match="ended"):
        mailbox.receive(0, 1)


def test_the_deferred_communicator_connects_at_its_first_operation() -> None:
    made: list[Communicator] = []

    def make() -> Communicator:
        made.append(ThreadCommunicator(ThreadGroup(1), 0))
        return made[-1]

    comm = DeferredCommunicator(0, 1, make)
    assert isinstance(comm, Communicator)
    assert (comm.rank, comm.size, comm.Get_rank(), comm.Get_size(), comm.SUM) == (0, 1, 0, 1, SUM)
    assert not hasattr(comm, "_repr_html_")
    assert "allreduce" in dir(comm)
    assert repr(comm) == "<comm: rank 0 of 1>"
    assert made == []
    assert comm.allreduce(3) == 3
    assert len(made) == 1
    with pytest.raises(TypeError, match="cannot be sent elsewhere"):
        pickle.dumps(comm)


def test_torchruns_variables() -> None:
    variables = [environment(rank, 4, ["a", "b", "a", "b"], ("10.0.0.1", 4711), 8) for rank in range(4)]
    assert [v["LOCAL_RANK"] for v in variables] == ["0", "0", "1", "1"]
    assert {v["LOCAL_WORLD_SIZE"] for v in variables} == {"2"}
    assert [v["GROUP_RANK"] for v in variables] == ["0", "1", "0", "1"]
    assert variables[3]["MASTER_ADDR"] == "10.0.0.1"
    assert variables[3]["OMP_NUM_THREADS"] == "4"
    assert "GLOO_SOCKET_IFNAME" not in variables[0]
    assert environment(0, 3, ["a"] * 3, ("127.0.0.1", 1), 2)["OMP_NUM_THREADS"] == "1"
    assert environment(0, 3, ["a"] * 3, ("127.0.0.1", 1), 2)["GLOO_SOCKET_IFNAME"].startswith("lo")


def test_a_meeting_does_not_show_its_token() -> None:
    assert "ttt" not in repr(Meeting(TOKEN, "folder"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_only_the_chosen_connections_are_shut_down() -> None:
    before = sockets.inodes()
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            kept, other = socket.socketpair()
            new = sockets.inodes() - before - sockets.inodes_of([kept.fileno(), other.fileno()])
            sockets.shut_down(new)
            client.settimeout(5)
            assert client.recv(1) == b""
            with socket.create_connection(listener.getsockname()):
                listener.accept()[0].close()  # the listening socket still works
            kept.sendall(b"x")
            assert other.recv(1) == b"x"
            kept.close()
            other.close()
