"""Signals are noted, and a run that stops says so with its exit status."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from retfiner.common.errors import Stopped, run_entry_point
from retfiner.common.processes import SIGNALS
from retfiner.training.stop_signals import StopSignals
from tests.helpers.processes import free_port


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received == 0
        send(number)
        assert signals.received == number
        send(signal.SIGTERM)
        assert signals.received == number  # the first one is the reason
    assert signal.getsignal(number) == before


def test_a_process_that_waits_inside_a_library_ends_all_the_same(tmp_path):
    """Here for the first process of a run, which never comes."""
    code = f"""
import torch.distributed as dist
from retfiner.training import stop_signals
stop_signals.PATIENCE = 0.2
with stop_signals.StopSignals():
    print("waiting", flush=True)
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:{free_port()}", rank=1,
                            world_size=2)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: ended while waiting for other processes" in said


def test_a_child_does_not_wake_its_parent():
    """In a process of its own: a library of another test may handle signals here, as SIGCHLD."""
    code = """
import os, signal, time
from retfiner.training import stop_signals
stop_signals.PATIENCE = 0.1
with stop_signals.StopSignals():
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    time.sleep(1)  # ten times as long as a parent that had been woken would live
    print("alive")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0\nalive\n", "")


def test_signals_are_taken_back_from_a_library():
    with StopSignals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.take()
        send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait():
    with StopSignals() as signals:
        send(signal.SIGINT)
        with pytest.raises(Stopped, match="at once") as caught:
            send(signal.SIGINT)
        assert caught.value.status == 130
        assert signals.received == signal.SIGINT


def test_another_thread_than_the_first_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)

    def inside():
        with StopSignals():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == before


def test_the_exit_status_is_the_shells(capsys):
    def main():
        raise Stopped(signal.SIGTERM, "saved; to go on: python train.py")

    with pytest.raises(SystemExit) as caught:
        run_entry_point(main)
    assert caught.value.code == 143
    assert "to go on: python train.py" in capsys.readouterr().err
