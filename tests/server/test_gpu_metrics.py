#!/usr/bin/env python3
"""GET /metrics of a card: the emulated driver's, and a fake NVML (tests/fake_nvml) beside it, which may fail or hang."""
import os
import re
import time

from client import BIN, Server, run, until

BUILD = os.path.dirname(BIN)
EMULATED = {"M40LLM_CUDA_LIB": os.path.join(BUILD, "libcuda-emu.so")}
FAKE = {**EMULATED, "M40LLM_NVML_LIB": os.path.join(BUILD, "libnvidia-ml-fake.so")}


def start(**env):
    return Server("--device", "cuda", "--ctx", "128", "--parallel", "1", env=env)


def gpu_lines(server):
    reply = server.get("/metrics")
    assert reply.status == 200
    lines = reply.body.decode().splitlines()
    assert all(re.fullmatch(r"# (HELP|TYPE) m40llm_\w+ .+|m40llm_\w+(\{\w+=\"[^\"]+\"(,\w+=\"[^\"]+\")*\})? [-+.e0-9]+", line) for line in lines), lines
    return [line for line in lines if "m40llm_gpu_" in line]


def test_figures():
    server = start(**FAKE)
    until(lambda: gpu_lines(server), 20)
    lines = gpu_lines(server)
    values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    card = 'device="cuda:0"'
    for name, value in {f"temperature_celsius{{{card}}}": 61, f'clock_hertz{{{card},clock="sm"}}': 1.113e9, f'clock_hertz{{{card},clock="memory"}}': 3.004e9,
                        f"power_watts{{{card}}}": 187.654, f"power_limit_watts{{{card}}}": 250, f"ecc_enabled{{{card}}}": 1,
                        f'ecc_errors_total{{{card},kind="corrected",since="load"}}': 1, f'ecc_errors_total{{{card},kind="uncorrected",since="load"}}': 2,
                        f'ecc_errors_total{{{card},kind="corrected",since="ever"}}': 11, f'ecc_errors_total{{{card},kind="uncorrected",since="ever"}}': 12,
                        f'memory_bytes{{{card},state="total"}}': 12079136768, f'memory_bytes{{{card},state="used"}}': 1079136768, f'memory_bytes{{{card},state="free"}}': 11000000000,
                        f'throttled{{{card},reason="power_cap"}}': 1, f'throttled{{{card},reason="hw_thermal"}}': 1, f'throttled{{{card},reason="sw_thermal"}}': 0,
                        f'throttled{{{card},reason="idle"}}': 0}.items():
        assert float(values["m40llm_gpu_" + name]) == value, (name, values)
    for kind in ("HELP", "TYPE"):
        names = [line.split()[2] for line in lines if line.startswith(f"# {kind}")]
        assert len(names) == len(set(names)) == 8, names
    server.stop()


def test_what_a_card_does_not_tell():
    server = start(**FAKE, M40LLM_FAKE_NVML_FAIL="nvmlDeviceGetEccMode,nvmlDeviceGetTotalEccErrors,nvmlDeviceGetCurrentClocksThrottleReasons,nvmlDeviceGetTemperature")
    until(lambda: gpu_lines(server), 20)
    lines = "\n".join(gpu_lines(server))
    assert "power_watts" in lines and not re.search("ecc|throttled|temperature", lines), lines
    server.stop()


def test_no_library():
    server = start(**EMULATED, M40LLM_NVML_LIB="/nonexistent/nvml.so")
    time.sleep(0.2)
    assert not gpu_lines(server) and not server.line("nvml.so")
    server.stop()
    server = start(**EMULATED, M40LLM_NVML_LIB="/nonexistent/nvml.so", M40LLM_LOG="info")
    assert "no figures of the card" in server.wait_for("/nonexistent/nvml.so")
    server.stop()


def test_no_request_waits_for_it():
    server = start(**FAKE, M40LLM_FAKE_NVML_HANG="nvmlInit_v2")
    begin = time.monotonic()
    assert gpu_lines(server) == [] and server.get("/health").status == 200
    server.stop()
    assert time.monotonic() - begin < 2.5


run([f for name, f in list(globals().items()) if name.startswith("test_")])
