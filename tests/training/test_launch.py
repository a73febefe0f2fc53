"""The shipped Accelerate configs, and trainings that launch themselves with one."""

import sys

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from helpers.training_runs import arguments, make_set, read_log, run_python
from vita_hf.commands.main import main
from vita_hf.training.launch import CONFIGS, launch_command


def test_accelerate_reads_every_config():
    configs = {path.stem: load_config_from_file(str(path)) for path in CONFIGS.glob("*.yaml")}
    assert {name: config.distributed_type for name, config in configs.items()} == {
        "one_gpu": "NO",
        "several_gpus": "MULTI_GPU",
        "fsdp": "FSDP",
        "cpu": "MULTI_GPU",
    }
    assert configs["fsdp"].fsdp_config["fsdp_version"] == 2
    assert not configs["fsdp"].fsdp_config["fsdp_cpu_ram_efficient_loading"]


@pytest.mark.parametrize(
    "config, gpus, num_processes, expected",
    [("one_gpu", 4, None, "1"), ("several_gpus", 4, None, "4"), ("fsdp", 8, 2, "2"), ("cpu", 4, None, "2")],
)
def test_number_of_processes(monkeypatch, config, gpus, num_processes, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    command = launch_command(config, ["train", "--output", "out"], num_processes)
    assert command[command.index("--num_processes") + 1] == expected
    assert command[command.index("-m", 2) :][:5] == ["-m", "vita_hf", "train", "--output", "out"]
    assert ("--cpu" in command) == (config == "cpu")


def test_own_config(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("distributed_type: MULTI_GPU\nnum_processes: 3\n")
    command = launch_command(str(own), ["train"])
    assert command[3:7] == ["--config_file", str(own), "--num_processes", "3"]


def test_wrong_configs(monkeypatch):
    with pytest.raises(ValueError, match="expected one of cpu, fsdp, one_gpu, several_gpus or a YAML file, got 'tpu'"):
        launch_command("tpu", ["train"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="fsdp: expected a GPU, or --num-processes"):
        launch_command("fsdp", ["train"])


def test_the_command_passes_on_all_other_arguments(monkeypatch):
    class Executed(Exception):
        pass

    def execute(program, command):
        raise Executed(command)

    monkeypatch.setattr("os.execv", execute)
    args = ["train", "--recipe", "tiny-synthetic", "--output", "out", "--set", "training.steps=1"]
    with pytest.raises(Executed) as executed:
        main([*args, "--accelerate-config=cpu", "--num-processes", "3", "--workers", "0"])
    (command,) = executed.value.args
    assert command[0] == sys.executable
    assert command[command.index("--num_processes") :] == [
        *("--num_processes", "3", "-m", "vita_hf"),
        *args,
        *("--workers", "0", "--cpu"),
    ]


def test_num_processes_alone_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "tiny-synthetic", "--output", "out", "--num-processes", "2"])
    assert "error: --num-processes: expected --accelerate-config" in capsys.readouterr().err


def test_two_processes_on_the_cpu(tmp_path):
    args = arguments(make_set(tmp_path / "set"), tmp_path / "out", "training.steps=1")
    finished = run_python("-m", "vita_hf", "train", "--accelerate-config", "cpu", *args)
    assert "2 processes on cpu in float32" in finished.stderr
    assert [entry["step"] for entry in read_log(tmp_path / "out")] == [1]
    assert {path.name for path in (tmp_path / "out" / "checkpoints" / "step-000000001").glob("random_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
